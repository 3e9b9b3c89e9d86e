//! An agent that leaves, whenever it does, takes nothing and nobody with it.

use std::time::Duration;

use attache_tests::agent::head;
use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::stack::SOON;
use attache_tests::util::eventually;
use attache_tests::{FakeBroker, Latch, Stack};
use serde_json::Value;

use super::{HOST, bearer, fence, placeholder, plan, start};

/// Where an agent is when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// It breaks its connection.
    Http1,
    /// It resets its stream.
    Http2,
}

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test(flavor = "multi_thread")]
async fn before_the_callout_there_is_nothing_to_undo() {
    let stack = start(plan()).await;
    // Half a head; and half a body before the judge, which asks nobody.
    for sent in ["GET / HTTP/1.1\r\nHost: api.gith", &batch("Content-Length: 100\r\n\r\n{\"operation\":")] {
        let mut agent = stack.agent().h1(stack.proxy).await;
        agent.send(sent).await.expect("sent");
        fence(&stack).await;
        agent.abort();
    }
    still_well(&stack, 3).await;
    assert_eq!(stack.broker.calls(Endpoint::Grants), 1, "the last request's own");
    assert_eq!(stack.upstream().requests().len(), 1);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_callout_nothing_goes_out_and_the_grant_is_kept_for_the_next() {
    let stack = start(plan()).await;
    let workers = stack.broker.workers();
    for (n, protocol) in (0..).zip(BOTH) {
        let latch = Latch::default();
        stack.broker.answer_grants(latch.before(|_| bearer().answer()));
        let leave = begin(protocol, &stack, "/left", n).await;
        eventually(SOON, || stack.broker.calls(Endpoint::Grants) == usize::from(n) + 1).await;
        leave();
        // Envoy has seen it go when its record is there.
        let record = deny(&stack, n.into()).await;
        assert_eq!((&record["reason"], &record["auth_injected"]), (&"aborted".into(), &false.into()), "{protocol:?}");
        latch.release();
        still_well(&stack, n).await;
        assert_eq!(stack.broker.calls(Endpoint::Grants), usize::from(n) + 1, "{protocol:?}: granted already");
    }
    fence(&stack).await;
    let paths: Vec<_> = stack.upstream().requests().iter().map(|hit| hit.path_text()).collect();
    assert_eq!(paths, ["/well", "/well"]);
    let forwards = stack.broker.wait_records(4, SOON).await;
    let forwards: Vec<_> = forwards.iter().filter(|record| record["decision"] == "forward").collect();
    assert!(forwards.len() == 2 && forwards.iter().all(|record| record["path"] == "/well"), "{forwards:#?}");
    assert_eq!(stack.broker.workers().len(), workers.len(), "no VM died");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_verdict_the_use_is_on_record() {
    let stack = start(plan()).await;
    for (n, protocol) in (0..).zip(BOTH) {
        let leave = begin(protocol, &stack, "/hang", n).await;
        let seen = 2 * usize::from(n) + 1;
        eventually(SOON, || stack.upstream().requests().len() == seen).await;
        leave();
        let all = stack.broker.wait_records(seen, SOON).await;
        let record = &all[seen - 1];
        assert_eq!((&record["decision"], &record["path"]), (&"forward".into(), &"/hang".into()), "{protocol:?}");
        assert_eq!(record["response_code"], 0, "{protocol:?}");
        still_well(&stack, n).await;
        stack.broker.wait_records(seen + 1, SOON).await;
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_agents_that_leave_strands_none_that_stay() {
    const LEAVING: usize = 60;
    let stack = start(plan()).await;
    stack.broker.behave(Endpoint::Grants, Behaviour::Delay(Duration::from_millis(5)));
    for round in 0..5 {
        let mut leaving = Vec::new();
        for n in 0..LEAVING {
            let protocol = BOTH[n % 2];
            leaving.push(begin(protocol, &stack, "/left", (round * LEAVING + n) as u8).await);
        }
        leaving.into_iter().for_each(|leave| leave());
        still_well(&stack, round as u8).await;
    }
    stack.reconcile().await;
}

/// Sends a request and returns what ends it.
async fn begin(protocol: Protocol, stack: &Stack<FakeBroker>, path: &str, n: u8) -> Box<dyn FnOnce() + Send> {
    let bearer = format!("Bearer {}", placeholder(n));
    match protocol {
        Protocol::Http1 => {
            let mut agent = stack.agent().h1(stack.proxy).await;
            let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {bearer}\r\n\r\n");
            agent.send(head).await.expect("sent");
            Box::new(|| agent.abort())
        }
        Protocol::Http2 => {
            let mut agent = stack.agent().h2(stack.proxy).await;
            let head = head("GET", HOST, path, &[("authorization", &bearer)]);
            let exchange = agent.start(head, false).await.expect("begun");
            Box::new(|| {
                exchange.reset();
                // The connection stays until the reset has been written.
                tokio::spawn(async move {
                    tokio::time::sleep(SOON).await;
                    drop(agent);
                });
            })
        }
    }
}

/// The worker serves, and its VM is the one it was.
async fn still_well(stack: &Stack<FakeBroker>, n: u8) {
    let answer = stack.get(HOST, "/well", &placeholder(n)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!stack.envoy.log().contains("wasm failed"), "{}", stack.envoy.log());
}

/// The `n`th record of a refusal.
async fn deny(stack: &Stack<FakeBroker>, n: usize) -> Value {
    let denied = || stack.broker.records().into_iter().filter(|record| record["kind"] == "deny").nth(n);
    attache_tests::util::eventually_some(SOON, denied).await
}

/// A batch request of git LFS, up to where `rest` begins.
fn batch(rest: &str) -> String {
    let bearer = placeholder(9);
    format!(
        "POST /o/r/info/lfs/objects/batch HTTP/1.1\r\nHost: github.com\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/vnd.git-lfs+json\r\n{rest}"
    )
}
