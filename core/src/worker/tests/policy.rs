//! A policy is swapped whole, and nothing that was asked under the old one holds.

use super::{Desk, Learnt, TIMEOUT, api, learnt, spec_version, usual};
use crate::fixture::{PLACEHOLDER, destination, get, name, spec, test};
use crate::policy::{Policy, Spec};
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::Changes;
use crate::worker::Call;

fn announce(desk: &mut Desk, version: &str) {
    let poll = desk.take(Call::Changes).unwrap().0;
    desk.answer(poll, &Changes { epoch: "e1".into(), cursor: 0, policy: version.into(), changes: Vec::new() });
}

/// The first policy's answer, spoilt.
fn first_policy(body: impl FnOnce(Spec) -> Vec<u8>) -> Desk {
    let mut desk = Desk::new();
    let (token, dispatch) = desk.take(Call::Policy).unwrap();
    assert_eq!((dispatch.method, &*dispatch.path), ("GET", "/v1/policy"));
    let body = body(spec());
    desk.answer_with(token, Some(200), true, &body);
    desk
}

#[test]
fn without_a_policy_nothing_goes() {
    let desk = Desk::new();
    assert!(!desk.worker.has_policy());
    let verdict = api().identify(&desk.worker.policy());
    assert_eq!(verdict.err(), Some(Reason::HostNotAllowed), "the empty policy names nothing");
}

#[test]
fn requests_wait_for_the_first_policy() {
    let mut desk = Desk::new();
    let token = desk.take(Call::Policy).unwrap().0;
    (1..=3).for_each(|context| desk.worker.hold_for_policy(context, Millis(desk.now)));
    desk.worker.leave(2);
    assert_eq!(desk.answer(token, &spec()), [(1, Learnt::Again), (3, Learnt::Again)]);
    assert!(desk.worker.has_policy());
    assert_eq!(desk.worker.policy().version(), "v1");
}

#[test]
fn who_waits_too_long_for_a_policy_is_refused() {
    let mut desk = Desk::new();
    desk.worker.hold_for_policy(1, Millis(desk.now));
    desk.worker.hold_for_policy(2, Millis(desk.now + 1));
    desk.wait(TIMEOUT - 1);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), []);
    desk.wait(1);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), [(1, Learnt::Refused(Reason::PolicyMissing))]);
    desk.wait(1);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), [(2, Learnt::Refused(Reason::PolicyMissing))]);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), []);
}

#[test]
fn a_policy_that_is_not_ours_or_makes_no_sense_is_refused() {
    let json = |spec: Spec| serde_json::to_vec(&spec).unwrap();
    for (what, mut desk) in [
        ("another instance's", first_policy(|spec| json(Spec { instance: name("other"), ..spec }))),
        ("empty", first_policy(|_| Vec::new())),
        ("cut off", first_policy(|spec| json(spec).split_last().unwrap().1.to_vec())),
        ("an unknown field", first_policy(|spec| [b"{\"more\":1,", &json(spec)[1..]].concat())),
        ("a version twice", first_policy(|spec| [b"{\"version\":\"v0\",", &json(spec)[1..]].concat())),
        (
            "an authority in capitals",
            first_policy(|mut spec| {
                spec.destinations[0].authorities[0] = "API.github.com".into();
                json(spec)
            }),
        ),
        (
            "an authority twice",
            first_policy(|mut spec| {
                spec.destinations[1].authorities[0] = "api.github.com".into();
                json(spec)
            }),
        ),
        (
            "a route prefix twice",
            first_policy(|mut spec| {
                spec.destinations[1].route_prefix = Some("/github".into());
                json(spec)
            }),
        ),
        (
            "a route prefix that climbs",
            first_policy(|mut spec| {
                spec.destinations[1].route_prefix = Some("/..".into());
                json(spec)
            }),
        ),
        (
            "a path that climbs",
            first_policy(|mut spec| {
                spec.destinations[2].bindings[0].paths = vec!["/a/../b".into()];
                json(spec)
            }),
        ),
        (
            "a method nobody may use",
            first_policy(|mut spec| {
                spec.destinations[4].bindings[0].access.reads[0].method = "TRACE".into();
                json(spec)
            }),
        ),
    ] {
        assert!(!desk.worker.has_policy(), "{what}");
        assert!(desk.worker.take_complaint().is_some_and(|why| !why.is_empty()), "{what}: it is said why");
        assert!(desk.take(Call::Policy).is_none(), "{what}: not asked again at once");
        desk.wait(200);
        let token = desk.take(Call::Policy).expect("asked again soon").0;
        desk.answer(token, &spec());
        assert!(desk.worker.has_policy(), "{what}: a good one is taken");
        assert_eq!(desk.worker.take_complaint(), None, "{what}");
    }
}

#[test]
fn what_is_no_policy_is_not_repeated_in_the_complaint() {
    for text in
        [r#""s3cr3t""#, r#"{"s3cr3t": 1}"#, r#"{"version": ["s3cr3t"]}"#, r#"{"unmatched": "s3cr3t"}"#, "s3cr3t"]
    {
        let mut desk = first_policy(|_| text.into());
        let why = desk.worker.take_complaint().expect("it is said why");
        assert!(why.contains("line 1, column ") && !why.contains("s3cr3t"), "{why}");
    }
}

#[test]
fn a_fetch_that_fails_is_repeated_soon() {
    let mut desk = Desk::ready();
    desk.have_granted(&api(), usual());
    announce(&mut desk, "v2");
    let token = desk.take(Call::Policy).expect("a new version is fetched").0;
    assert!(desk.take(Call::Policy).is_none(), "once");
    assert_eq!(desk.fail(token), []);
    desk.wait(199);
    assert!(desk.take(Call::Policy).is_none());
    desk.wait(1);
    let call = desk.take(Call::Policy).expect("after 200 ms").1.call;
    assert!(desk.worker.unsent(call, desk.now()).is_empty());
    desk.wait(200);
    let token = desk.take(Call::Policy).unwrap().0;
    desk.answer(token, &spec_version("v2"));
    assert_eq!(desk.worker.policy().version(), "v2");
    desk.wait(1_000);
    assert!(desk.take(Call::Policy).is_none(), "and then it is quiet");
}

#[test]
fn nothing_is_decided_by_a_policy_once_another_one_is_announced() {
    let mut desk = Desk::ready();
    desk.hold(1, &api());
    let question = desk.question();
    assert!(desk.worker.has_policy());
    announce(&mut desk, "v2");
    assert!(!desk.worker.has_policy());
    assert_eq!(desk.grant(&question, usual()), [(1, Learnt::Again)], "a grant that was under way decides nothing");
    desk.worker.hold_for_policy(1, desk.now());
    let fetch = desk.take(Call::Policy).unwrap().0;
    assert_eq!(desk.fail(fetch), []);
    assert!(!desk.worker.has_policy(), "until it is here");
    desk.wait(TIMEOUT);
    assert_eq!(learnt(desk.worker.overdue(desk.now())), [(1, Learnt::Refused(Reason::PolicyMissing))]);
    desk.worker.hold_for_policy(2, desk.now());
    let fetch = desk.take(Call::Policy).unwrap().0;
    assert_eq!(desk.answer(fetch, &spec_version("v2")), [(2, Learnt::Again)]);
    assert!(desk.worker.has_policy());
}

#[test]
fn a_policy_that_was_sent_before_another_was_announced_is_not_the_one() {
    let mut desk = Desk::ready();
    announce(&mut desk, "v2");
    let fetch = desk.take(Call::Policy).unwrap().0;
    announce(&mut desk, "v3");
    desk.worker.hold_for_policy(1, desk.now());
    assert_eq!(desk.answer(fetch, &spec_version("v2")), []);
    assert!(!desk.worker.has_policy());
    desk.wait(200);
    let fetch = desk.take(Call::Policy).expect("the newest is fetched").0;
    assert_eq!(desk.answer(fetch, &spec_version("v3")), [(1, Learnt::Again)]);
}

#[test]
fn what_is_open_is_held_against_a_policy_that_arrives_though_another_is_announced() {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    announce(&mut desk, "v2");
    let fetch = desk.take(Call::Policy).unwrap().0;
    announce(&mut desk, "v3");
    let mut without = spec_version("v2");
    without.destinations.remove(destination::API);
    assert_eq!(desk.answer(fetch, &without), []);
    assert!(!desk.worker.has_policy(), "nothing is decided by it");
    let leads = |policy: &Policy| policy.by_authority(b"api.github.com").map(drop).ok_or(Reason::HostNotAllowed);
    let ends: Vec<_> = desk.worker.take_cuts().iter().map(|cut| cut.ends(&grant, || true, leads)).collect();
    assert_eq!(ends, [Some(Reason::HostNotAllowed)]);
}

#[test]
fn a_policy_that_is_announced_again_is_in_force_again() {
    let mut desk = Desk::ready();
    announce(&mut desk, "v2");
    desk.worker.hold_for_policy(1, desk.now());
    let poll = desk.take(Call::Changes).unwrap().0;
    let back = Changes { epoch: "e1".into(), cursor: 0, policy: "v1".into(), changes: Vec::new() };
    assert_eq!(desk.answer(poll, &back), [(1, Learnt::Again)]);
    assert!(desk.worker.has_policy());
}

#[test]
fn the_same_version_is_not_fetched_again() {
    let mut desk = Desk::ready();
    announce(&mut desk, "v1");
    assert!(desk.take(Call::Policy).is_none());
}

#[test]
fn an_answer_that_was_overtaken_by_the_newest_policy_puts_none_before_it_in_force() {
    let mut desk = Desk::ready();
    announce(&mut desk, "v2");
    let older = desk.take(Call::Policy).unwrap().0;
    announce(&mut desk, "v3");
    let newest = desk.take(Call::Policy).unwrap().0;
    desk.answer(newest, &spec_version("v3"));
    desk.answer(older, &spec_version("v2"));
    assert_eq!((desk.worker.policy().version(), desk.worker.has_policy()), ("v3", true));
}

#[test]
fn a_swap_empties_the_cache_and_makes_holders_begin_again() {
    let mut desk = Desk::ready();
    let git = get("github.com", "/").bearer(PLACEHOLDER);
    desk.have_granted(&api(), usual());
    (1..=3).for_each(|context| desk.hold(context, &git));
    let old = desk.question();
    announce(&mut desk, "v2");
    let token = desk.take(Call::Policy).unwrap().0;
    // The same destinations in another order: an index of before means another place.
    let mut swapped = spec_version("v2");
    swapped.destinations.reverse();
    let mut woken = desk.answer(token, &swapped);
    woken.sort_by_key(|(context, _)| *context);
    assert_eq!(woken, [(1, Learnt::Again), (2, Learnt::Again), (3, Learnt::Again)]);
    assert_eq!(desk.find(&api()), None);
    // What stands now where `api.github.com` stood: its grant must not be found under that index.
    let device = get("192.168.1.1:8443", "/").bearer(PLACEHOLDER);
    assert_eq!(desk.find(&device), None);

    desk.hold(1, &git);
    let new = desk.question();
    assert_eq!(new.asks.destination, "github.com:443");
    assert_eq!(desk.grant(&old, usual()), [], "the answer to a question of before lands nothing");
    assert_eq!(desk.find(&git), None);
    assert_eq!(desk.grant(&new, usual()), [(1, Learnt::Granted)]);
}

#[test]
fn a_grant_names_the_one_cluster_that_it_may_be_used_towards() {
    let mut desk = Desk::ready();
    assert_eq!(desk.have_granted(&api(), usual()).cluster, "to-api");
    let git = get("github.com", "/").bearer(PLACEHOLDER);
    assert_eq!(desk.have_granted(&git, usual()).cluster, "to-git");
}
