//! With a strict grant a request goes out once its own intent is on disk, and for no other reason.

use super::records::recorded;
use super::{Desk, Learnt, TIMEOUT, api, usual};
use crate::fixture::{Request, get, test};
use crate::refusal::Reason;
use crate::request::identify;
use crate::time::Millis;
use crate::wire::{Granted, Intent, IntentAnswer, Lease, UseRecord};
use crate::worker::{Announced, Call, Grant, Intended, Outcome, Report};
use std::rc::Rc;

fn strict() -> Granted {
    Granted { strict: true, ..usual() }
}

/// The same on another lease.
fn renewed() -> Granted {
    let lease = Lease { id: "lease-2".into(), ..usual().lease };
    Granted { lease, ..strict() }
}

/// A desk with a strict grant.
fn desk() -> (Desk, Rc<Grant>) {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), strict());
    (desk, grant)
}

impl Desk {
    fn announce(
        &mut self,
        context: u32,
        announced: &mut Announced,
        request: &Request,
        grant: &Grant,
        since: u64,
    ) -> Result<(), Reason> {
        let policy = self.worker.policy();
        let snapshot = request.read(&policy);
        let asked = identify(&snapshot, &policy).unwrap();
        let (snapshot, asked) = (&snapshot, &asked);
        let intended = Intended { context, snapshot, asked, grant, at_ms: 1_700_000_000_000, since: Millis(since) };
        self.worker.announce(announced, &intended, Millis(self.now))
    }

    /// Announces a request that arrives now.
    fn announce_now(&mut self, context: u32, grant: &Grant) -> Announced {
        let mut announced = Announced::default();
        assert_eq!(self.announce(context, &mut announced, &api(), grant, self.now), Ok(()));
        announced
    }

    /// Every intent that is due, with its callout.
    fn intents(&mut self) -> Vec<(u32, Intent)> {
        self.pump();
        let is_intent = |(_, dispatch): &(u32, super::Dispatch)| matches!(dispatch.call, Call::Intent(..));
        let (intents, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open).into_iter().partition(is_intent);
        self.open = others;
        let parse = |(token, dispatch): (u32, super::Dispatch)| {
            assert_eq!((dispatch.method, &*dispatch.path), ("POST", "/v1/intents"));
            (token, serde_json::from_slice(&dispatch.body).expect("an intent"))
        };
        intents.into_iter().map(parse).collect()
    }

    fn record_intent(&mut self, token: u32, nonce: &str, recorded: bool) -> Vec<(u32, Learnt)> {
        self.answer(token, &IntentAnswer { nonce: nonce.into(), recorded })
    }
}

fn on_disk(lease: &str) -> Learnt {
    Learnt::Recorded(lease.into())
}

#[test]
fn an_intent_says_who_what_where_and_with_which_lease() {
    let (mut desk, grant) = desk();
    let request = get("api.github.com", "/user?token=secret").bearer(crate::fixture::PLACEHOLDER);
    let mut announced = Announced::default();
    assert!(!announced.covers(&grant), "nothing is on disk yet");
    desk.announce(7, &mut announced, &request, &grant, desk.now).unwrap();
    let (token, intent) = desk.intents().remove(0);
    let use_of = {
        announced.is_recorded("lease-1".into());
        desk.record_intent(token, &intent.nonce, true);
        let (line, mut used) = recorded(&mut desk, &request, &Outcome::Forwarded(Rc::clone(&grant)));
        assert!(!line.contains("\"intent\""), "one that was not announced says nothing of it");
        used.intent = announced.number();
        used
    };
    let expected = Intent {
        nonce: intent.nonce.clone(),
        worker: "0000000a".into(),
        intent: 1,
        at_ms: use_of.at_ms,
        request_id: use_of.request_id,
        method: use_of.method,
        authority: use_of.authority,
        path: "/user".into(),
        evidence: use_of.evidence,
        destination: use_of.destination.unwrap(),
        service: use_of.service.unwrap(),
        session_id: use_of.session_id.unwrap(),
        session: use_of.session.unwrap(),
        access_mode: use_of.access_mode.unwrap(),
        credential: use_of.credential.unwrap(),
        lease_id: "lease-1".into(),
        fingerprint: use_of.fingerprint.unwrap(),
    };
    assert_eq!((intent, announced.number()), (expected, Some(1)));
}

#[test]
fn the_record_of_a_request_that_was_announced_says_so_whatever_became_of_it() {
    let (mut desk, grant) = desk();
    let policy = desk.worker.policy();
    let snapshot = api().read(&policy);
    let asked = identify(&snapshot, &policy).unwrap();
    let refused = Outcome::Refused(Reason::AuditBacklog, None);
    for (intent, outcome) in (1..).zip([Outcome::Forwarded(grant), Outcome::Undecided, refused]) {
        desk.worker.record(&Report {
            snapshot: &snapshot,
            asked: Some(&asked),
            outcome: &outcome,
            cut: None,
            masked: 0,
            carried: None,
            intent: Some(intent),
            at_ms: 0,
            duration_ms: 0,
            response_code: 0,
        });
    }
    let batch = desk.batch().unwrap().1;
    let intents: Vec<_> = batch.lines().map(|line| serde_json::from_str::<UseRecord>(line).unwrap().intent).collect();
    assert_eq!(intents, [Some(1), Some(2), Some(3)]);
}

#[test]
fn each_request_waits_for_its_own_intent() {
    let (mut desk, grant) = desk();
    let mut all: Vec<_> = (0..3).map(|context| desk.announce_now(context, &grant)).collect();
    let numbers: Vec<_> = all.iter().map(Announced::number).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    let sent = desk.intents();
    let said: Vec<_> = sent.iter().map(|(_, intent)| intent.intent).collect();
    assert_eq!(said, [1, 2, 3], "one callout each");
    assert_eq!(desk.record_intent(sent[1].0, &sent[1].1.nonce, true), [(1, on_disk("lease-1"))], "nobody else");
    all[1].is_recorded("lease-1".into());
    let covered: Vec<_> = all.iter().map(|announced| announced.covers(&grant)).collect();
    assert_eq!(covered, [false, true, false]);
    assert_eq!(desk.record_intent(sent[0].0, &sent[2].1.nonce, true), [(0, refused())], "another's nonce");
    assert_eq!(desk.record_intent(sent[2].0, &sent[2].1.nonce, true), [(2, on_disk("lease-1"))]);
}

fn refused() -> Learnt {
    Learnt::Refused(Reason::BrokerUnavailable)
}

#[test]
fn what_is_no_acknowledgement_lets_nothing_go() {
    let (mut desk, grant) = desk();
    type Answer = fn(&mut Desk, u32, &str) -> Vec<(u32, Learnt)>;
    let answers: [(&str, Reason, Answer); 6] = [
        ("not recorded", Reason::AuditBacklog, |desk, token, nonce| desk.record_intent(token, nonce, false)),
        ("a broken link", Reason::BrokerUnavailable, |desk, token, _| desk.fail(token)),
        ("no headers", Reason::BrokerUnavailable, |desk, token, _| desk.answer_with(token, None, false, b"")),
        ("the nonce alone", Reason::BrokerUnavailable, |desk, token, nonce| {
            desk.answer_with(token, Some(200), true, format!("{{\"nonce\":\"{nonce}\"}}").as_bytes())
        }),
        ("another type", Reason::BrokerUnavailable, |desk, token, nonce| {
            let body = format!("{{\"nonce\":\"{nonce}\",\"recorded\":true}}");
            desk.answer_with(token, Some(200), false, body.as_bytes())
        }),
        ("one more member", Reason::BrokerUnavailable, |desk, token, nonce| {
            let body = format!("{{\"nonce\":\"{nonce}\",\"recorded\":true,\"more\":1}}");
            desk.answer_with(token, Some(200), true, body.as_bytes())
        }),
    ];
    for (what, reason, answer) in answers {
        desk.announce_now(1, &grant);
        let (token, intent) = desk.intents().remove(0);
        assert_eq!(answer(&mut desk, token, &intent.nonce), [(1, Learnt::Refused(reason))], "{what}");
    }
    desk.announce_now(1, &grant);
    let due = desk.worker.due(desk.now(), || "0".repeat(32));
    let call = due.into_iter().map(|due| due.call).find(|call| matches!(call, Call::Intent(..))).unwrap();
    assert_eq!(super::learnt(desk.worker.unsent(call, desk.now())), [(1, refused())], "one that cannot be sent");
}

#[test]
fn no_request_is_held_beyond_its_own_time() {
    let (mut desk, grant) = desk();
    let since = desk.now;
    desk.wait(TIMEOUT - 500);
    let mut announced = Announced::default();
    desk.announce(1, &mut announced, &api(), &grant, since).unwrap();
    desk.pump();
    let at = desk.open.iter().position(|(_, dispatch)| matches!(dispatch.call, Call::Intent(..))).unwrap();
    let (token, dispatch) = desk.open.remove(at);
    assert_eq!(dispatch.timeout, Millis(500), "what is left of it");
    let intent: Intent = serde_json::from_slice(&dispatch.body).unwrap();
    desk.wait(499);
    assert_eq!(super::learnt(desk.worker.overdue(desk.now())), []);
    desk.wait(1);
    assert_eq!(super::learnt(desk.worker.overdue(desk.now())), [(1, refused())]);
    assert_eq!(desk.record_intent(token, &intent.nonce, true), [], "what comes later wakes nobody");
    assert_eq!(desk.announce(2, &mut announced, &api(), &grant, since), Err(Reason::BrokerUnavailable));
    // A VM that stood still hears the answer before it looks around.
    desk.announce_now(3, &grant);
    let (token, intent) = desk.intents().remove(0);
    desk.wait(TIMEOUT);
    assert_eq!(desk.record_intent(token, &intent.nonce, true), [(3, refused())]);
}

#[test]
fn another_lease_takes_another_intent_and_that_is_bounded() {
    let (mut desk, grant) = desk();
    let mut announced = desk.announce_now(1, &grant);
    announced.is_recorded("lease-1".into());
    let other = Desk::ready().have_granted(&api(), renewed());
    assert!(announced.covers(&grant) && !announced.covers(&other));
    for _ in 0..3 {
        desk.announce(1, &mut announced, &api(), &other, desk.now).unwrap();
        desk.intents();
    }
    assert_eq!(announced.number(), Some(1), "it is the same request");
    assert_eq!(desk.announce(1, &mut announced, &api(), &other, desk.now), Err(Reason::BrokerUnavailable));
    let plain = Desk::ready().have_granted(&api(), usual());
    assert!(Announced::default().covers(&plain), "who asks for no intent needs none");
}

#[test]
fn who_is_gone_is_not_announced_any_more_and_keeps_no_place() {
    let (mut desk, grant) = desk();
    for context in 0..100 {
        desk.announce_now(context, &grant);
    }
    let first = desk.intents();
    assert_eq!(first.len(), 64, "no more are in the air");
    assert_eq!(desk.worker.next_tick(), Millis(50), "nothing can be sent now");
    (0..100).for_each(|context| desk.worker.leave(context));
    for (token, intent) in &first {
        assert_eq!(desk.record_intent(*token, &intent.nonce, true), []);
    }
    assert_eq!(desk.intents().len(), 0, "nobody is left to announce");
    for context in 100..164 {
        desk.announce_now(context, &grant);
    }
    assert_eq!(desk.worker.next_tick(), Millis(1));
    assert_eq!(desk.intents().len(), 64);
    // Answers that the proxy has lost give their places back.
    desk.wait(TIMEOUT + 501);
    assert_eq!(desk.worker.overdue(desk.now()).iter().map(|woken| woken.contexts.len()).sum::<usize>(), 64);
    desk.announce_now(200, &grant);
    assert_eq!(desk.intents().len(), 1);
}
