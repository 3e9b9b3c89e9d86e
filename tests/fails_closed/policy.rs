//! A policy, a change feed or an audit door that fails: without the newest policy, whole, nothing
//! passes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use attache_core::refusal::Reason;
use attache_core::wire::MOST_POLICY_BYTES;
use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{FakeBroker, util};
use serde_json::{Value, json};

use crate::scene::{RECOVERY, SLACK, Scene};

const MB: usize = 1 << 20;
/// One worker, and the main thread.
const VMS: usize = 2;
/// A failed fetch or poll is repeated after this: no storm.
const RETRY: Duration = Duration::from_millis(200);

/// Answers at once wrong, whatever the endpoint.
const FAULTS: [Behaviour; 15] = [
    Behaviour::Close,
    Behaviour::Status(500),
    Behaviour::Status(503),
    Behaviour::Status(404),
    Behaviour::Status(204),
    Behaviour::RightUnder(203),
    Behaviour::Redirect302,
    Behaviour::Html200,
    Behaviour::AsText,
    Behaviour::Truncated,
    Behaviour::Garbage,
    Behaviour::ZeroHeaders,
    Behaviour::DuplicateKeys,
    Behaviour::UnknownMember,
    Behaviour::WrongType,
];

/// A stack whose filter has got no policy yet, and waits for one not for long.
async fn without_policy() -> Scene<FakeBroker> {
    let plan = Plan::default().limit("callout_timeout: 500ms");
    Scene::of(plan.start_with_fake_after(|broker| broker.behave(Endpoint::Policy, Behaviour::Status(503))).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_passes_until_there_is_one() {
    let scene = without_policy().await;
    let broker = &scene.stack.broker;
    let begun = (Instant::now(), broker.calls(Endpoint::Policy));
    let refused = async |fault: &str| scene.refuses(Reason::PolicyMissing, fault).await;
    for fault in FAULTS.into_iter().chain([Behaviour::Hang, Behaviour::HeadersOnly, Behaviour::Oversized(40 * MB)]) {
        broker.behave(Endpoint::Policy, fault);
        // Who asks meanwhile is held: the next attempt could be the good one.
        let fault = format!("{fault:?}");
        tokio::join!(refused(&fault), refused(&fault), refused(&fault));
    }
    // Worker and main thread, one attempt at a time each.
    let attempts = broker.calls(Endpoint::Policy) - begun.1;
    let most = 2 * begun.0.elapsed().as_millis() / RETRY.as_millis() + 2;
    assert!(attempts as u128 <= most, "{attempts} attempts in {:?}", begun.0.elapsed());
    assert_eq!(broker.calls(Endpoint::Grants), 0, "nobody is asked for a grant without a policy");
    broker.behave(Endpoint::Policy, Behaviour::Ok);
    scene.recovers("no policy").await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_none_is_not_taken() {
    let scene = without_policy().await;
    let broker = &scene.stack.broker;
    broker.behave(Endpoint::Policy, Behaviour::Ok);
    let good = policy(&scene);
    for (fault, at, value) in bad_policies(&good) {
        broker.policy(with(good.clone(), at, value));
        scene.refuses(Reason::PolicyMissing, fault).await;
    }
    let log = scene.stack.envoy.log();
    for why in [
        "it is none of this filter's version (line 1, column ",
        "it is that of instance other",
        "another destination is reached in the same way",
    ] {
        assert!(log.contains("the broker's policy is not taken, and nothing passes: ") && log.contains(why), "{why}");
    }
    assert!(!log.contains("cookie"), "what is no policy is not repeated");
    broker.policy(good);
    scene.recovers("bad policies").await;
    scene.ends_well().await;
}

/// What a broker publishes at most is what Envoy hands on, to the byte, and what the filter reads.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_policy_is_taken_and_a_longer_one_is_not() {
    let begin = |broker: &FakeBroker| broker.behave(Endpoint::Policy, Behaviour::Status(503));
    let scene = Scene::of(Plan::default().start_with_fake_after(begin).await).await;
    let broker = &scene.stack.broker;
    let length = serde_json::to_vec(&policy(&scene)).expect("a policy is JSON").len();
    broker.behave(Endpoint::Policy, Behaviour::Oversized(MOST_POLICY_BYTES + 1 - length));
    scene.refuses(Reason::PolicyMissing, "a byte too many").await;
    broker.behave(Endpoint::Policy, Behaviour::Oversized(MOST_POLICY_BYTES - length));
    scene.recovers("a long policy").await;
    scene.ends_well().await;
}

/// Of a hundred thousand destinations each is found, and a change of them comes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_destinations_are_decided_by() {
    let scene = Scene::of(Plan::default().start_with_fake().await).await;
    let broker = &scene.stack.broker;
    scene.serves("few destinations").await;
    let mut many = policy(&scene);
    let list = many["destinations"].as_array_mut().expect("destinations");
    for n in 0..100_000 {
        let host = format!("customer-{n:06}.example.test");
        list.push(json!({
            "id": format!("{host}:443"), "authorities": [host], "route_prefix": format!("/{host}"),
            "cluster": format!("attache_dst_{host}_443"),
            "bindings": [{"credential": "github", "service": "github"}],
        }));
    }
    many["version"] = json!("many");
    assert!(many.to_string().len() < MOST_POLICY_BYTES, "a broker would publish it");
    broker.policy(many.clone());
    // Who shows nothing is refused for that where the host is one.
    let last = "customer-099999.example.test";
    broker.fetched(VMS, SOON).await;
    refuses_for(&scene, last, Reason::IdentityRequired).await;
    scene.refuses_at("customer-100000.example.test", "no-placeholder", Reason::HostNotAllowed, "no such host").await;
    scene.recovers("many destinations").await;
    many["version"] = json!("fewer");
    many["destinations"].as_array_mut().expect("destinations").pop();
    broker.policy(many);
    broker.fetched(VMS, SOON).await;
    refuses_for(&scene, last, Reason::HostNotAllowed).await;
    scene.recovers("one fewer").await;
    scene.ends_well().await;
}

/// Waits until this is why a host gets nothing.
async fn refuses_for(scene: &Scene<FakeBroker>, host: &str, reason: Reason) {
    let begun = Instant::now();
    loop {
        let answer = scene.stack.get(host, "/", "no-placeholder").await;
        if answer.header("x-attache-reason").as_deref() == Some(reason.as_str()) {
            return;
        }
        assert!(begun.elapsed() < SOON, "not {}: {}", reason.as_str(), answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the broker publishes may take rights away. So what was in force before decides nothing from the
/// moment that the feed names another policy, whatever keeps that one from coming.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_decided_by_a_policy_that_is_no_longer_the_newest() {
    let scene = Scene::of(Plan::default().limit("callout_timeout: 500ms").start_with_fake().await).await;
    let broker = &scene.stack.broker;
    scene.serves("the start").await;
    let known = scene.stranger();
    assert!(scene.ask_as(&known).await.status == 200 && hits(&scene, &known).await);
    let good = policy(&scene);
    for (index, (fault, at, value)) in bad_policies(&good).into_iter().enumerate() {
        let mut bad = good.clone();
        bad["version"] = json!(format!("bad-{index}"));
        broker.policy(with(bad, at, value));
        misses_its_policy(&scene).await;
        scene.refuses_at("api.github.com", &known, Reason::PolicyMissing, fault).await;
        broker.policy(good.clone());
        scene.recovers(fault).await;
    }
    let mut better = good.clone();
    better["version"] = json!("better");
    broker.behave(Endpoint::Policy, Behaviour::Status(503));
    broker.policy(better.clone());
    misses_its_policy(&scene).await;
    scene.refuses(Reason::PolicyMissing, "a policy that cannot be fetched").await;
    broker.behave(Endpoint::Policy, Behaviour::Ok);
    scene.recovers("a policy that could not be fetched").await;

    let mut closed = good.clone();
    closed["version"] = json!("closed");
    closed["destinations"] = json!([]);
    broker.policy(closed);
    denies(&scene).await;
    broker.policy(good);
    scene.recovers("an empty policy").await;
    scene.ends_well().await;
}

/// Waits until the worker has heard of the other policy, as it does at once.
async fn misses_its_policy(scene: &Scene<FakeBroker>) {
    let begun = Instant::now();
    loop {
        let answer = scene.ask().await;
        if answer.header("x-attache-reason").as_deref() == Some(Reason::PolicyMissing.as_str()) {
            return;
        }
        assert!(begun.elapsed() < RECOVERY + SLACK, "the old policy still decides: {}", answer.text());
    }
}

/// An empty policy that is whole is taken: nothing is named, so nothing passes.
async fn denies(scene: &Scene<FakeBroker>) {
    let begun = Instant::now();
    loop {
        let answer = scene.ask().await;
        if answer.status == 403 {
            assert_eq!(answer.header("x-attache-reason").as_deref(), Some(Reason::HostNotAllowed.as_str()));
            return;
        }
        assert!(begun.elapsed() < RECOVERY + SLACK, "the new policy is not in force: {}", answer.text());
    }
}

/// The policy of the stack's own config.
fn policy(scene: &Scene<FakeBroker>) -> Value {
    serde_json::to_value(scene.stack.config.policy()).expect("a policy is JSON")
}

/// A policy that says this there.
fn with(mut policy: Value, at: &str, value: Value) -> Value {
    let Some((parent, member)) = at.rsplit_once('/') else { return value };
    match policy.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} is in the policy")) {
        Value::Array(list) => list[member.parse::<usize>().expect("an index")] = value,
        parent => {
            // What goes without saying is not there to be replaced.
            assert!(["carrier", "paths"].contains(&member) || parent.get(member).is_some(), "{at} is in the policy");
            parent[member] = value;
        }
    }
    policy
}

/// What is wrong, where, and what stands there.
fn bad_policies(good: &Value) -> Vec<(&'static str, &'static str, Value)> {
    let other = |member: &str| good.pointer(&format!("/destinations/1/{member}")).cloned().unwrap_or_default();
    vec![
        ("nothing", "", Value::Null),
        ("an empty object", "", json!({})),
        ("no destinations", "/destinations", Value::Null),
        ("another instance", "/instance", json!("other")),
        ("an instance that is no name", "/instance", json!("../x")),
        ("a rule for the unmatched that is none", "/unmatched", json!("allow")),
        ("an id that is no authority", "/destinations/0/id", json!("api.github.com@evil.test:443")),
        ("an id twice", "/destinations/0/id", other("id")),
        ("an authority that is none", "/destinations/0/authorities/0", json!("api.github.com@evil.test")),
        ("an authority that is not canonical", "/destinations/0/authorities/0", json!("API.github.com")),
        ("an authority twice", "/destinations/0/authorities/0", other("authorities/0")),
        ("a route prefix with dots", "/destinations/0/route_prefix", json!("/../x")),
        ("a route prefix twice", "/destinations/0/route_prefix", other("route_prefix")),
        ("a path with dots", "/destinations/0/bindings/0/paths", json!(["/v1/../"])),
        ("a carrier that is none", "/destinations/0/bindings/0/carrier", json!({"cookie": "x"})),
        ("no bindings", "/destinations/0/bindings", Value::Null),
        ("a credential that is no name", "/destinations/0/bindings/0/credential", json!("a b")),
    ]
}

/// Faults of the feed take trust away, never give any: cached grants end with `stale_after`,
/// and whoever can still ask is still served.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_fails_makes_every_hit_a_miss() {
    const STALE: Duration = Duration::from_secs(1);
    let scene = Scene::of(Plan::default().limit("stale_after: 1s").start_with_fake().await).await;
    let broker = &scene.stack.broker;
    let known = scene.stranger();
    for fault in FAULTS.into_iter().chain([Behaviour::Hang, Behaviour::HeadersOnly, Behaviour::Oversized(20 * MB)]) {
        broker.behave(Endpoint::Changes, fault);
        polled_anew(broker).await;
        scene.serves(&format!("{fault:?} of the feed")).await;
    }
    broker.behave(Endpoint::Changes, Behaviour::Ok);
    let begun = Instant::now();
    while !hits(&scene, &known).await {
        assert!(begun.elapsed() < RECOVERY + SLACK, "a feed that works again makes hits of what is cached");
    }
    broker.behave(Endpoint::Changes, Behaviour::WrongType);
    let last = Instant::now();
    // Nothing is waited for but the promised bound itself.
    tokio::time::sleep_until((last + STALE).into()).await;
    assert!(!hits(&scene, &known).await, "a stale worker asks again");
    broker.behave(Endpoint::Grants, Behaviour::Status(500));
    scene.refuses_at("api.github.com", &known, Reason::Stale, "feed and grants").await;
    broker.behave_all(Behaviour::Ok);
    scene.recovers("feed and grants").await;
    scene.ends_well().await;
}

/// Waits until each VM has asked the feed once more.
async fn polled_anew(broker: &FakeBroker) {
    let before = broker.calls(Endpoint::Changes);
    let workers = || {
        let polls = broker.heard(Endpoint::Changes).split_off(before);
        polls.iter().filter_map(|poll| Some(poll.target.split('&').next()?.to_owned())).collect::<BTreeSet<_>>()
    };
    util::eventually(SOON, || workers().len() == VMS).await;
}

/// Whether a request is answered, and from what its worker knows already.
async fn hits(scene: &Scene<FakeBroker>, placeholder: &str) -> bool {
    let asked = scene.stack.broker.calls(Endpoint::Grants);
    assert_eq!(scene.ask_as(placeholder).await.status, 200);
    scene.stack.broker.calls(Endpoint::Grants) == asked
}

/// Uses that nobody acknowledges are bounded, whatever the broker answers instead.
#[tokio::test(flavor = "multi_thread")]
async fn uses_that_nobody_acknowledges_are_bounded() {
    const MOST: u32 = 3;
    let scene = Scene::of(Plan::default().start_with_fake().await).await;
    let broker = &scene.stack.broker;
    let grant = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
    broker.grant(Grant { max_unacked_uses: MOST, ..grant });
    for fault in FAULTS {
        broker.behave(Endpoint::Audit, fault);
        for _ in 0..MOST {
            scene.serves(&format!("{fault:?} of the audit")).await;
        }
        scene.refuses(Reason::AuditBacklog, &format!("{fault:?} of the audit")).await;
        broker.behave(Endpoint::Audit, Behaviour::Ok);
        scene.recovers(&format!("{fault:?} of the audit")).await;
        acknowledged(&scene).await;
    }
    scene.ends_well().await;
}

/// Waits until the filter has heard that all its records are held.
async fn acknowledged(scene: &Scene<FakeBroker>) {
    let (broker, sent) = (&scene.stack.broker, scene.sent());
    let uses = || broker.records().iter().filter(|record| record["kind"] == "use").count();
    util::eventually(SOON, || uses() == sent).await;
    let active = "cluster.attache_broker.upstream_rq_active";
    const FEEDS: u64 = 2;
    scene.stack.envoy.wait_stat(active, |calls| calls == FEEDS, SOON).await;
}

/// A broker's cluster that does not exist fails in the call itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_exist_refuses() {
    let plan = Plan::default().edit(|bootstrap| {
        let text = bootstrap.to_string();
        // In the plugins' settings, which are JSON in a text.
        let named = r#"\"broker_cluster\":\"attache_broker\""#;
        assert!(text.contains(named), "the plugins name their cluster");
        let edited = text.replace(named, r#"\"broker_cluster\":\"nobody\""#);
        *bootstrap = serde_json::from_str(&edited).expect("still JSON");
    });
    let scene = Scene::of(plan.start_with_fake().await).await;
    let refused = |which| scene.refuses(Reason::PolicyMissing, which);
    let begun = Instant::now();
    tokio::join!(refused("one"), refused("two"), refused("three"));
    // It is tried again and again, policy and feed, by worker and main thread: without a storm.
    let failed = "wasmcustom.attache.callouts_failed";
    let failures = scene.stack.envoy.wait_stat(failed, |failures| failures >= 12, SOON).await;
    let rounds = (begun.elapsed() + SOON).as_millis() / RETRY.as_millis();
    assert!(u128::from(failures) <= 4 * rounds, "{failures} calls in {:?}", begun.elapsed());
    for endpoint in Endpoint::ALL {
        assert_eq!(scene.stack.broker.calls(endpoint), 0);
    }
    scene.ends_well().await;
}
