//! One record a request, whatever the request was and whatever became of it.

use super::{Desk, Learnt, api, spec_version, usual};
use crate::audit::chain;
use crate::fixture::{self, Request, SECRET, get, request, test};
use crate::names::Name;
use crate::policy::AccessMode;
use crate::refusal::Reason;
use crate::request::{Asked, Snapshot, identify};
use crate::wire::{Changes, UseKind, UseRecord};
use crate::worker::{Call, Outcome, Report, verdict};
use serde_json::Value;
use std::rc::Rc;

/// The line and what it says, of one request that ended so.
pub(super) fn recorded(desk: &mut Desk, request: &Request, outcome: &Outcome) -> (String, UseRecord) {
    record(desk, request, outcome);
    let (token, batch) = desk.batch().expect("a batch is due");
    let line = batch.strip_suffix('\n').expect("a batch ends its last line");
    let parsed: UseRecord = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    desk.answer(token, &crate::wire::AuditAnswer { acked: parsed.seq });
    desk.wait(1_000);
    (line.to_owned(), parsed)
}

pub(super) fn record(desk: &mut Desk, request: &Request, outcome: &Outcome) {
    let policy = desk.worker.policy();
    let snapshot = request.read(&policy);
    let asked: Option<Asked> = identify(&snapshot, &policy).ok();
    desk.worker.record(&Report { asked: asked.as_ref(), ..report(&snapshot, outcome) });
}

pub(super) fn report<'a>(snapshot: &'a Snapshot, outcome: &'a Outcome) -> Report<'a> {
    Report {
        snapshot,
        asked: None,
        outcome,
        cut: None,
        masked: 0,
        carried: None,
        intent: None,
        at_ms: 1_700_000_000_000,
        duration_ms: 12,
        response_code: 200,
    }
}

#[test]
fn a_use_says_who_what_where_and_with_which_lease() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.access_mode = AccessMode::ReadOnly;
    let grant = desk.have_granted(&api(), answer);
    let request = get("api.github.com", "/user?token=secret").bearer(fixture::PLACEHOLDER);
    let (line, record) = recorded(&mut desk, &request, &Outcome::Forwarded(grant));
    let expected = UseRecord {
        seq: 1,
        kind: UseKind::Use,
        at_ms: 1_700_000_000_000,
        duration_ms: 12,
        request_id: "r-1".into(),
        method: "GET".into(),
        authority: "api.github.com".into(),
        path: "/user".into(),
        decision: "forward".into(),
        reason: None,
        response_code: 200,
        masked: None,
        auth_injected: true,
        intent: None,
        bytes_in: None,
        bytes_out: None,
        upstream: None,
        evidence: "placeholder".into(),
        destination: Some("api.github.com:443".into()),
        service: Some("github".into()),
        session_id: Some("s-1".into()),
        session: Name::parse("reviewer").ok(),
        access_mode: Some(AccessMode::ReadOnly),
        credential: Name::parse("github").ok(),
        lease_id: Some("lease-1".into()),
        fingerprint: Some("0123456789abcdef".into()),
    };
    assert_eq!(record, expected);
    assert!(!line.contains(SECRET) && !line.contains("secret"), "neither the credential nor query values: {line}");
}

#[test]
fn a_use_says_how_often_its_credential_came_back() {
    let mut desk = Desk::ready();
    let outcome = Outcome::Forwarded(desk.have_granted(&api(), usual()));
    for (masked, said) in [(0, None), (3, Some(3))] {
        let policy = desk.worker.policy();
        let snapshot = api().read(&policy);
        let report = Report { masked, ..report(&snapshot, &outcome) };
        desk.worker.record(&report);
        let (token, line) = desk.batch().unwrap();
        let record: UseRecord = serde_json::from_str(&line).unwrap();
        assert_eq!((record.masked, line.contains("masked")), (said, said.is_some()));
        desk.answer(token, &crate::wire::AuditAnswer { acked: record.seq });
        desk.wait(1_000);
    }
}

#[test]
fn every_end_has_its_words() {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    for (outcome, kind, decision, reason, injected, lease) in [
        (Outcome::Forwarded(Rc::clone(&grant)), UseKind::Use, "forward", None, true, true),
        (Outcome::Passed, UseKind::Use, "pass", None, false, false),
        (
            Outcome::Refused(Reason::HostNotAllowed, None),
            UseKind::Deny,
            "refuse",
            Some("host_not_allowed"),
            false,
            false,
        ),
        (Outcome::Refused(Reason::ReadOnly, Some(grant)), UseKind::Deny, "refuse", Some("read_only"), false, true),
        (Outcome::Undecided, UseKind::Deny, "refuse", Some("aborted"), false, false),
    ] {
        let (_, record) = recorded(&mut desk, &api(), &outcome);
        assert_eq!((record.kind, &*record.decision), (kind, decision));
        assert_eq!(record.reason.as_deref(), reason);
        assert_eq!(record.auth_injected, injected, "{decision}");
        assert_eq!(record.lease_id.is_some(), lease, "{decision}");
        assert_eq!(record.destination.as_deref(), Some("api.github.com:443"), "{decision}");
        assert_eq!(record.evidence, "placeholder");
    }
}

#[test]
fn a_request_that_was_not_understood_is_recorded_all_the_same() {
    let mut desk = Desk::ready();
    let outcome = Outcome::Refused(Reason::AuthorityMalformed, None);
    let (_, record) = recorded(&mut desk, &get("a@b", "/x/../y?secret=1"), &outcome);
    assert_eq!((&*record.authority, &*record.path, &*record.evidence), ("a@b", "/x/../y", "none"));
    assert_eq!((record.destination, record.session), (None, None));
    let (_, record) = recorded(&mut desk, &Request(Vec::new()), &outcome);
    assert_eq!((&*record.method, &*record.authority, &*record.path), ("", "", ""));
}

#[test]
fn a_record_under_a_route_prefix_names_the_path_at_the_destination() {
    let mut desk = Desk::ready();
    let request = get("localhost:3030", "/github/user?a=1").bearer(fixture::PLACEHOLDER);
    let (_, record) = recorded(&mut desk, &request, &Outcome::Passed);
    assert_eq!((&*record.authority, &*record.path), ("localhost:3030", "/user"));
}

#[test]
fn a_record_is_one_line_of_ascii_whatever_the_request_held() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let odd: [&[u8]; 5] = [&every_byte, b"\",\"decision\":\"forward\",\"x\":\"", b"\r\n{}", b"\\", b"\xe2\x80\xa8"];
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    for bytes in odd {
        for name in [":method", ":authority", ":path", "x-request-id"] {
            let mut request = request("GET", "api.github.com", "/user");
            request.0.retain(|(n, _)| n != name);
            let request = request.with(name, bytes).bearer(fixture::PLACEHOLDER);
            for outcome in [
                Outcome::Forwarded(Rc::clone(&grant)),
                Outcome::Refused(Reason::PathMalformed, None),
                Outcome::Passed,
                Outcome::Undecided,
            ] {
                let (line, record) = recorded(&mut desk, &request, &outcome);
                assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line}");
                assert!(chain::seal(&line, &chain::genesis()).is_ok());
                let all: Value = serde_json::from_str(&line).unwrap();
                let decision = if matches!(outcome, Outcome::Forwarded(_)) { "forward" } else { &*record.decision };
                assert_eq!(all["decision"], decision, "nothing breaks out of its field");
            }
        }
    }
}

#[test]
fn a_record_holds_the_beginning_of_a_long_text() {
    let mut desk = Desk::ready();
    let long = format!("/{}", "x".repeat(60_000));
    let outcome = Outcome::Refused(Reason::HostNotAllowed, None);
    let (line, record) = recorded(&mut desk, &request("GET", &long, &long).with("x-request-id", &long), &outcome);
    assert_eq!((&*record.path, &*record.authority), (&long[..4096], &long[..4096]));
    assert!(line.len() < 3 * 4096 + 500, "an agent does not choose how long a record is: {}", line.len());
}

#[test]
fn what_the_broker_says_cannot_break_a_record_either() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.session_id = "s\",\"x\":\"\n\u{e9}".into();
    answer.lease.id = "\\".into();
    answer.lease.fingerprint = "\u{2028}".into();
    let grant = desk.have_granted(&api(), answer);
    let (line, record) = recorded(&mut desk, &api(), &Outcome::Forwarded(Rc::clone(&grant)));
    assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line}");
    assert_eq!(record.lease_id.as_deref(), Some("\\"));
    assert!(grant.verdict.bytes().all(|b| (0x20..0x7f).contains(&b)));
    serde_json::from_str::<Value>(&grant.verdict).unwrap();
}

#[test]
fn a_verdict_begins_with_the_cluster() {
    // A route guard matches these bytes as a prefix.
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    let forward = Outcome::Forwarded(Rc::clone(&grant));
    for (outcome, cluster, begins) in [
        (&forward, "ignored", r#"{"cluster":"to-api","decision":"forward","#),
        (&Outcome::Passed, "to-open", r#"{"cluster":"to-open","decision":"pass""#),
        (&Outcome::Passed, "", r#"{"cluster":"","decision":"pass""#),
        (&Outcome::Passed, "a\"b", r#"{"cluster":"a\"b","decision":"pass""#),
        (&Outcome::Refused(Reason::Stale, None), "to-open", r#"{"cluster":"","decision":"refuse","reason":"stale""#),
        (&Outcome::Refused(Reason::ReadOnly, Some(grant)), "to-api", r#"{"cluster":"","decision":"refuse","#),
        (&Outcome::Undecided, "to-api", r#"{"cluster":"","decision":"undecided""#),
    ] {
        let verdict = verdict(outcome, cluster);
        assert!(verdict.starts_with(begins), "{verdict}");
        assert!(!verdict.contains(SECRET));
        serde_json::from_str::<Value>(&verdict).unwrap();
    }
}

#[test]
fn a_verdict_of_a_use_says_what_the_record_says() {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    let verdict: Value = serde_json::from_str(&grant.verdict).unwrap();
    let (line, _) = recorded(&mut desk, &api(), &Outcome::Forwarded(grant));
    let record: Value = serde_json::from_str(&line).unwrap();
    for member in verdict.as_object().unwrap().keys().filter(|name| *name != "cluster") {
        assert_eq!(verdict[member], record[member], "{member}");
    }
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
}

#[test]
fn a_record_names_the_destination_that_was_asked_for_whatever_the_policy_is_by_then() {
    let mut desk = Desk::ready();
    let policy = desk.worker.policy();
    let request = get("open.example", "/stream");
    let snapshot = request.read(&policy);
    let asked = identify(&snapshot, &policy).unwrap();
    // While it streams, another policy puts its destinations in another order.
    let poll = desk.take(Call::Changes).unwrap().0;
    desk.answer(poll, &Changes { epoch: "e1".into(), cursor: 0, policy: "v2".into(), changes: Vec::new() });
    let fetch = desk.take(Call::Policy).unwrap().0;
    let mut swapped = spec_version("v2");
    swapped.destinations.reverse();
    desk.answer(fetch, &swapped);
    desk.worker.record(&Report {
        snapshot: &snapshot,
        asked: Some(&asked),
        outcome: &Outcome::Passed,
        cut: None,
        masked: 0,
        carried: None,
        intent: None,
        at_ms: 0,
        duration_ms: 0,
        response_code: 200,
    });
    let record: UseRecord = serde_json::from_str(&desk.batch().unwrap().1).unwrap();
    assert_eq!(record.destination.as_deref(), Some("open.example:443"));
}
