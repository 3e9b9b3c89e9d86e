//! A broker that fails, in each way there is: every answer that is not the right one refuses.

use attache_core::refusal::Reason;
use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Attache, FakeBroker, Stack, util};
use serde_json::{Value, json};

use crate::scene::{DECISION, RECOVERY, SLACK, Scene};

const MB: usize = 1 << 20;

async fn fake() -> Scene<FakeBroker> {
    Scene::of(Plan::default().start_with_fake().await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_refuses_and_the_next_right_one_serves() {
    let scene = fake().await;
    let broker = &scene.stack.broker;
    for fault in [
        Behaviour::Close,
        Behaviour::Reset,
        Behaviour::Status(500),
        Behaviour::Status(503),
        Behaviour::Status(429),
        Behaviour::Status(404),
        Behaviour::Status(401),
        Behaviour::Status(204),
        Behaviour::Status(304),
        Behaviour::RightUnder(201),
        Behaviour::RightUnder(206),
        Behaviour::RightUnder(404),
        Behaviour::RightUnder(500),
        Behaviour::Redirect302,
        Behaviour::Html200,
        Behaviour::AsText,
        Behaviour::Truncated,
        Behaviour::Garbage,
        Behaviour::ZeroHeaders,
        Behaviour::WrongNonce,
        Behaviour::DuplicateKeys,
        Behaviour::UnknownMember,
        Behaviour::WrongType,
        Behaviour::ExpiredLease,
        Behaviour::Oversized(20 * MB),
        Behaviour::Oversized(200 * MB),
    ] {
        let calls = broker.calls(Endpoint::Grants);
        broker.behave(Endpoint::Grants, fault);
        scene.refuses(Reason::BrokerUnavailable, &format!("{fault:?}")).await;
        assert_eq!(broker.calls(Endpoint::Grants), calls + 1, "{fault:?}: asked again");
        broker.behave(Endpoint::Grants, Behaviour::Ok);
        scene.serves(&format!("{fault:?}")).await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_refuses_within_the_bound_of_a_decision() {
    let scene = fake().await;
    let broker = &scene.stack.broker;
    let silences = [
        Behaviour::Hang,
        Behaviour::Delay(DECISION + RECOVERY),
        Behaviour::HeadersOnly,
        Behaviour::Announced(200 * MB),
    ];
    broker.behave_next(Endpoint::Grants, silences);
    tokio::join!(
        scene.refuses(Reason::BrokerUnavailable, "one silence"),
        scene.refuses(Reason::BrokerUnavailable, "another"),
        scene.refuses(Reason::BrokerUnavailable, "a third"),
        scene.refuses(Reason::BrokerUnavailable, "a fourth"),
    );
    assert_eq!(broker.calls(Endpoint::Grants), silences.len());
    scene.serves("silence").await;
    scene.ends_well().await;
}

/// A grant that fits its type, or nearly, and still must not be used.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_contradicts_itself_refuses() {
    let scene = fake().await;
    let good = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
    let header = |name: &str, value: &str| json!([{"header": name, "value": value}]);
    let unavailable = [
        ("no injection", "/injections", json!([])),
        ("a line break in the value", "/injections", header("authorization", "a\r\nb: c")),
        ("a line feed in the value", "/injections", header("authorization", "a\nb")),
        ("NUL in the value", "/injections", header("authorization", "a\0b")),
        ("not ASCII in the value", "/injections", header("authorization", "é")),
        ("an empty value", "/injections", header("authorization", "")),
        ("a header nobody bound", "/injections", header("x-elsewhere", "v")),
        ("a pseudo-header", "/injections", header(":path", "/elsewhere")),
        ("an upper-case header", "/injections", header("Authorization", "v")),
        ("a header name with a line break", "/injections", header("a\r\nb", "v")),
        ("an empty header name", "/injections", header("", "v")),
        ("header and query at once", "/injections/0/query", json!("key")),
        ("neither header nor query", "/injections", json!([{"value": "v"}])),
        ("another header alone", "/injections/0/header", json!("x-api-key")),
        ("a parameter nobody bound", "/injections", json!([{"query": "key", "value": "v"}])),
        ("a parameter that ends itself", "/injections/1", json!({"query": "key", "value": "a&b=c"})),
        ("injections of another type", "/injections", json!({})),
        ("a value that is no text", "/injections/0/value", json!(1)),
        ("an unknown member", "/injections/0/url", json!("/")),
        ("a lease of no time", "/lease/ttl_ms", json!(0)),
        ("a lease of negative time", "/lease/ttl_ms", json!(-1)),
        ("a lease for ever", "/lease/ttl_ms", json!(u64::MAX)),
        ("a lease of half a millisecond", "/lease/ttl_ms", json!(0.5)),
        ("no lease", "/lease", Value::Null),
        ("no session", "/session", Value::Null),
        ("a session's name that is none", "/session", json!("../a b")),
        ("no session id", "/session_id", Value::Null),
        ("no credential", "/credential", Value::Null),
        ("no access mode", "/access_mode", Value::Null),
        ("an access mode nobody knows", "/access_mode", json!("root")),
        ("a negative bound of uses", "/max_unacked_uses", json!(-1)),
    ];
    let unavailable = unavailable.map(|(fault, at, value)| (fault, at, value, Reason::BrokerUnavailable));
    let others = [
        ("no use at all", "/max_unacked_uses", json!(0), Reason::AuditBacklog),
        ("a credential not bound here", "/credential", json!("custom"), Reason::CredentialNotGranted),
        ("a credential nobody knows", "/credential", json!("nobody"), Reason::CredentialNotGranted),
    ];
    for (fault, at, value, reason) in unavailable.into_iter().chain(others) {
        let mut answer = good.answer();
        put(&mut answer["granted"], at, value);
        scene.stack.broker.answer_grants(move |_| answer.clone());
        scene.refuses(reason, fault).await;
    }
    for (fault, answer) in [
        ("neither granted nor denied", json!({})),
        ("granted and denied", json!({"granted": good.answer()["granted"], "denied": {"reason": "session_expired"}})),
        ("denied for a reason nobody knows", json!({"denied": {"reason": "whim"}})),
        ("denied for no reason", json!({"denied": {}})),
    ] {
        scene.stack.broker.answer_grants(move |_| answer.clone());
        scene.refuses(Reason::BrokerUnavailable, fault).await;
    }
    scene.stack.broker.grant(good);
    scene.serves("all that").await;
    scene.ends_well().await;
}

/// Puts a value where the pointer says, in an object or at an array's end; null takes it out.
fn put(json: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    match json.pointer_mut(parent).expect("the place is there") {
        Value::Array(items) => items.push(value),
        Value::Object(members) if value.is_null() => drop(members.remove(last)),
        Value::Object(members) => drop(members.insert(last.to_owned(), value)),
        other => panic!("{other} holds nothing"),
    }
}

/// Without memory to show for it: an answer that never ends is cut off, not kept.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_not_kept_in_memory() {
    let scene = fake().await;
    scene.serves("nothing").await;
    let pid = scene.stack.envoy.pid();
    let before = forget_peak(pid);
    for _ in 0..4 {
        scene.stack.broker.behave_next(Endpoint::Grants, [Behaviour::Oversized(200 * MB)]);
        scene.refuses(Reason::BrokerUnavailable, "200 MB").await;
    }
    let grown = peak(pid).saturating_sub(before);
    assert!(grown < 150 * MB, "Envoy has grown by {} MB", grown / MB);
    scene.serves("too much").await;
    scene.ends_well().await;
}

/// The most memory that a process has held, in bytes (proc_pid_status(5)).
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kB");
    kilobytes * 1024
}

/// Lets the peak begin at what the process holds now (proc_pid_clear_refs(5)); how much that is.
fn forget_peak(pid: u32) -> usize {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of ours");
    peak(pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_in_the_middle_of_a_callout_refuses_at_once() {
    let scene = fake().await;
    let broker = &scene.stack.broker;
    broker.behave(Endpoint::Grants, Behaviour::Hang);
    let killed = async {
        util::eventually(SOON, || broker.calls(Endpoint::Grants) == 3).await;
        broker.refuse().await;
    };
    let refused = |which| scene.refuses(Reason::BrokerUnavailable, which);
    let (.., ()) = tokio::join!(refused("one"), refused("two"), refused("three"), killed);
    scene.refuses(Reason::BrokerUnavailable, "a closed port").await;
    broker.behave(Endpoint::Grants, Behaviour::Ok);
    broker.new_epoch();
    broker.accept().await;
    scene.recovers("a closed port").await;
    // The feed, too, is back by itself: a change is heard.
    let cursor = broker.change(json!({"credential": "github"}));
    util::eventually(RECOVERY + SLACK, || broker.workers().values().any(|heard| *heard == cursor)).await;
    scene.ends_well().await;
}

/// The real broker, killed and stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_stopped_broker_refuses_and_comes_back_without_help() {
    let scene = Scene::of(Plan::default().start().await).await;
    let Stack { broker, .. } = &scene.stack;
    let [writer, reader] = ["writer", "reader"].map(|session| scene.stack.placeholder(session, "github"));

    // Idle, and killed: who has a grant keeps it for as long as the filter may believe it.
    assert_eq!(scene.ask_as(&writer).await.status, 200);
    broker.kill();
    assert_eq!(scene.ask_as(&writer).await.status, 200);
    scene.refuses_at("api.github.com", &reader, Reason::BrokerUnavailable, "killed").await;
    broker.restart().await;
    scene.recovers_at("api.github.com", &reader, "a restart").await;

    // Stopped, and continued.
    stop(broker).await;
    scene.refuses_at("uploads.github.com", &writer, Reason::BrokerUnavailable, "stopped").await;
    broker.signal("CONT");
    scene.recovers_at("uploads.github.com", &writer, "being continued").await;

    // Killed in the middle of a callout. Without one, only the feeds of the worker and of the main
    // thread are under way.
    const FEEDS: u64 = 2;
    let active = "cluster.attache_broker.upstream_rq_active";
    uses_are_recorded(&scene.stack, scene.sent()).await;
    scene.stack.envoy.wait_stat(active, |calls| calls == FEEDS, SOON).await;
    stop(broker).await;
    let killed = async {
        scene.stack.envoy.wait_stat(active, |calls| calls == FEEDS + 1, SOON).await;
        broker.kill();
    };
    tokio::join!(scene.refuses_at("github.com", &writer, Reason::BrokerUnavailable, "killed meanwhile"), killed);
    broker.restart().await;
    scene.recovers_at("github.com", &writer, "a restart").await;
    scene.ends_well().await;
}

/// Stops the process, and waits until every thread of it stands.
async fn stop(broker: &Attache) {
    broker.signal("STOP");
    util::eventually(SOON, || util::stands(broker.pid())).await;
}

async fn uses_are_recorded(stack: &Stack<Attache>, uses: usize) {
    let log = stack.dir().join("state/default/audit.jsonl");
    let recorded = || std::fs::read_to_string(&log).unwrap_or_default().matches(r#""kind":"use""#).count();
    util::eventually(SOON, || recorded() == uses).await;
}
