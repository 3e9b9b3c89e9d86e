//! Ways through the door: asked for once, kept apart, voided like grants.

use super::records::report;
use super::{Desk, Learnt, TIMEOUT, change, learnt};
use crate::digest::Digest;
use crate::door::{Call, Passage};
use crate::fixture::{self, destination, name, spec, test};
use crate::matching::host::Host;
use crate::policy::Policy;
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::{
    AuditAnswer, Change, Denied, EvidenceDigests, Left, TunnelAnswer, TunnelGranted, TunnelRequest, UseKind, UseRecord,
};
use crate::worker::cuts::Cut;
use crate::worker::{self, Answer, Entry, Outcome, Report, Tunnel, verdict};
use std::rc::Rc;

fn call(host: &str, port: u16, passage: Passage) -> Call {
    Call { host: Host::parse(host.as_bytes()).unwrap(), port, passage }
}

fn api() -> Call {
    call("api.github.com", 443, Passage::Intercepted)
}

/// Whoever has this token.
fn with(token: &str) -> EvidenceDigests {
    EvidenceDigests { session_token: Some(Digest::of(token.as_bytes())), ..EvidenceDigests::default() }
}

fn granted() -> TunnelGranted {
    TunnelGranted {
        as_of: 0,
        session_id: "s-1".into(),
        session: name("reviewer"),
        address: "192.0.2.7:443".parse().unwrap(),
        ttl_ms: 30_000,
    }
}

fn way() -> Learnt {
    Learnt::Way(granted().address)
}

impl Desk {
    /// Sends all that is due, and takes every question for a way.
    fn ways(&mut self) -> Vec<(u32, TunnelRequest)> {
        self.pump();
        let all = std::mem::take(&mut self.open).into_iter();
        let (ways, others): (Vec<_>, Vec<_>) =
            all.partition(|(_, dispatch)| matches!(dispatch.call, worker::Call::Tunnel(..)));
        self.open = others;
        let parse =
            |(token, dispatch): (u32, worker::Dispatch)| (token, serde_json::from_slice(&dispatch.body).unwrap());
        ways.into_iter().map(parse).collect()
    }

    fn knock(&mut self, context: u32, call: &Call, evidence: &EvidenceDigests) -> (u32, TunnelRequest) {
        self.worker.hold_for_tunnel(context, call, evidence, Millis(self.now));
        let mut ways = self.ways();
        assert_eq!(ways.len(), 1);
        ways.remove(0)
    }

    fn let_in(&mut self, (token, asked): &(u32, TunnelRequest), granted: TunnelGranted) -> Vec<(u32, Learnt)> {
        self.answer(*token, &TunnelAnswer { nonce: asked.nonce.clone(), granted: Some(granted), denied: None })
    }

    fn known(&mut self, call: &Call, evidence: &EvidenceDigests) -> Option<Learnt> {
        self.worker.find_tunnel(call, evidence, Millis(self.now)).map(|entry| match entry {
            Entry::Tunnel(tunnel) => Learnt::Way(tunnel.address),
            Entry::Refused(reason, _) => Learnt::Refused(reason),
            Entry::Granted(_) => Learnt::Granted,
        })
    }
}

#[test]
fn a_way_is_asked_for_once_and_then_known() {
    let mut desk = Desk::ready();
    desk.worker.hold_for_tunnel(1, &api(), &with("mine"), Millis(desk.now));
    let asked = desk.knock(2, &api(), &with("mine"));
    assert_eq!((asked.1.host.as_str(), asked.1.port, asked.1.plaintext), ("api.github.com", 443, false));
    assert_eq!(asked.1.evidence, with("mine"));
    assert_eq!(desk.known(&api(), &with("mine")), None);
    assert_eq!(desk.let_in(&asked, granted()), [(1, way()), (2, way())]);
    assert_eq!(desk.known(&api(), &with("mine")), Some(way()));
    desk.wait(granted().ttl_ms);
    desk.poll_answered(0, Vec::new());
    assert_eq!(desk.known(&api(), &with("mine")), None, "its time is over");
}

#[test]
fn different_callers_never_share_a_way() {
    let mut desk = Desk::ready();
    let source = |text: &str| Some(text.parse().unwrap());
    let callers = [
        (api(), with("mine")),
        (api(), with("theirs")),
        (api(), EvidenceDigests::default()),
        (call("api.github.com", 8443, Passage::Intercepted), with("mine")),
        (call("api.github.com", 443, Passage::Opaque), with("mine")),
        (call("api.github.com", 443, Passage::Plain), with("mine")),
        (call("github.com", 443, Passage::Intercepted), with("mine")),
        (api(), EvidenceDigests { peer: Some("a".into()), ..with("mine") }),
        (api(), EvidenceDigests { listener: Some(name("a")), ..with("mine") }),
        (api(), EvidenceDigests { source: source("127.0.0.1"), ..with("mine") }),
        (api(), EvidenceDigests { source: source("::1"), ..with("mine") }),
        // What stands in one place says nothing in the next.
        (api(), EvidenceDigests { peer: Some("127.0.0.1".into()), ..EvidenceDigests::default() }),
        (api(), EvidenceDigests { source: source("127.0.0.1"), ..EvidenceDigests::default() }),
        (api(), EvidenceDigests { peer: Some("a".into()), ..EvidenceDigests::default() }),
        (api(), EvidenceDigests { listener: Some(name("a")), ..EvidenceDigests::default() }),
    ];
    for (context, (call, evidence)) in (1..).zip(&callers) {
        desk.worker.hold_for_tunnel(context, call, evidence, Millis(desk.now));
    }
    let asked = desk.ways();
    assert_eq!(asked.len(), callers.len(), "each asks for itself");
    let first = asked.iter().find(|(_, asked)| {
        asked.evidence == with("mine")
            && (asked.host.as_str(), asked.port, asked.plaintext) == ("api.github.com", 443, false)
    });
    assert_eq!(desk.let_in(first.unwrap(), granted()).len(), 1);
    let known = callers.iter().filter(|(call, evidence)| desk.known(call, evidence).is_some()).count();
    assert_eq!(known, 1);
}

#[test]
fn an_answer_counts_for_its_own_question_in_time_and_with_time_left() {
    let unavailable = [(1, Learnt::Refused(Reason::BrokerUnavailable))];
    for (what, late, spoil) in [
        ("no time", 0, (|granted: &mut TunnelGranted| granted.ttl_ms = 0) as fn(&mut TunnelGranted)),
        ("too much time", 0, |granted| granted.ttl_ms = 60_001),
        ("no port", 0, |granted| granted.address.set_port(0)),
        ("late", TIMEOUT + 501, |_| ()),
    ] {
        let mut desk = Desk::ready();
        let asked = desk.knock(1, &api(), &with("mine"));
        desk.wait(late);
        let mut answer = granted();
        spoil(&mut answer);
        assert_eq!(desk.let_in(&asked, answer), unavailable, "{what}");
        assert_eq!(desk.known(&api(), &with("mine")), None, "{what}");
    }
    let mut desk = Desk::ready();
    let (token, _) = desk.knock(1, &api(), &with("mine"));
    let other = TunnelAnswer { nonce: "another".into(), granted: Some(granted()), denied: None };
    assert_eq!(desk.answer(token, &other), unavailable, "another question's");
    let (token, asked) = desk.knock(1, &api(), &with("mine"));
    let both = Some(Denied { reason: Reason::HostUnresolved });
    let both = TunnelAnswer { nonce: asked.nonce, granted: Some(granted()), denied: both };
    assert_eq!(desk.answer(token, &both), unavailable, "yes and no");
    let (token, _) = desk.knock(1, &api(), &with("mine"));
    let failed =
        desk.worker.answered(token, &Answer { status: Some(503), is_json: false, body: b"" }, Millis(desk.now));
    assert_eq!(learnt(failed), unavailable, "none");
}

#[test]
fn a_way_that_ends_before_it_is_there_is_asked_for_anew() {
    let mut desk = Desk::ready();
    let asked = desk.knock(1, &api(), &with("mine"));
    desk.wait(100);
    assert_eq!(desk.let_in(&asked, TunnelGranted { ttl_ms: 100, ..granted() }), [(1, Learnt::Again)]);
    assert_eq!(desk.known(&api(), &with("mine")), None);
}

#[test]
fn a_refusal_is_remembered_for_a_moment() {
    let mut desk = Desk::ready();
    let (token, asked) = desk.knock(1, &api(), &with("mine"));
    let denied = Some(Denied { reason: Reason::AddressNotAllowed });
    let refused = Learnt::Refused(Reason::AddressNotAllowed);
    let answer = TunnelAnswer { nonce: asked.nonce, granted: None, denied };
    assert_eq!(desk.answer(token, &answer), [(1, Learnt::Refused(Reason::AddressNotAllowed))]);
    assert_eq!(desk.known(&api(), &with("mine")), Some(refused));
    desk.wait(2_000);
    assert_eq!(desk.known(&api(), &with("mine")), None);
}

#[test]
fn a_change_voids_ways_that_are_known_and_those_under_way() {
    let ends = |session_id| change(1, session_id, None);
    // Known.
    let mut desk = Desk::ready();
    let asked = desk.knock(1, &api(), &with("mine"));
    desk.let_in(&asked, granted());
    desk.poll_answered(1, vec![ends(Some("s-2"))]);
    assert_eq!(desk.known(&api(), &with("mine")), Some(way()), "another session's");
    desk.poll_answered(2, vec![Change { cursor: 2, ..ends(Some("s-1")) }]);
    assert_eq!(desk.known(&api(), &with("mine")), None);
    // Under way: made before the change came.
    let asked = desk.knock(1, &api(), &with("mine"));
    desk.poll_answered(3, vec![Change { cursor: 3, ..ends(Some("s-1")) }]);
    assert_eq!(desk.let_in(&asked, TunnelGranted { as_of: 2, ..granted() }), [(1, Learnt::Again)]);
    assert_eq!(desk.known(&api(), &with("mine")), None);
    let asked = desk.knock(1, &api(), &with("mine"));
    assert_eq!(desk.let_in(&asked, TunnelGranted { as_of: 3, ..granted() }), [(1, way())], "it knew");
}

#[test]
fn an_open_way_ends_with_its_session_or_where_the_policy_leads_no_longer() {
    let tunnel = Tunnel::accept(granted(), &api(), &with("mine"), Millis(0), 1).unwrap();
    let told = |session_id, left| {
        let change = Change { left: Some(left), ..change(1, session_id, None) };
        Cut::of(change, 1).unwrap().ends_way(&tunnel, |_| unreachable!("no policy"))
    };
    assert_eq!(told(Some("s-1"), Left::Nothing), Some(Reason::SessionExpired));
    assert_eq!(told(Some("s-2"), Left::Nothing), None);
    // What is asked inside is judged there.
    assert_eq!(told(Some("s-1"), Left::Reads), None);
    // Another session is bound to the same connection: a token still tells whose this one is.
    assert_eq!(told(Some("s-1"), Left::Named), None);
    let by_listener = EvidenceDigests { listener: Some(name("a")), ..EvidenceDigests::default() };
    let tunnel_by_listener = Tunnel::accept(granted(), &api(), &by_listener, Millis(0), 1).unwrap();
    let change = Change { left: Some(Left::Named), ..change(1, Some("s-1"), None) };
    let ends = Cut::of(change, 1).unwrap().ends_way(&tunnel_by_listener, |_| unreachable!("no policy"));
    assert_eq!(ends, Some(Reason::EvidenceConflict));

    let by = |change: fn(&mut crate::policy::Spec)| {
        let mut spec = spec();
        change(&mut spec);
        let policy = std::rc::Rc::new(Policy::compile(spec).unwrap());
        let tunnel_request = fixture::Request(Vec::new()).with(":method", "CONNECT").with(":authority", &tunnel.id);
        let leads = |policy: &Policy| Call::read(&tunnel_request.read(policy), policy).map(|call| call.passage);
        Cut::by(policy).ends_way(&tunnel, leads)
    };
    assert_eq!(by(|_| ()), None);
    assert_eq!(by(|spec| drop(spec.destinations.remove(destination::API))), Some(Reason::HostNotAllowed));
    let pinned = by(|spec| {
        spec.destinations.remove(destination::API);
        spec.passthrough.push("api.github.com:443".into());
    });
    assert_eq!(pinned, Some(Reason::DestinationMismatch), "it would travel in another way");
}

#[test]
fn a_tunnel_is_recorded_with_who_was_let_in_and_where_to() {
    let mut desk = Desk::ready();
    let request = fixture::request("CONNECT", "api.github.com:443", "").bearer("none of ours");
    for (passage, decision, cut) in [
        (Passage::Intercepted, "intercept", None),
        (Passage::Opaque, "tunnel", None),
        (Passage::Opaque, "tunnel", Some(Reason::SessionExpired)),
    ] {
        let call = call("api.github.com", 443, passage);
        let tunnel = Rc::new(Tunnel::accept(granted(), &call, &with("mine"), Millis(0), 1).unwrap());
        let outcome = Outcome::Tunnelled(tunnel);
        let snapshot = request.read(&desk.worker.policy());
        desk.worker.record(&Report { cut, carried: Some((3, 5)), ..report(&snapshot, &outcome) });
        let (token, line) = desk.batch().unwrap();
        let record: UseRecord = serde_json::from_str(&line).unwrap();
        let expected = UseRecord {
            seq: record.seq,
            kind: UseKind::Tunnel,
            at_ms: 1_700_000_000_000,
            duration_ms: 12,
            request_id: "r-1".into(),
            method: "CONNECT".into(),
            authority: "api.github.com:443".into(),
            path: String::new(),
            decision: decision.into(),
            reason: cut.map(|reason| reason.as_str().into()),
            response_code: 200,
            masked: None,
            auth_injected: false,
            intent: None,
            bytes_in: Some(3),
            bytes_out: Some(5),
            upstream: Some("192.0.2.7:443".into()),
            evidence: "session_token".into(),
            destination: Some("api.github.com:443".into()),
            service: None,
            session_id: Some("s-1".into()),
            session: Some(name("reviewer")),
            access_mode: None,
            credential: None,
            lease_id: None,
            fingerprint: None,
        };
        assert_eq!(record, expected);
        let begins = format!(r#"{{"cluster":"{}","decision":"{decision}""#, passage.cluster());
        assert!(verdict(&outcome, "ignored").starts_with(&begins), "a route guard matches these bytes");
        desk.answer(token, &AuditAnswer { acked: record.seq });
        desk.wait(1_000);
    }
}
