//! One question for each asker, however many requests wait for its answer.

use super::{Answer, Desk, Learnt, Question, TIMEOUT, api, grants, learnt, usual};
use crate::digest::Digest;
use crate::fixture::{ANOTHER, PLACEHOLDER, SESSION, get, test};
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::{Denied, GrantAnswer};
use crate::worker::Call;

#[test]
fn two_thousand_holders_ask_once() {
    let mut desk = Desk::ready();
    (1..=2_000).for_each(|context| desk.hold(context, &api()));
    let question = desk.question();
    assert_eq!(desk.questions().len(), 0, "nobody asks again while the answer is awaited");
    let woken = desk.grant(&question, usual());
    assert_eq!(woken, (1..=2_000).map(|context| (context, Learnt::Granted)).collect::<Vec<_>>());
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    assert_eq!(desk.questions().len(), 0, "the next one needs no question");
}

#[test]
fn a_question_names_the_asker_by_digests_alone() {
    let mut desk = Desk::ready();
    let request = api().with("x-attache-session", SESSION);
    desk.hold(1, &request);
    let asks = desk.question().asks;
    assert_eq!(asks.destination, "api.github.com:443");
    assert_eq!(asks.worker, "0000000a");
    assert_eq!(asks.evidence.placeholder, Some(Digest::of(PLACEHOLDER.as_bytes())));
    assert_eq!(asks.evidence.session_token, Some(Digest::of(SESSION.as_bytes())));
    let written = serde_json::to_string(&asks).unwrap();
    assert!(!written.contains(PLACEHOLDER) && !written.contains(SESSION));
}

#[test]
fn different_askers_never_share_an_answer() {
    let mut desk = Desk::ready();
    let to = |authority: &str| get(authority, "/x");
    let askers = [
        to("api.github.com").bearer(PLACEHOLDER),
        to("api.github.com").bearer(ANOTHER),
        to("github.com").bearer(PLACEHOLDER),
        to("api.github.com").with("x-attache-session", PLACEHOLDER),
        to("api.github.com").bearer(PLACEHOLDER).with("x-attache-session", PLACEHOLDER),
        to("api.github.com").bearer(PLACEHOLDER).with("x-attache-session", ANOTHER),
        to("api.github.com").bearer(&format!("{PLACEHOLDER}0")),
    ];
    for (context, asker) in (1..).zip(&askers) {
        desk.hold(context, asker);
    }
    let questions = desk.questions();
    assert_eq!(questions.len(), askers.len());
    let first = questions.iter().find(|q| {
        q.asks.destination == "api.github.com:443"
            && q.asks.evidence.placeholder == Some(Digest::of(PLACEHOLDER.as_bytes()))
            && q.asks.evidence.session_token.is_none()
    });
    assert_eq!(desk.grant(first.unwrap(), usual()), [(1, Learnt::Granted)]);
    let known: Vec<_> = askers.iter().map(|asker| desk.find(asker).is_some()).collect();
    assert_eq!(known, [true, false, false, false, false, false, false]);
}

#[test]
fn one_asker_shares_an_answer_however_it_writes() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    for same in [
        get("API.GITHUB.COM:443", "/other?a=1").with("x-api-key", PLACEHOLDER),
        get("localhost", "/github/x").with("authorization", format!("token {PLACEHOLDER}")),
    ] {
        assert_eq!(desk.find(&same), Some(Learnt::Granted));
    }
}

#[test]
fn who_has_left_is_not_woken() {
    let mut desk = Desk::ready();
    (1..=4).for_each(|context| desk.hold(context, &api()));
    desk.worker.leave(1);
    let question = desk.question();
    desk.worker.leave(3);
    assert_eq!(desk.grant(&question, usual()), [(2, Learnt::Granted), (4, Learnt::Granted)]);
}

#[test]
fn an_answer_that_nobody_awaits_any_more_is_kept() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    desk.worker.leave(1);
    assert_eq!(desk.grant(&question, usual()), []);
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
}

#[test]
fn who_joins_late_is_served_by_the_same_answer() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    desk.hold(2, &api());
    assert_eq!(desk.questions().len(), 0);
    assert_eq!(desk.grant(&question, usual()), [(1, Learnt::Granted), (2, Learnt::Granted)]);
}

#[test]
fn a_callout_that_cannot_be_sent_refuses() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let due = desk.worker.due(Millis(desk.now), || "0".repeat(32));
    let call = due.into_iter().map(|d| d.call).find(|call| matches!(call, Call::Grant(..))).unwrap();
    let woken = learnt(desk.worker.unsent(call, Millis(desk.now)));
    assert_eq!(woken, [(1, Learnt::Refused(Reason::BrokerUnavailable))]);
    desk.hold(2, &api());
    assert_eq!(desk.questions().len(), 1, "the next one asks anew");
}

#[test]
fn an_answer_counts_once() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    let answer = grants(&question, usual());
    assert_eq!(desk.answer(question.token, &answer).len(), 1);
    desk.hold(2, &get("api.github.com", "/").bearer(ANOTHER));
    assert_eq!(desk.answer(question.token, &answer), []);
    assert_eq!(desk.answer(9_999, &answer), [], "nobody sent that");
}

#[test]
fn nobody_waits_longer_than_a_decision_may_take_however_often_it_begins_again() {
    let mut desk = Desk::ready();
    let began = desk.now();
    desk.wait(TIMEOUT - 10);
    desk.hold_since(1, &api(), began);
    desk.hold(2, &api());
    desk.question();
    desk.wait(10);
    let woken = learnt(desk.worker.overdue(desk.now()));
    assert_eq!(woken, [(1, Learnt::Refused(Reason::BrokerUnavailable))], "the other one has time yet");
}

#[test]
fn a_lost_callout_refuses_its_holders_in_time() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let lost = desk.question();
    desk.wait(TIMEOUT - 1);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), [], "not before");
    desk.wait(1);
    let woken = learnt(desk.worker.overdue(desk.now()));
    assert_eq!(woken, [(1, Learnt::Refused(Reason::BrokerUnavailable))]);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), [], "once");
    // Nobody waits for it any more; in the end it is given up as lost, and asked anew.
    desk.wait(501);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), []);

    // The answer that comes after all must not land the next flight of the same asker.
    desk.hold(2, &api());
    let next = desk.question();
    assert_ne!(lost.asks.nonce, next.asks.nonce);
    assert_eq!(desk.grant(&lost, usual()), []);
    assert_eq!(desk.find(&api()), None);
    assert_eq!(desk.grant(&next, usual()), [(2, Learnt::Granted)]);
}

#[test]
fn an_answer_counts_until_its_question_is_given_up() {
    for (late, known) in [(500, Some(Learnt::Granted)), (501, None)] {
        let mut desk = Desk::ready();
        desk.hold(1, &api());
        let question = desk.question();
        desk.wait(TIMEOUT);
        assert_eq!(learnt(desk.worker.overdue(desk.now())), [(1, Learnt::Refused(Reason::BrokerUnavailable))]);
        desk.wait(late);
        assert_eq!(learnt(desk.worker.overdue(desk.now())), []);
        assert_eq!(desk.grant(&question, usual()), [], "nobody waits any more");
        assert_eq!(desk.find(&api()), known, "{late} ms after those who waited");
    }
}

#[test]
fn a_question_is_sent_at_the_next_tick() {
    let mut desk = Desk::ready();
    assert_eq!(desk.worker.next_tick(), Millis(50), "nothing presses");
    desk.hold(1, &api());
    assert_eq!(desk.worker.next_tick(), Millis(1));
    let question = desk.question();
    assert_eq!(desk.worker.next_tick(), Millis(50));
    let answer = Answer { status: None, is_json: false, body: b"" };
    assert_eq!(desk.worker.answered(question.token, &answer, desk.now()).len(), 1);
    assert_eq!(Desk::new().worker.next_tick(), Millis(50), "a broker that is away is not asked every millisecond");
}

/// Somebody who made a placeholder up.
fn stranger(number: u32) -> crate::fixture::Request {
    get("api.github.com", "/x").bearer(&format!("{PLACEHOLDER}{number}"))
}

fn denied(desk: &mut Desk, question: &Question) -> Vec<(u32, Learnt)> {
    let denied = Some(Denied { reason: Reason::PlaceholderUnknown });
    desk.answer(question.token, &GrantAnswer { nonce: question.asks.nonce.clone(), granted: None, denied })
}

#[test]
fn a_flood_of_strangers_is_asked_about_in_turn_and_every_one_is_answered() {
    let mut desk = Desk::ready();
    (0..2_000).for_each(|context| desk.hold(context, &stranger(context)));
    let mut open = desk.questions();
    assert_eq!(open.len(), 192, "no more are in the air");
    assert_eq!(desk.worker.next_tick(), Millis(50), "nothing can be sent before one has landed");
    let mut answered = Vec::new();
    while !open.is_empty() {
        for question in std::mem::take(&mut open) {
            answered.extend(denied(&mut desk, &question));
            open.extend(desk.questions());
        }
    }
    let expected: Vec<_> = (0..2_000).map(|context| (context, Learnt::Refused(Reason::PlaceholderUnknown))).collect();
    assert_eq!(answered, expected, "first come, first served");
}

#[test]
fn who_could_not_be_asked_about_in_time_is_told_to_wait() {
    let mut desk = Desk::ready();
    (0..300).for_each(|context| desk.hold(context, &stranger(context)));
    desk.worker.leave(290);
    let open = desk.questions();
    desk.wait(TIMEOUT);
    let mut refused = learnt(desk.worker.overdue(desk.now()));
    refused.sort_by_key(|(context, _)| *context);
    let reason = |context| if context < 192 { Reason::BrokerUnavailable } else { Reason::RateLimited };
    let expected = (0..300).filter(|context| *context != 290);
    assert_eq!(refused, expected.map(|context| (context, Learnt::Refused(reason(context)))).collect::<Vec<_>>());
    // What nobody waits for any more is not asked, not even when there is room again.
    open.iter().for_each(|question| drop(denied(&mut desk, question)));
    assert_eq!(desk.questions().len(), 0);
    assert_eq!(desk.worker.next_tick(), Millis(50));
    desk.hold(1_000, &stranger(299));
    assert_eq!(desk.questions().len(), 1, "who comes later is asked about");
}

#[test]
fn a_question_belongs_to_the_trace_of_who_asked_first_and_no_other_call_to_any() {
    const FIRST: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = |trace: &str| api().with("traceparent", trace);
    let traces = |desk: &mut Desk| {
        desk.pump();
        let all = desk.open.iter().map(|(_, dispatch)| (dispatch.path == "/v1/grants", dispatch.trace));
        all.map(|(is_grant, trace)| (is_grant, trace.map(|trace| trace.as_str().to_owned()))).collect::<Vec<_>>()
    };
    let mut desk = Desk::ready();
    desk.hold(1, &traced(FIRST));
    desk.hold(2, &traced(&FIRST.replace("0af7", "1bf8")));
    for (is_grant, trace) in traces(&mut desk) {
        assert_eq!(trace.as_deref(), is_grant.then_some(FIRST), "the change feed has none");
    }
    // What reads as none is none, and no reason to ask otherwise.
    let mut desk = Desk::ready();
    desk.hold(1, &traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
    assert!(traces(&mut desk).contains(&(true, None)));
}

#[test]
fn how_long_a_callout_takes_is_known_until_it_is_answered() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    desk.wait(7);
    let under_way = desk.worker.under_way(question.token, desk.now()).map(|(call, took)| (call.clone(), took));
    assert!(matches!(under_way, Some((Call::Grant(..), Millis(7)))), "{under_way:?}");
    desk.grant(&question, usual());
    assert!(desk.worker.under_way(question.token, desk.now()).is_none());
}
