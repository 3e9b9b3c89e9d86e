//! Nobody waits longer than a decision may take: for the broker, or for the policy.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attache_broker::envoy::LISTENER;
use attache_tests::envoy::Options;
use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::stack::Plan;
use attache_tests::{Envoy, FakeBroker, Response, Stack};
use serde_json::Value;

use super::{HOST, SLACK, TIMEOUT, lasting, placeholder, reason, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_too_slow_is_a_broker_that_does_not_answer() {
    let stack = start(Plan::default()).await;
    stack.broker.grant(lasting(60_000, 60_000));
    stack.broker.behave_next(Endpoint::Grants, [Behaviour::Delay(TIMEOUT + SLACK * 2)]);
    let begun = Instant::now();
    let answer = stack.get(HOST, "/", &placeholder(0)).await;
    let took = begun.elapsed();
    assert_eq!((answer.status, reason(&answer)), (503, "broker_unavailable".into()));
    assert!(took < TIMEOUT + SLACK, "{took:?}");
    println!("a slow broker: refused after {took:?}");
    assert!(stack.upstream().connections().is_empty());
    // What comes late is no answer to the next question.
    stack.broker.deny("credential_not_granted");
    let answer = stack.get(HOST, "/", &placeholder(0)).await;
    assert_eq!((answer.status, reason(&answer)), (403, "credential_not_granted".into()));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_before_the_policy_waits_for_it() {
    const LATE: Duration = Duration::from_millis(1_200);
    let (stack, bootstrap) = with_bootstrap().await;
    stack.broker.behave(Endpoint::Policy, Behaviour::Delay(LATE));
    let (answer, asked, took) = first_request(&stack, &bootstrap).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hit = stack.upstream().requests().pop().expect("a request");
    assert!(hit.at >= asked + LATE, "it went out {:?} after the policy was asked for", hit.at - asked);
    println!("the policy came {LATE:?} after it was asked for; the request was served after {took:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_never_comes_is_waited_for_no_longer_than_a_decision_takes() {
    let (stack, bootstrap) = with_bootstrap().await;
    for behaviour in [Behaviour::Status(503), Behaviour::Hang] {
        stack.broker.behave(Endpoint::Policy, behaviour);
        let (answer, _, took) = first_request(&stack, &bootstrap).await;
        assert_eq!((answer.status, reason(&answer)), (503, "policy_missing".into()), "{behaviour:?}");
        assert!(took < TIMEOUT + SLACK, "{behaviour:?}: {took:?}");
        println!("no policy ({behaviour:?}): refused after {took:?}");
    }
    assert!(stack.upstream().connections().is_empty());
    stack.reconcile().await;
}

/// A stack, and the bootstrap to start one more Envoy with.
async fn with_bootstrap() -> (Stack<FakeBroker>, Value) {
    let seen = Arc::new(Mutex::new(Value::Null));
    let copy = Arc::clone(&seen);
    let stack = start(Plan::default().edit(move |bootstrap| *copy.lock().unwrap() = bootstrap.clone())).await;
    stack.broker.grant(lasting(60_000, 60_000));
    let bootstrap = seen.lock().unwrap().take();
    (stack, bootstrap)
}

/// Starts an Envoy and sends it one request: the answer, when the policy was asked for, how long
/// the request took.
async fn first_request(stack: &Stack<FakeBroker>, bootstrap: &Value) -> (Response, Instant, Duration) {
    let before = stack.broker.calls(Endpoint::Policy);
    let envoy = Envoy::start(bootstrap, Options::default()).await;
    let proxy = envoy.addr(LISTENER).await;
    let begun = Instant::now();
    let bearer = format!("Bearer {}", placeholder(0));
    let answer = stack.agent().get(proxy, HOST, "/", &[("authorization", &bearer)]).await;
    let took = begun.elapsed();
    let asked = stack.broker.heard(Endpoint::Policy).get(before).map_or(begun, |call| call.at);
    // While this Envoy lives: it has records to deliver.
    stack.reconcile().await;
    (answer, asked, took)
}
