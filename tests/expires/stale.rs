//! A worker out of touch believes nothing that it remembers, and is well again by itself.

use std::time::{Duration, Instant};

use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::stack::{Plan, SOON};
use attache_tests::{FakeBroker, Stack};

use super::{HOST, SLACK, TIMEOUT, lasting, placeholder, reason, start};

/// The shortest there is.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How soon a worker is well again after the broker is.
const RECOVERY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_feed_every_request_asks_and_without_a_broker_it_says_stale() {
    let stack = warm().await;
    let hung = out_of_touch(&stack).await;
    println!("cached grants were misses {hung:?} after the last answered poll was sent");
    for _ in 0..3 {
        let before = stack.broker.calls(Endpoint::Grants);
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200, "asked now, believed now");
        assert_eq!(stack.broker.calls(Endpoint::Grants), before + 1, "and not remembered");
    }
    stack.broker.behave(Endpoint::Grants, Behaviour::Status(503));
    let answer = stack.get(HOST, "/", &placeholder(0)).await;
    assert_eq!((answer.status, reason(&answer)), (503, "stale".into()));
    stack.broker.behave(Endpoint::Grants, Behaviour::Hang);
    let begun = Instant::now();
    let answer = stack.get(HOST, "/", &placeholder(0)).await;
    assert_eq!((answer.status, reason(&answer)), (503, "stale".into()));
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());

    stack.broker.behave_all(Behaviour::Ok);
    let (served, remembered) = recovery(&stack).await;
    println!("after a hang: served again after {served:?}, cache believed again after {remembered:?}");
    // The poll that hung must time out first: a third of the limit, and the callout's time.
    assert!(served < RECOVERY && remembered < STALE_AFTER / 3 + TIMEOUT + SLACK);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_connections_makes_it_stale_too_and_is_found_again() {
    let stack = warm().await;
    stack.broker.refuse().await;
    let gone = Instant::now();
    loop {
        let answer = stack.get(HOST, "/", &placeholder(0)).await;
        if answer.status == 503 {
            assert_eq!(reason(&answer), "stale");
            break;
        }
        assert!(gone.elapsed() < STALE_AFTER + SLACK, "believed for {:?}", gone.elapsed());
    }
    stack.broker.accept().await;
    let (served, remembered) = recovery(&stack).await;
    println!("after a refusal: served again after {served:?}, cache believed again after {remembered:?}");
    assert!(served < RECOVERY && remembered < RECOVERY);
    stack.reconcile().await;
}

async fn warm() -> Stack<FakeBroker> {
    let stack = start(Plan::default().limit("stale_after: 1s")).await;
    stack.broker.grant(lasting(600_000, 600_000));
    for _ in 0..3 {
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
    }
    assert_eq!(stack.broker.calls(Endpoint::Grants), 1);
    stack
}

/// Hangs the feed and waits until a request asks anew; how long after the last poll that was
/// answered. Requests begun before that moment may pass with what is cached, none after it.
async fn out_of_touch(stack: &Stack<FakeBroker>) -> Duration {
    stack.broker.behave(Endpoint::Changes, Behaviour::Hang);
    let worker = stack.broker.heard(Endpoint::Grants)[0].body.clone();
    let worker: serde_json::Value = serde_json::from_slice(&worker).expect("a request for a grant");
    let worker = format!("worker={}&", worker["worker"].as_str().expect("a worker"));
    let begun = Instant::now();
    loop {
        let asking = Instant::now();
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
        let polls = stack.broker.heard(Endpoint::Changes);
        // The last is under way, or hangs.
        let polls: Vec<_> = polls.iter().filter(|poll| poll.target.contains(&worker)).map(|poll| poll.at).collect();
        let answered = polls[polls.len().saturating_sub(2)];
        if stack.broker.calls(Endpoint::Grants) > 1 {
            return asking - answered;
        }
        assert!(asking < answered + STALE_AFTER, "believed {:?} after the last answered poll", asking - answered);
        assert!(begun.elapsed() < SOON);
    }
}

/// How soon a request is served, and how soon the cache is believed, from now on.
async fn recovery(stack: &Stack<FakeBroker>) -> (Duration, Duration) {
    let back = Instant::now();
    while stack.get(HOST, "/", &placeholder(0)).await.status != 200 {
        assert!(back.elapsed() < SOON, "never served again");
    }
    let served = back.elapsed();
    loop {
        let before = stack.broker.calls(Endpoint::Grants);
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
        if stack.broker.calls(Endpoint::Grants) == before {
            return (served, back.elapsed());
        }
        assert!(back.elapsed() < SOON, "never fresh again");
    }
}
