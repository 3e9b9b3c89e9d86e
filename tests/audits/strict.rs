//! Where a credential's audit is strict, the log has each request before the upstream does.

use std::time::Duration;

use attache_core::refusal::Reason;
use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::oracle::Record;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::util::eventually;
use attache_tests::{Attache, FakeBroker, Latch, Stack, refusal};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{log, of_requests, records, with_requests};

const HOST: &str = "pay.extra.test";
const SECRET: &str = "sk_the-real-key-of-the-till-0123456789";
const PAY: &str = "{source: {file: pay}, inject: bearer, audit: strict, agent_env: {PAY_KEY: placeholder}, \
                   destinations: [{host: pay.extra.test, upstream: DIAL}]}";

/// A till beside the standard credentials: one strict credential, and a session for it.
fn plan() -> Plan {
    Plan::default().credential("pay", SECRET, PAY).session("{name: till, credentials: [pay]}")
}

fn till(stack: &Stack<Attache>) -> String {
    stack.broker.exported("till", "PAY_KEY")
}

fn intents(records: &[Record]) -> Vec<&Record> {
    records.iter().filter(|record| record.text("kind") == "intent").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_each_request_before_the_upstream_does() {
    let stack = plan().start().await;
    let placeholder = till(&stack);
    for n in 0..5 {
        let answer = stack.send("POST", HOST, &format!("/pay/{n}?card=4111"), &placeholder, b"{}").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let all = with_requests(&stack, 5).await;
    let hits = stack.upstream().requests();
    let announced = intents(&all);
    assert_eq!((hits.len(), announced.len()), (5, 5));
    for (n, (hit, intent)) in hits.iter().zip(&announced).enumerate() {
        assert_eq!(Some(intent.text("request_id")), hit.request_id());
        assert!(hit.witness_len.is_some_and(|length| intent.end <= length), "on disk before: {}", intent.json);
        let said = ["method", "authority", "path", "destination", "session", "credential", "intent"];
        let path = format!("/pay/{n}");
        let expected = ["POST", HOST, &path, "pay.extra.test:443", "till", "pay", &(n + 1).to_string()];
        assert_eq!(said.map(|name| intent.text(name)), expected);
        assert!(!intent.json.to_string().contains("4111"), "no query: {}", intent.json);
        let used = all.iter().filter(|record| record.text("kind") == "use");
        let used: Vec<_> = used.filter(|used| used.text("request_id") == intent.text("request_id")).collect();
        assert_eq!(used.len(), 1);
        let tied = |name: &str| used[0].text(name) == intent.text(name);
        assert!(tied("intent") && tied("lease_id") && used[0].text("worker") == intent.text("issued_to"));
    }
    let printed = stack.broker.cli(&["audit", "query", "--kind", "intent", "--json"]);
    assert_eq!(String::from_utf8_lossy(&printed.stdout).lines().count(), 5);
    assert_eq!(stack.broker.cli(&["audit", "verify"]).status.code(), Some(0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_not_strict_announces_nothing() {
    let stack = plan().start().await;
    let (github, pay) = (stack.placeholder("writer", "github"), till(&stack));
    for _ in 0..3 {
        assert_eq!(stack.get("api.github.com", "/user", &github).await.status, 200);
    }
    assert_eq!(stack.get(HOST, "/pay", &pay).await.status, 200);
    let all = with_requests(&stack, 4).await;
    let credentials: Vec<_> = intents(&all).iter().map(|intent| intent.text("credential")).collect();
    assert_eq!(credentials, ["pay"]);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_are_announced_one_by_one() {
    const MANY: usize = 200;
    let stack = plan().limit("callout_timeout: 10s").workers(2).start().await;
    let placeholder = till(&stack);
    let asks = (0..MANY).map(|n| {
        let (agent, proxy, bearer) = (stack.agent(), stack.proxy, format!("Bearer {placeholder}"));
        tokio::spawn(
            async move { agent.get(proxy, HOST, &format!("/pay/{n}"), &[("authorization", &bearer)]).await.status },
        )
    });
    for asked in asks.collect::<Vec<_>>() {
        assert_eq!(asked.await.expect("an answer"), 200);
    }
    let all = with_requests(&stack, MANY).await;
    let mut ids: Vec<_> = intents(&all).iter().map(|intent| intent.text("request_id")).collect();
    assert_eq!(ids.len(), MANY);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), MANY, "each of its own");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_nothing_goes_out_and_with_it_everything_again() {
    let stack = plan().start().await;
    let placeholder = till(&stack);
    assert_eq!(stack.get(HOST, "/before", &placeholder).await.status, 200);
    with_requests(&stack, 1).await;
    stack.broker.kill();
    // The grant is in the cache, and would do for any other credential.
    refusal::expect(&stack.get(HOST, "/killed", &placeholder).await, Reason::BrokerUnavailable);
    stack.broker.restart().await;
    goes_on(&stack, &placeholder).await;

    stack.broker.signal("STOP");
    let begun = Instant::now();
    let hung = stack.get(HOST, "/hung", &placeholder).await;
    let took = begun.elapsed();
    stack.broker.signal("CONT");
    refusal::expect(&hung, Reason::BrokerUnavailable);
    assert!(took >= Duration::from_millis(1_900) && took < Duration::from_secs(6), "bounded: {took:?}");
    goes_on(&stack, &placeholder).await;
    let paths: Vec<_> = stack.upstream().requests().iter().map(|hit| hit.path_text()).collect();
    assert_eq!(paths, ["/before", "/again", "/again"]);
    stack.reconcile().await;
}

/// What was refused while the broker was away is served again.
async fn goes_on(stack: &Stack<Attache>, placeholder: &str) {
    let end = Instant::now() + SOON;
    while stack.get(HOST, "/again", placeholder).await.status != 200 {
        assert!(Instant::now() < end, "it goes on by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_cannot_be_written_nothing_strict_goes_out() {
    let stack = plan().start().await;
    let placeholder = till(&stack);
    assert_eq!(stack.get(HOST, "/before", &placeholder).await.status, 200);
    with_requests(&stack, 1).await;
    let (path, aside) = (log(&stack), stack.dir().join("aside"));
    std::fs::rename(&path, &aside).expect("a move");
    std::fs::create_dir(&path).expect("a directory");
    let cut = std::fs::OpenOptions::new().append(true).open(&aside).expect("the log");
    std::io::Write::write_all(&mut &cut, b"x").expect("a write");

    for _ in 0..3 {
        refusal::expect(&stack.get(HOST, "/refused", &placeholder).await, Reason::AuditBacklog);
    }
    assert_eq!(stack.upstream().requests().len(), 1, "the grant alone does not do");

    std::fs::remove_dir(&path).expect("ours");
    cut.set_len(cut.metadata().expect("a file").len() - 1).expect("a cut");
    std::fs::rename(&aside, &path).expect("a move");
    goes_on(&stack, &placeholder).await;
    let sent = stack.agent().ledger().transcripts().len();
    eventually(SOON, || of_requests(&records(&stack)).count() == sent).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_worker_that_is_gone_exactly_the_uses_without_a_record_are_told_of() {
    let stack = plan().limit("stale_after: 2s").start().await;
    let placeholder = till(&stack);
    for _ in 0..3 {
        assert_eq!(stack.get(HOST, "/known", &placeholder).await.status, 200);
    }
    with_requests(&stack, 3).await;
    stack.upstream().answer_with(|_| attache_tests::upstream::Reply::hang());
    let mut agent = stack.agent().h1(stack.proxy).await;
    stack.site.oracle.excuse("GET /open");
    let head = format!("GET /open HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {placeholder}\r\n\r\n");
    agent.send(head).await.expect("sent");
    stack.upstream().wait_for(4, SOON).await;
    let killed = std::process::Command::new("kill").args(["-KILL", &stack.envoy.pid().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    let told = || records(&stack).into_iter().filter(|record| record.text("kind") == "unaccounted").collect::<Vec<_>>();
    eventually(SOON, || !told().is_empty()).await;
    // Whatever else there were would be told of together with it.
    let told = told();
    let said: Vec<_> = told.iter().map(|one| ["path", "count", "intent"].map(|name| one.text(name))).collect();
    assert_eq!(said, [["/open", "1", "4"]], "no lease, and none of those that have a record");
}

/// A stack whose grants are strict, with the broker's answers to intents held back.
async fn held_back(latch: &Latch) -> Stack<FakeBroker> {
    let stack = Plan::default().limit("callout_timeout: 10s").start_with_fake().await;
    stack.broker.in_touch(2, SOON).await;
    let grant = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
    stack.broker.grant(Grant { strict: true, ..grant });
    stack.broker.answer_intents(latch.before(|_| json!({"recorded": true})));
    stack
}

/// The `n`th intent is under way, and nothing has gone out.
async fn announced(stack: &Stack<FakeBroker>, n: usize) {
    eventually(SOON, || stack.broker.calls(Endpoint::Intents) == n).await;
    for _ in 0..2 {
        let answer = stack.agent().get(stack.proxy, "nowhere.test", "/", &[]).await;
        assert_eq!(answer.header("x-attache-reason").as_deref(), Some("host_not_allowed"));
    }
    assert_eq!(stack.upstream().connections().len(), 0, "not even a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_hold_until_the_intent_is_on_disk() {
    let latch = Latch::default();
    let stack = held_back(&latch).await;
    let bearer = format!("Bearer {}", stack.placeholder());
    let mut h1 = stack.agent().h1(stack.proxy).await;
    let host = "Host: api.github.com\r\nTransfer-Encoding: chunked";
    h1.send(format!("POST /h1 HTTP/1.1\r\n{host}\r\nAuthorization: {bearer}\r\n\r\n")).await.expect("sent");
    for chunk in [&b"first,"[..], b"second", b""] {
        h1.send_chunk(chunk).await.expect("sent");
    }
    let mut h2 = stack.agent().raw_h2(stack.proxy).await;
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/h2"),
        (":authority", "api.github.com"),
        ("authorization", &bearer),
        ("te", "trailers"),
    ];
    let stream = h2.headers(&fields, false).await;
    h2.data(stream, b"first,", false).await.expect("sent");
    h2.data(stream, b"second", false).await.expect("sent");
    h2.trailers(stream, &[("x-end", "last")]).await.expect("sent");
    announced(&stack, 2).await;

    let released = latch.release();
    assert_eq!(h1.response(SOON).await.expect("an answer").status, 200);
    assert_eq!(h2.response(stream, SOON).await.expect("an answer").status, 200);
    for hit in stack.upstream().requests() {
        assert!(hit.at >= released && &hit.body[..] == b"first,second", "{}", hit.path_text());
        let trailer = (hit.path_text() == "/h2").then_some("last");
        assert_eq!(hit.trailers.text("x-end").as_deref(), trailer);
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_held_leaves_an_intent_and_no_use() {
    let latch = Latch::default();
    let stack = held_back(&latch).await;
    let mut agent = stack.agent().h1(stack.proxy).await;
    let bearer = stack.placeholder();
    let head = format!("GET /left HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: Bearer {bearer}\r\n\r\n");
    agent.send(head).await.expect("sent");
    announced(&stack, 1).await;
    agent.abort();
    let left = || stack.broker.records().into_iter().find(|record| record["path"] == "/left");
    let record = attache_tests::util::eventually_some(SOON, left).await;
    let facts = |name: &str| record[name].clone();
    assert_eq!([facts("kind"), facts("reason"), facts("intent")], [json!("deny"), json!("aborted"), json!(1)]);
    latch.release();
    let answer = stack.get("api.github.com", "/stays", &bearer).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hits: Vec<_> = stack.upstream().requests().iter().map(|hit| hit.path_text()).collect();
    assert_eq!(hits, ["/stays"]);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_between_intent_and_answer_lets_nothing_go() {
    let latch = Latch::default();
    let stack = held_back(&latch).await;
    latch.release();
    stack.broker.behave_next(Endpoint::Intents, [Behaviour::Hang]);
    let begun = Instant::now();
    let (_, answer) = tokio::join!(
        async {
            announced(&stack, 1).await;
            stack.broker.refuse().await;
        },
        ask(&stack, "POST", "/held")
    );
    refusal::expect(&answer, Reason::BrokerUnavailable);
    assert!(begun.elapsed() < SOON, "as soon as it is known");
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.broker.accept().await;
    let end = Instant::now() + SOON;
    while ask(&stack, "POST", "/again").await.status != 200 {
        assert!(Instant::now() < end, "it goes on by itself");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_while_a_request_is_held_is_taken_from_it() {
    for (change, denied) in [
        (json!({"session_id": "session-1", "left": "nothing"}), Reason::SessionExpired),
        (json!({"credential": "github"}), Reason::CredentialNotGranted),
    ] {
        let latch = Latch::default();
        let stack = held_back(&latch).await;
        let held = ask(&stack, "POST", "/held");
        let (_, answer) = tokio::join!(
            async {
                announced(&stack, 1).await;
                stack.broker.deny(denied.as_str());
                applied(&stack, stack.broker.change(change.clone())).await;
                latch.release();
            },
            held
        );
        refusal::expect(&answer, denied);
        assert_eq!(stack.upstream().requests().len(), 0, "{change}");
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_only_reads_meanwhile_and_another_lease_take_a_decision_of_their_own() {
    let latch = Latch::default();
    let stack = held_back(&latch).await;
    let (_, written, read) = tokio::join!(
        async {
            announced(&stack, 2).await;
            let grant = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
            stack.broker.grant(Grant { strict: true, access_mode: "read-only".into(), ..grant });
            applied(&stack, stack.broker.change(json!({"session_id": "session-1", "left": "reads"}))).await;
            latch.release();
        },
        ask(&stack, "POST", "/written"),
        ask(&stack, "GET", "/read")
    );
    refusal::expect(&written, Reason::ReadOnly);
    assert_eq!(read.status, 200, "{}", read.text());
    let announced = stack.broker.heard(Endpoint::Intents);
    let said = |call: &attache_tests::fake_broker::Call| -> Value { serde_json::from_slice(&call.body).expect("JSON") };
    let read: Vec<_> = announced.iter().map(said).filter(|intent| intent["path"] == "/read").collect();
    assert_eq!(read.len(), 2, "another lease, another intent");
    assert!(read[0]["lease_id"] != read[1]["lease_id"] && read[0]["intent"] == read[1]["intent"], "{read:?}");
    stack.reconcile().await;
}

async fn ask(stack: &Stack<FakeBroker>, method: &str, path: &str) -> attache_tests::Response {
    stack.send(method, "api.github.com", path, &stack.placeholder(), b"").await
}

/// Every VM has acknowledged the change.
async fn applied(stack: &Stack<FakeBroker>, cursor: u64) {
    eventually(SOON, || stack.broker.workers().values().all(|heard| *heard >= cursor)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_to_this_intent_lets_nothing_go() {
    let latch = Latch::default();
    let stack = held_back(&latch).await;
    latch.release();
    assert_eq!(ask(&stack, "GET", "/first").await.status, 200);
    for behaviour in [
        Behaviour::WrongNonce,
        Behaviour::Status(503),
        Behaviour::RightUnder(500),
        Behaviour::AsText,
        Behaviour::Html200,
        Behaviour::Truncated,
        Behaviour::DuplicateKeys,
        Behaviour::WrongType,
        Behaviour::UnknownMember,
        Behaviour::Close,
        Behaviour::Garbage,
    ] {
        stack.broker.behave_next(Endpoint::Intents, [behaviour]);
        let answer = ask(&stack, "GET", "/refused").await;
        assert_eq!((answer.status, answer.header("x-attache-reason").as_deref()), (503, Some("broker_unavailable")));
    }
    let hits: Vec<_> = stack.upstream().requests().iter().map(|hit| hit.path_text()).collect();
    assert_eq!(hits, ["/first"]);
    stack.reconcile().await;
}
