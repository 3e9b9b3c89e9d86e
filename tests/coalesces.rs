//! However many requests ask the same question at once, the broker is asked once, and every
//! request that stays is answered.

use std::collections::BTreeSet;

use attache_tests::agent::{H2, H2Exchange, head};
use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::oracle::Audit;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::util::eventually;
use attache_tests::{FakeBroker, Latch, Reply, Response, Stack};
use serde_json::json;

const HOST: &str = "api.github.com";
/// What the bootstrap lets one HTTP/2 connection carry at once.
const STREAMS: usize = 100;
const ACTIVE: &str = "http.attache.downstream_rq_active";

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_cold_requests_are_one_callout() {
    granted_at_once(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_cold_requests_are_one_callout() {
    granted_at_once(2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_and_a_real_broker_have_one_issue_each() {
    const CONNECTIONS: usize = 40;
    const ROUNDS: usize = 3;
    let stack = Plan::default().workers(2).start().await;
    for round in 1..=ROUNDS {
        let name = format!("agent-{round}");
        stack.broker.json(&["session", "create", &name, "--credential", "github"]);
        let bearer = format!("Bearer {}", stack.placeholder(&name, "github"));
        // More connections than chance gives to one worker, and five requests on each, all at once.
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(stack.agent().h2(stack.proxy).await);
        }
        let mut exchanges = Vec::new();
        for at in 0..5 * CONNECTIONS {
            let head = head("GET", HOST, "/crowd", &[("authorization", &bearer)]);
            exchanges.push(connections[at % CONNECTIONS].start(head, true).await.expect("begun"));
        }
        for exchange in exchanges {
            assert_eq!(exchange.response(SOON).await.expect("an answer").status, 200);
        }
        let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
        let issued = audit.of_kind("issue").filter(|record| record.text("session") == name);
        let mut issued: Vec<_> = issued.map(|record| record.text("issued_to")).collect();
        issued.sort();
        let (all, distinct) = (issued.len(), issued.iter().collect::<BTreeSet<_>>().len());
        assert_eq!((all, distinct), (2, 2), "round {round}: {issued:?}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_counts_for_nothing_refuses_all_and_the_next_request_passes() {
    for (broken, status, reason) in [
        (json!({"granted": {"lease": {}}}), 503, "broker_unavailable"),
        (json!({}), 503, "broker_unavailable"),
        (json!({"denied": {"reason": "source_unavailable"}}), 503, "source_unavailable"),
    ] {
        let latch = Latch::default();
        let answer = broken.clone();
        let crowd = Crowd::gather(400, |broker| broker.answer_grants(latch.before(move |_| answer.clone())))
            .await
            .halve()
            .await;
        latch.release();
        let (stack, answers) = crowd.answers().await;
        assert_eq!(answers.len(), 200);
        for answer in answers {
            let said = answer.header("x-attache-reason");
            assert_eq!((answer.status, said.as_deref()), (status, Some(reason)), "{broken}");
        }
        assert_eq!(stack.broker.calls(Endpoint::Grants), 1, "{broken}");
        assert!(stack.upstream().requests().is_empty(), "{broken}");

        stack.broker.grant(grant());
        if status == 503 && reason == "source_unavailable" {
            // A denial is believed for a moment; a change lifts it.
            stack.broker.change(json!({"credential": "github"}));
        }
        let next = stack.placeholder();
        eventually_ok(&stack, &next).await;
        assert_eq!(stack.broker.calls(Endpoint::Grants), 2, "{broken}");
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_that_are_refused_at_once_are_each_told_why_and_on_record() {
    const N: usize = 2_000;
    let latch = Latch::default();
    let denied = json!({"denied": {"reason": "credential_not_granted"}});
    let crowd = Crowd::gather(N, |broker| broker.answer_grants(latch.before(move |_| denied.clone()))).await;
    latch.release();
    let (stack, answers) = crowd.answers().await;
    for answer in &answers {
        assert_eq!(answer.header("x-attache-reason").as_deref(), Some("credential_not_granted"), "{}", answer.status);
    }
    assert_eq!((answers.len(), stack.broker.calls(Endpoint::Grants)), (N, 1));
    stack.broker.wait_records(N, SOON).await;
    // The worker is the one that it was: it remembers the refusal.
    assert_eq!(stack.get(HOST, "/next", &stack.placeholder()).await.status, 403);
    assert_eq!(stack.broker.calls(Endpoint::Grants), 1);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_streams_that_end_at_once_are_each_told_why_and_on_record() {
    // Each has a connection to the upstream, with a TLS handshake.
    const N: usize = 600;
    let latch = Latch::default();
    let crowd = Crowd::gather(N, |broker| broker.answer_grants(latch.before(|_| grant().answer()))).await;
    crowd.stack.upstream().answer_with(|_| Reply::hang());
    latch.release();
    crowd.stack.upstream().wait_for(N, SOON).await;
    crowd.stack.broker.deny("session_expired");
    crowd.stack.broker.change(json!({"session_id": "session-1", "left": "nothing"}));
    let (stack, answers) = crowd.answers().await;
    for answer in &answers {
        assert_eq!(answer.header("x-attache-reason").as_deref(), Some("session_expired"), "{}", answer.status);
    }
    assert_eq!(answers.len(), N);
    stack.broker.wait_records(N, SOON).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_with_the_question_strands_nobody() {
    let crowd = Crowd::gather(200, |broker| broker.behave(Endpoint::Grants, Behaviour::Hang)).await.halve().await;
    crowd.stack.broker.refuse().await;
    let (stack, answers) = crowd.answers().await;
    assert!(answers.iter().all(|answer| answer.status == 503));
    assert_eq!(stack.broker.calls(Endpoint::Grants), 1);
    stack.broker.behave(Endpoint::Grants, Behaviour::Ok);
    stack.broker.accept().await;
    eventually_ok(&stack, &stack.placeholder()).await;
    assert_eq!(stack.upstream().wait_for(1, SOON).await.len(), 1);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_have_left_the_answer_serves_whoever_comes_next() {
    let latch = Latch::default();
    let mut crowd = Crowd::gather(100, |broker| broker.answer_grants(latch.before(|_| grant().answer()))).await;
    crowd.exchanges.drain(..).for_each(H2Exchange::reset);
    crowd.stack.envoy.wait_stat(ACTIVE, |active| active == 0, SOON).await;
    latch.release();
    eventually_ok(&crowd.stack, &crowd.stack.placeholder()).await;
    assert_eq!(crowd.stack.broker.calls(Endpoint::Grants), 1);
    assert_eq!(crowd.stack.upstream().wait_for(1, SOON).await.len(), 1);
    crowd.stack.reconcile().await;
}

async fn granted_at_once(n: usize) {
    let latch = Latch::default();
    let crowd = Crowd::gather(n, |broker| broker.answer_grants(latch.before(|_| grant().answer()))).await.halve().await;
    assert!(crowd.stack.upstream().requests().is_empty(), "before the grant");
    let released = latch.release();
    let (stack, answers) = crowd.answers().await;
    let stayed = answers.len();
    assert_eq!(stayed, n / 2);
    for answer in answers {
        assert_eq!(answer.status, 200, "{:?} {}", answer.fields, answer.text());
    }
    println!("{n} cold requests, {stayed} stayed: 1 callout, all answered {:?} after it", released.elapsed());
    assert_eq!(stack.broker.calls(Endpoint::Grants), 1);
    assert_eq!(stack.upstream().requests().len(), stayed, "no request of an agent that left");
    stack.broker.wait_records(n, SOON).await;
    stack.reconcile().await;
}

/// Cold requests, all held for one grant.
struct Crowd {
    stack: Stack<FakeBroker>,
    _connections: Vec<H2>,
    exchanges: Vec<H2Exchange>,
}

impl Crowd {
    /// `n` requests are held, their one callout is under way.
    async fn gather(n: usize, prepare: impl FnOnce(&FakeBroker)) -> Self {
        // More than a crowd takes to gather on a busy machine.
        let stack = Plan::default().limit("callout_timeout: 10s").start_with_fake().await;
        stack.broker.in_touch(2, SOON).await;
        prepare(&stack.broker);
        let bearer = format!("Bearer {}", stack.placeholder());
        let (mut connections, mut exchanges) = (Vec::new(), Vec::new());
        for at in 0..n {
            if at % STREAMS == 0 {
                connections.push(stack.agent().h2(stack.proxy).await);
            }
            let connection = connections.last_mut().expect("pushed before the first stream");
            let head = head("GET", HOST, "/crowd", &[("authorization", &bearer)]);
            exchanges.push(connection.start(head, true).await.expect("begun"));
        }
        stack.envoy.wait_stat(ACTIVE, |active| active == n as u64, SOON).await;
        eventually(SOON, || stack.broker.calls(Endpoint::Grants) == 1).await;
        Self { stack, _connections: connections, exchanges }
    }

    /// Every second request leaves, and Envoy knows it.
    async fn halve(mut self) -> Self {
        let mut staying = Vec::new();
        for (at, exchange) in self.exchanges.drain(..).enumerate() {
            if at % 2 == 0 { exchange.reset() } else { staying.push(exchange) }
        }
        self.stack.envoy.wait_stat(ACTIVE, |active| active == staying.len() as u64, SOON).await;
        Self { exchanges: staying, ..self }
    }

    /// What those who stayed are answered.
    async fn answers(self) -> (Stack<FakeBroker>, Vec<Response>) {
        let mut answers = Vec::new();
        for exchange in self.exchanges {
            answers.push(exchange.response(SOON).await.expect("an answer"));
        }
        (self.stack, answers)
    }
}

fn grant() -> Grant {
    // More than a crowd's records: none is refused for want of an acknowledgement.
    Grant { max_unacked_uses: 8_192, ..Grant::header("github", "authorization", &format!("Bearer {GITHUB}")) }
}

/// The next request that counts passes; one that comes before the worker has heard does not yet.
async fn eventually_ok(stack: &Stack<FakeBroker>, placeholder: &str) -> Response {
    let end = std::time::Instant::now() + SOON;
    loop {
        let answer = stack.get(HOST, "/next", placeholder).await;
        if answer.status == 200 {
            return answer;
        }
        assert!(std::time::Instant::now() < end, "{} {}", answer.status, answer.text());
    }
}
