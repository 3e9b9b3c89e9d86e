//! A change takes effect on everything remembered and on everything under way.

use super::{Desk, Learnt, api, change, spec_version, usual};
use crate::fixture::{ANOTHER, PLACEHOLDER, SECRET, get, granted, header, name, test};
use crate::refusal::Reason;
use crate::wire::{Change, Changes, Denied, GrantAnswer, Granted};
use crate::worker::Call;

fn as_of(cursor: u64) -> Granted {
    Granted { as_of: cursor, ..usual() }
}

/// A change to somebody else.
fn unrelated(cursor: u64) -> Change {
    change(cursor, Some("s-other"), None)
}

/// A change to what the usual credential may do somewhere.
fn at(destination: &str) -> Change {
    Change { destination: Some(destination.into()), ..change(1, None, Some("github")) }
}

#[test]
fn a_change_voids_the_grants_it_concerns_and_no_others() {
    for (what, change, voids) in [
        ("its session", change(1, Some("s-1"), None), true),
        ("its credential", change(1, None, Some("github")), true),
        ("everything", change(1, None, None), true),
        ("its session and another credential", change(1, Some("s-1"), Some("maps")), true),
        ("another session and its credential", change(1, Some("s-2"), Some("github")), true),
        ("another session", change(1, Some("s-2"), None), false),
        ("another credential", change(1, None, Some("maps")), false),
        ("a longer session id", change(1, Some("s-11"), None), false),
        ("its credential at its destination", at("api.github.com:443"), true),
        ("its credential at another destination", at("github.com:443"), false),
    ] {
        let mut desk = Desk::ready();
        desk.have_granted(&api(), usual());
        desk.poll_answered(1, vec![change]);
        assert_eq!(desk.find(&api()), (!voids).then_some(Learnt::Granted), "{what}");
    }
}

#[test]
fn a_grant_that_knows_of_the_change_stays() {
    for (known, stays) in [(4, false), (5, true), (6, true)] {
        let mut desk = Desk::ready();
        desk.have_granted(&api(), as_of(known));
        desk.poll_answered(5, vec![change(5, Some("s-1"), None)]);
        assert_eq!(desk.find(&api()).is_some(), stays, "as of {known}");
    }
}

#[test]
fn a_change_voids_a_grant_that_is_under_way() {
    for (known, learnt) in [(4, Learnt::Again), (5, Learnt::Granted), (6, Learnt::Granted)] {
        let mut desk = Desk::ready();
        desk.hold(1, &api());
        let question = desk.question();
        desk.poll_answered(5, vec![change(5, Some("s-1"), None)]);
        let stays = learnt == Learnt::Granted;
        assert_eq!(desk.grant(&question, as_of(known)), [(1, learnt)], "as of {known}");
        assert_eq!(desk.find(&api()).is_some(), stays, "as of {known}");
    }
}

#[test]
fn an_unrelated_change_voids_no_grant_under_way() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    desk.poll_answered(5, vec![unrelated(4), change(5, None, Some("maps"))]);
    assert_eq!(desk.grant(&question, as_of(0)), [(1, Learnt::Granted)]);
}

#[test]
fn a_change_of_all_or_of_the_credential_voids_a_grant_under_way() {
    for change in [change(5, None, None), change(5, None, Some("github"))] {
        let mut desk = Desk::ready();
        desk.hold(1, &api());
        let question = desk.question();
        desk.poll_answered(5, vec![change]);
        assert_eq!(desk.grant(&question, as_of(4)), [(1, Learnt::Again)]);
    }
}

#[test]
fn of_changes_beyond_memory_the_worst_is_assumed() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    desk.hold(2, &get("github.com", "/").bearer(ANOTHER));
    let questions = desk.questions();
    // 300 changes, of which 256 are remembered: 1 to 44 are forgotten.
    desk.poll_answered(300, (1..=300).map(unrelated).collect());
    assert_eq!(desk.grant(&questions[0], as_of(43)).remove(0).1, Learnt::Again);
    assert_eq!(desk.grant(&questions[1], as_of(44)).remove(0).1, Learnt::Granted);
}

#[test]
fn a_change_lifts_a_denial() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    let denied = Some(Denied { reason: Reason::CredentialNotGranted });
    desk.answer(question.token, &GrantAnswer { nonce: question.asks.nonce.clone(), granted: None, denied });
    assert!(desk.find(&api()).is_some());
    desk.poll_answered(1, vec![unrelated(1)]);
    assert_eq!(desk.find(&api()), None, "what was denied may be granted by now");
}

#[test]
fn a_new_epoch_and_a_new_policy_lift_denials() {
    for (epoch, policy) in [("e2", "v1"), ("e1", "v2")] {
        let mut desk = Desk::ready();
        desk.hold(1, &api());
        let question = desk.question();
        let denied = Some(Denied { reason: Reason::SourceUnavailable });
        desk.answer(question.token, &GrantAnswer { nonce: question.asks.nonce.clone(), granted: None, denied });
        let poll = desk.take(Call::Changes).unwrap().0;
        let news = Changes { epoch: epoch.into(), cursor: 0, policy: policy.into(), changes: Vec::new() };
        desk.answer(poll, &news);
        if let Some((token, _)) = desk.take(Call::Policy) {
            desk.answer(token, &spec_version("v2"));
        }
        assert_eq!(desk.worker.policy().version(), policy);
        assert_eq!(desk.find(&api()), None, "{epoch} {policy}");
    }
}

#[test]
fn a_new_epoch_voids_what_is_remembered_and_what_is_under_way() {
    let mut desk = Desk::ready();
    let other = get("maps.example", "/").with("x-api-key", PLACEHOLDER);
    desk.have_granted(&api(), as_of(900));
    desk.hold(1, &other);
    let question = desk.question();
    let poll = desk.take(Call::Changes).unwrap().0;
    let reborn = Changes { epoch: "e2".into(), cursor: 3, policy: "v1".into(), changes: Vec::new() };
    desk.answer(poll, &reborn);
    assert_eq!(desk.find(&api()), None);
    let answer = granted("maps", crate::fixture::query("key", SECRET));
    assert_eq!(desk.grant(&question, answer.clone()), [(1, Learnt::Again)]);
    assert_eq!(desk.find(&other), None);
    let (_, dispatch) = desk.take(Call::Changes).unwrap();
    assert!(dispatch.path.contains("epoch=e2&after=3&"), "{}", dispatch.path);
    // What is asked in the new epoch counts.
    desk.hold(2, &other);
    let question = desk.question();
    assert_eq!(desk.grant(&question, answer), [(2, Learnt::Granted)]);
    assert_eq!(desk.find(&other), Some(Learnt::Granted));
}

#[test]
fn a_new_epoch_forgets_the_changes_of_the_old_one() {
    let mut desk = Desk::ready();
    desk.poll_answered(300, (1..=300).map(|cursor| change(cursor, None, None)).collect());
    let poll = desk.take(Call::Changes).unwrap().0;
    desk.answer(poll, &Changes { epoch: "e2".into(), cursor: 1, policy: "v1".into(), changes: Vec::new() });
    desk.hold(1, &api());
    let question = desk.question();
    assert_eq!(desk.grant(&question, as_of(1)), [(1, Learnt::Granted)], "cursors start anew");
}

#[test]
fn the_next_poll_acknowledges_what_was_applied() {
    let mut desk = Desk::ready();
    desk.poll_answered(5, vec![unrelated(5)]);
    let (token, dispatch) = desk.take(Call::Changes).unwrap();
    assert!(dispatch.path.contains("after=5&"), "{}", dispatch.path);
    // A replica that lags behind must not make the cursor go back.
    desk.answer(token, &Changes { epoch: "e1".into(), cursor: 3, policy: "v1".into(), changes: Vec::new() });
    let (_, dispatch) = desk.take(Call::Changes).unwrap();
    assert!(dispatch.path.contains("after=5&"), "{}", dispatch.path);
}

#[test]
fn narrowing_reaches_the_next_request() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    desk.poll_answered(1, vec![change(1, Some("s-1"), None)]);
    assert_eq!(desk.find(&api()), None);
    let mut narrowed = granted("github", header("authorization", SECRET));
    (narrowed.as_of, narrowed.access_mode) = (1, crate::policy::AccessMode::ReadOnly);
    let grant = desk.have_granted(&api(), narrowed);
    assert_eq!(grant.access_mode, crate::policy::AccessMode::ReadOnly);
    assert_eq!(grant.credential, name("github"));
}
