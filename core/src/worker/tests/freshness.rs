//! A worker out of touch with its broker believes nothing that it remembers.

use super::records::record;
use super::{Desk, Learnt, STALE_AFTER, TIMEOUT, api, usual};
use crate::fixture::test;
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::Changes;
use crate::worker::{Call, Outcome};

#[test]
fn a_poll_says_who_asks_and_what_is_known() {
    let mut desk = Desk::new();
    let (token, dispatch) = desk.take(Call::Changes).unwrap();
    assert_eq!(dispatch.path, "/v1/changes?worker=0000000a&epoch=&after=0&wait_ms=3333");
    // The broker holds a poll for a third of the limit; the callout must outlive that.
    assert_eq!((dispatch.method, dispatch.timeout), ("GET", Millis(3_333 + TIMEOUT)));
    desk.answer(token, &Changes { epoch: "e1".into(), cursor: 7, policy: String::new(), changes: Vec::new() });
    let (_, dispatch) = desk.take(Call::Changes).unwrap();
    assert_eq!(dispatch.path, "/v1/changes?worker=0000000a&epoch=e1&after=7&wait_ms=3333");
    assert!(desk.take(Call::Changes).is_none(), "one poll at a time");
}

#[test]
fn freshness_counts_from_when_the_answered_poll_was_sent() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    desk.pump();
    // The poll is under way since now; its answer takes 3 s and says nothing about these.
    desk.wait(3_000);
    desk.poll_answered(0, Vec::new());
    desk.wait(STALE_AFTER - 3_000 - 1);
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    assert!(desk.worker.feed.is_fresh(desk.now()));
    desk.wait(1);
    assert_eq!(desk.find(&api()), None);
    assert!(!desk.worker.feed.is_fresh(desk.now()));
}

#[test]
fn a_worker_that_was_never_in_touch_believes_nothing() {
    let mut desk = Desk::new();
    let token = desk.take(Call::Policy).unwrap().0;
    desk.answer(token, &crate::fixture::spec());
    desk.hold(1, &api());
    let question = desk.question();
    assert_eq!(desk.grant(&question, usual()), [(1, Learnt::Granted)], "what was asked just now holds");
    assert_eq!(desk.find(&api()), None);
    desk.hold(2, &api());
    let question = desk.question();
    assert_eq!(desk.fail(question.token), [(2, Learnt::Refused(Reason::BrokerUnavailable))]);
}

#[test]
fn a_stale_worker_asks_and_says_stale_if_there_is_no_answer() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    desk.wait(STALE_AFTER);
    assert_eq!(desk.find(&api()), None, "a grant that has 50 s left");
    for spoil in [Some(503), Some(504), Some(200), None] {
        desk.hold(1, &api());
        let question = desk.question();
        let woken = desk.answer_with(question.token, spoil, true, b"");
        assert_eq!(woken, [(1, Learnt::Refused(Reason::Stale))], "{spoil:?}");
    }
    desk.hold(2, &api());
    let question = desk.question();
    assert_eq!(desk.grant(&question, usual()), [(2, Learnt::Granted)], "asked now, believed now");
    assert_eq!(desk.find(&api()), None, "but not remembered");
}

#[test]
fn a_worker_in_touch_again_believes_what_still_holds() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    desk.pump();
    desk.wait(STALE_AFTER + 5_000);
    assert_eq!(desk.find(&api()), None);
    desk.poll_answered(0, Vec::new());
    assert_eq!(desk.find(&api()), None, "that poll was sent long ago");
    desk.poll_answered(0, Vec::new());
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
}

#[test]
fn a_failed_poll_makes_nothing_fresh_and_is_repeated_soon() {
    let mut desk = Desk::ready();
    let token = desk.take(Call::Changes).unwrap().0;
    let fresh_until = desk.now + STALE_AFTER;
    desk.wait(1_000);
    assert_eq!(desk.fail(token), []);
    assert!(desk.take(Call::Changes).is_none(), "not at once: no storm");
    desk.wait(199);
    assert!(desk.take(Call::Changes).is_none());
    desk.wait(1);
    let token = desk.take(Call::Changes).expect("after 200 ms").0;
    let malformed = br#"{"epoch":"e1","cursor":0,"policy":"v1","changes":[],"cursor":1}"#;
    assert_eq!(desk.answer_with(token, Some(200), true, malformed), []);
    desk.wait(fresh_until - desk.now);
    assert!(!desk.worker.feed.is_fresh(desk.now()), "only an answered poll counts");
}

#[test]
fn a_poll_that_cannot_be_sent_is_repeated_soon() {
    let mut desk = Desk::ready();
    let call = desk.worker.due(desk.now(), String::new).into_iter().map(|d| d.call).find(|c| *c == Call::Changes);
    assert!(desk.worker.unsent(call.unwrap(), desk.now()).is_empty());
    assert!(desk.take(Call::Changes).is_none());
    desk.wait(200);
    assert!(desk.take(Call::Changes).is_some());
}

#[test]
fn what_envoy_loses_without_a_word_is_given_up_and_asked_again() {
    // A poll is held for a while before it is answered.
    for (call, patience) in [(Call::Policy, 0), (Call::Changes, STALE_AFTER / 3), (Call::Audit, 0)] {
        let mut desk = if call == Call::Policy { Desk::new() } else { Desk::ready() };
        if call == Call::Audit {
            record(&mut desk, &api(), &Outcome::Refused(Reason::HostNotAllowed, None));
        }
        let lost = desk.take(call.clone()).expect("under way").0;
        desk.wait(TIMEOUT + 500 + patience);
        assert!(desk.worker.overdue(desk.now()).is_empty());
        assert!(desk.take(call.clone()).is_none(), "{call:?} may be answered yet");
        desk.wait(1);
        assert!(desk.worker.overdue(desk.now()).is_empty());
        assert!(desk.take(call.clone()).is_none(), "{call:?} not at once");
        desk.wait(200);
        assert!(desk.worker.overdue(desk.now()).is_empty());
        assert!(desk.take(call.clone()).is_some(), "{call:?} anew");
        assert!(desk.worker.under_way(lost, desk.now()).is_none(), "an answer that comes after all says nothing");
        assert!(desk.worker.take_lost_count() >= 1 && desk.worker.take_lost_count() == 0, "{call:?} is counted once");
    }
}

#[test]
fn a_clock_that_steps_back_does_no_harm() {
    // It is monotonic by contract. If it were not: no overflow, no panic, nothing dropped.
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    desk.hold(1, &crate::fixture::get("github.com", "/").bearer(crate::fixture::PLACEHOLDER));
    let question = desk.question();
    desk.now = 0;
    assert!(desk.worker.overdue(desk.now()).is_empty());
    assert_eq!(desk.grant(&question, usual()), [(1, Learnt::Granted)]);
    desk.poll_answered(0, Vec::new());
    desk.now = u64::MAX;
    assert_eq!(desk.find(&api()), None);
    desk.hold(2, &api());
    let question = desk.question();
    desk.grant(&question, usual());
    desk.fail(question.token);
    assert!(desk.worker.overdue(desk.now()).is_empty());
}
