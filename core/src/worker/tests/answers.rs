//! No decision, no forward: an answer counts only if everything about it is right.

use super::{Desk, Learnt, TIMEOUT, api, grants, usual};
use crate::fixture::{header, query, test};
use crate::refusal::Reason;
use crate::secret::Secret;
use crate::time::Millis;
use crate::wire::{Denied, GrantAnswer, Granted};
use serde_json::{Value, json};

const UNAVAILABLE: Learnt = Learnt::Refused(Reason::BrokerUnavailable);

/// What a holder learns from an answer that is made of the right one, and that it is not cached.
fn learns(answer: impl FnOnce(Value) -> (Option<u16>, bool, Vec<u8>)) -> Learnt {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    let right = serde_json::to_value(grants(&question, usual())).unwrap();
    let (status, is_json, body) = answer(right);
    let mut woken = desk.answer_with(question.token, status, is_json, &body);
    assert_eq!(woken.len(), 1, "one holder, one answer");
    let (context, learnt) = woken.remove(0);
    assert_eq!(context, 1);
    let cached = desk.find(&api());
    assert_eq!(cached, (learnt == Learnt::Granted).then_some(Learnt::Granted), "only what counts is kept");
    learnt
}

fn learns_from_text(text: impl FnOnce(String) -> String) -> Learnt {
    learns(|right| (Some(200), true, text(right.to_string()).into_bytes()))
}

fn learns_from(change: impl FnOnce(&mut Granted)) -> Learnt {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    let mut granted = usual();
    change(&mut granted);
    let learnt = desk.grant(&question, granted).remove(0).1;
    assert_eq!(desk.find(&api()).is_some(), learnt == Learnt::Granted);
    learnt
}

#[test]
fn the_right_answer_counts() {
    assert_eq!(learns(|right| (Some(200), true, right.to_string().into_bytes())), Learnt::Granted);
    assert_eq!(learns_from(|_| ()), Learnt::Granted);
}

#[test]
fn only_status_200_counts() {
    for status in [None, Some(0), Some(100), Some(201), Some(202), Some(204), Some(206), Some(301), Some(302)]
        .into_iter()
        .chain([400, 401, 403, 404, 429, 500, 502, 503, 504].map(Some))
    {
        assert_eq!(learns(|right| (status, true, right.to_string().into_bytes())), UNAVAILABLE, "{status:?}");
    }
}

#[test]
fn only_json_counts() {
    assert_eq!(learns(|right| (Some(200), false, right.to_string().into_bytes())), UNAVAILABLE);
}

#[test]
fn an_answer_to_another_question_does_not_count() {
    for nonce in [json!("f".repeat(32)), json!(""), json!(null), json!(1)] {
        let learnt = learns_from_text(|right| {
            let mut answer: Value = serde_json::from_str(&right).unwrap();
            answer["nonce"] = nonce.clone();
            answer.to_string()
        });
        assert_eq!(learnt, UNAVAILABLE, "{nonce}");
    }
}

#[test]
fn a_malformed_answer_does_not_count() {
    let long = |right: &str| format!("{right}{}", " ".repeat(1 << 20));
    assert_eq!(learns_from_text(|right| long(&right)), Learnt::Granted, "white space is JSON");
    for (what, spoil) in [
        ("empty", (|_: &str| String::new()) as fn(&str) -> String),
        ("cut off", |right| right[..right.len() - 1].into()),
        ("cut in the middle", |right| right[..right.len() / 2].into()),
        ("twice", |right| format!("{right}{right}")),
        ("something after", |right| format!("{right}x")),
        ("an array", |right| format!("[{right}]")),
        ("null", |_| "null".into()),
        ("an empty object", |_| "{}".into()),
        ("HTML", |_| "<html>".into()),
        ("deep", |_| "[".repeat(100_000)),
        ("an unknown field", |right| right.replacen('{', r#"{"more":1,"#, 1)),
        ("an unknown field within", |right| right.replacen(r#""lease":{"#, r#""lease":{"more":1,"#, 1)),
        ("an unknown field in an injection", |right| right.replacen(r#"{"header":"#, r#"{"more":1,"header":"#, 1)),
        ("a nonce twice", |right| right.replacen('{', r#"{"nonce":"x","#, 1)),
        ("a mode twice", |right| {
            right.replacen(r#""access_mode":"#, r#""access_mode":"read-write","access_mode":"#, 1)
        }),
        ("a time twice", |right| right.replacen(r#""ttl_ms":"#, r#""ttl_ms":1,"ttl_ms":"#, 1)),
        ("a value twice", |right| right.replacen(r#""value":"#, r#""value":"x","value":"#, 1)),
        ("an unknown mode", |right| right.replace("read-write", "admin")),
        ("no mode", |right| right.replace(r#""access_mode":"read-write","#, "")),
        ("no time", |right| right.replace(r#""ttl_ms":60000"#, r#""x":1"#)),
        ("a negative time", |right| right.replace("60000", "-1")),
        ("a time that is no number", |right| right.replace("60000", r#""60000""#)),
        ("a time beyond numbers", |right| right.replace("60000", "18446744073709551616")),
        ("a broken name", |right| right.replace("reviewer", "../reviewer")),
        ("granted and denied", |right| right.replacen('{', r#"{"denied":{"reason":"read_only"},"#, 1)),
    ] {
        assert_ne!(
            learns_from_text(|right| {
                let spoilt = spoil(&right);
                assert_ne!(spoilt, right, "{what}");
                spoilt
            }),
            Learnt::Granted,
            "{what}"
        );
    }
}

#[test]
fn neither_granted_nor_denied_is_no_answer() {
    let learnt = learns(|right| {
        let answer = GrantAnswer { nonce: right["nonce"].as_str().unwrap().into(), granted: None, denied: None };
        (Some(200), true, serde_json::to_vec(&answer).unwrap())
    });
    assert_eq!(learnt, UNAVAILABLE);
}

#[test]
fn a_lease_has_a_lifetime_that_can_be_believed() {
    let day = 24 * 60 * 60 * 1_000;
    for (ttl_ms, learnt) in [
        (1, Learnt::Granted),
        (day, Learnt::Granted),
        (0, UNAVAILABLE),
        (day + 1, UNAVAILABLE),
        (u64::MAX, UNAVAILABLE),
    ] {
        assert_eq!(learns_from(|granted| granted.lease.ttl_ms = ttl_ms), learnt, "{ttl_ms}");
    }
}

#[test]
fn a_credential_that_cannot_be_masked_is_not_used() {
    for (what, mask, learnt) in [
        ("masking is off", vec![], Ok(())),
        ("long enough", vec!["ghp_real"], Ok(())),
        ("too short", vec!["ghp_rea"], Err(())),
        ("not ASCII", vec!["ghp_r\u{e9}al-real"], Err(())),
        ("one of two", vec!["ghp_real", ""], Err(())),
    ] {
        let outcome = learns_from(|granted| granted.mask = mask.into_iter().map(Secret::new).collect());
        assert_eq!(outcome != UNAVAILABLE, learnt.is_ok(), "{what}");
    }
}

#[test]
fn an_injection_cannot_break_out_of_its_place() {
    let both = || crate::wire::WireInjection { query: Some("key".into()), ..header("authorization", "x") };
    let neither = || crate::wire::WireInjection { header: None, ..header("", "x") };
    for (what, injections) in [
        ("none", vec![]),
        ("both places", vec![both()]),
        ("no place", vec![neither()]),
        ("CR LF", vec![header("authorization", "a\r\nx-evil: b")]),
        ("LF", vec![header("authorization", "a\n")]),
        ("NUL", vec![header("authorization", "a\0")]),
        ("DEL", vec![header("authorization", "a\u{7f}")]),
        ("tab", vec![header("authorization", "a\tb")]),
        ("not ASCII", vec![header("authorization", "\u{e9}")]),
        ("empty", vec![header("authorization", "")]),
        ("a pseudo-header", vec![header(":authority", "evil.example")]),
        ("an upper-case name", vec![header("Authorization", "x")]),
        ("a name with a space", vec![header("x y", "x")]),
        ("no name", vec![header("", "x")]),
        ("an ampersand", vec![query("key", "a&b=c")]),
        ("a fragment", vec![query("key", "a#b")]),
        ("a space", vec![query("key", "a b")]),
        ("a line in a query", vec![query("key", "a\r\nb")]),
        ("a parameter's odd name", vec![query("a=b&key", "x")]),
        ("no parameter's name", vec![query("", "x")]),
        ("one bad beside a good one", vec![header("authorization", "x"), header("x-more", "\n")]),
    ] {
        assert_eq!(learns_from(|granted| granted.injections = injections), UNAVAILABLE, "{what}");
    }
}

#[test]
fn a_denial_is_handed_on_and_believed_for_a_while() {
    for (reason, believed) in
        [(Reason::CredentialNotGranted, 2_000), (Reason::PlaceholderUnknown, 2_000), (Reason::SourceUnavailable, 250)]
    {
        let mut desk = Desk::ready();
        desk.hold(1, &api());
        let question = desk.question();
        desk.wait(300);
        let denial = GrantAnswer { nonce: question.asks.nonce.clone(), granted: None, denied: Some(Denied { reason }) };
        assert_eq!(desk.answer(question.token, &denial), [(1, Learnt::Refused(reason))]);
        desk.wait(believed - 1);
        assert_eq!(desk.find(&api()), Some(Learnt::Refused(reason)));
        desk.wait(1);
        assert_eq!(desk.find(&api()), None);
        assert_eq!(desk.questions().len(), 0, "a denial is not renewed ahead");
    }
}

#[test]
fn a_slow_answer_extends_nothing() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    desk.wait(1_500);
    let mut granted = usual();
    granted.lease.ttl_ms = 2_000;
    desk.grant(&question, granted);
    desk.wait(499);
    assert_eq!(desk.find(&api()), Some(Learnt::Granted), "the lease counts from when it was asked for");
    desk.wait(1);
    assert_eq!(desk.find(&api()), None);
}

#[test]
fn a_grant_that_is_over_when_it_arrives_is_not_used_but_asked_for_anew() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    desk.wait(1_500);
    let mut granted = usual();
    granted.lease.ttl_ms = 1_500;
    assert_eq!(desk.grant(&question, granted), [(1, Learnt::Again)]);
    assert_eq!(desk.find(&api()), None);
    // Whoever says so in turn gets an answer in the time that any decision may take.
    desk.hold(1, &api());
    let question = desk.question();
    assert_eq!(desk.grant(&question, usual()), [(1, Learnt::Granted)]);
}

#[test]
fn a_grant_in_use_is_renewed_ahead_without_holding_anybody() {
    let mut desk = Desk::ready();
    let first = desk.have_granted(&api(), usual());
    desk.poll_answered(0, Vec::new());
    let end = |grant: &crate::worker::Grant| grant.expires;
    assert_eq!(end(&first), Millis(61_000));
    for _ in 0..9 {
        desk.wait(5_000 - 1);
        desk.poll_answered(0, Vec::new());
        assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    }
    desk.wait(8);
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    assert_eq!(desk.questions().len(), 0, "not yet");
    desk.wait(1);
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    let question = desk.question();
    assert_eq!(desk.find(&api()), Some(Learnt::Granted), "meanwhile the old one serves");
    assert_eq!(desk.questions().len(), 0, "one question is enough");
    assert_eq!(desk.grant(&question, usual()), [], "nobody was held");
    let Some(crate::worker::Entry::Granted(second)) = desk.find_entry(&api()) else { panic!("a grant") };
    assert_eq!(end(&second), Millis(46_000 + 60_000));
}

#[test]
fn a_renewal_that_fails_leaves_the_grant_and_one_that_is_denied_ends_it() {
    let mut desk = Desk::ready();
    let mut granted = usual();
    granted.lease.refresh_after_ms = 1;
    desk.have_granted(&api(), granted);
    desk.wait(1);
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    let question = desk.question();
    assert_eq!(desk.fail(question.token), []);
    for _ in 0..4 {
        assert_eq!(desk.find(&api()), Some(Learnt::Granted), "its time is not over");
        assert_eq!(desk.questions().len(), 0, "a broker in trouble is left alone for a second");
        desk.wait(250);
    }
    assert_eq!(desk.find(&api()), Some(Learnt::Granted));
    let question = desk.question();
    let denied = Some(Denied { reason: Reason::SessionExpired });
    let denial = GrantAnswer { nonce: question.asks.nonce.clone(), granted: None, denied };
    desk.answer(question.token, &denial);
    assert_eq!(desk.find(&api()), Some(Learnt::Refused(Reason::SessionExpired)));
}

#[test]
fn an_unused_grant_is_not_renewed() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    desk.wait(50_000);
    assert_eq!(desk.questions().len(), 0);
}

#[test]
fn a_callout_takes_as_long_as_a_decision_may() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    desk.pump();
    let timeouts: Vec<_> =
        desk.open.iter().filter(|(_, d)| d.path == "/v1/grants").map(|(_, d)| (d.method, d.timeout)).collect();
    assert_eq!(timeouts, [("POST", Millis(TIMEOUT))]);
}

#[test]
fn an_answer_that_comes_when_nobody_waits_any_longer_is_none() {
    for (late, learns) in [(500, Learnt::Granted), (501, Learnt::Refused(Reason::BrokerUnavailable))] {
        let mut desk = Desk::ready();
        desk.hold(1, &api());
        let question = desk.question();
        // The VM stood still: not even the tick came that would have given the question up.
        desk.wait(TIMEOUT + late);
        let granted = learns == Learnt::Granted;
        assert_eq!(desk.grant(&question, usual()), [(1, learns)], "{late} ms late");
        assert_eq!(desk.find(&api()).is_some(), granted, "{late} ms late");
    }
}
