//! Leases and denials.

use std::time::{Duration, Instant};

use attache_tests::Latch;
use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::stack::{Plan, SOON};
use attache_tests::util::eventually;
use serde_json::json;

use super::{HOST, SLACK, Steady, lasting, placeholder, reason, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_over_when_it_arrives_is_never_used() {
    let stack = start(Plan::default()).await;
    stack.broker.grant(lasting(300, 300));
    stack.broker.behave(Endpoint::Grants, Behaviour::Delay(Duration::from_millis(400)));
    for _ in 0..2 {
        let asked = stack.broker.calls(Endpoint::Grants);
        let answer = stack.get(HOST, "/", &placeholder(0)).await;
        assert_eq!((answer.status, reason(&answer)), (503, "broker_unavailable".into()));
        // Anew while the decision may take time, one question after the other: 400 ms each, of 2 s.
        let anew = stack.broker.calls(Endpoint::Grants) - asked;
        assert!((2..=6).contains(&anew), "nothing of it is kept, and nothing asked in a hurry: {anew}");
    }
    assert!(stack.upstream().connections().is_empty());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_uses_a_lease_beyond_its_time_counted_from_the_question() {
    const TTL: Duration = Duration::from_millis(400);
    let stack = start(Plan::default()).await;
    // A refresh after the end is none: each lease ends, and the next is asked for by who needs it.
    stack.broker.grant(lasting(400, 9_000));
    // Half of the lease's time goes by on its way.
    stack.broker.behave(Endpoint::Grants, Behaviour::Delay(TTL / 2));
    let mut steady = Steady::default();
    while stack.broker.calls(Endpoint::Grants) < 6 {
        assert_eq!(steady.next(&stack, &placeholder(0)).await.status, 200);
    }
    let leases = steady.leases(&stack, TTL).await;
    assert!(leases.iter().all(Option::is_some) && leases.is_sorted(), "{leases:?}");
    let calls: Vec<_> = stack.broker.heard(Endpoint::Grants).iter().map(|call| call.at).collect();
    let spans: Vec<_> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    println!("a lease of {TTL:?}, answered after {:?}, was asked for anew after {spans:?}", TTL / 2);
    // Not before its time either: a refresh is a worker's own choice, and this lease has none.
    assert!(spans.iter().all(|span| *span + Duration::from_millis(20) > TTL), "{spans:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_grant_is_renewed_ahead_and_nobody_waits_for_it() {
    let stack = start(Plan::default().limit("callout_timeout: 10s")).await;
    stack.broker.grant(lasting(60_000, 100));
    let mut steady = Steady::default();
    assert_eq!(steady.next(&stack, &placeholder(0)).await.status, 200);
    let latch = Latch::default();
    stack.broker.answer_grants(latch.before(|_| lasting(60_000, 60_000).answer()));
    while stack.broker.calls(Endpoint::Grants) < 2 {
        assert_eq!(steady.next(&stack, &placeholder(0)).await.status, 200);
    }
    // The renewal hangs; requests pass with what there is, and do not ask once more.
    let old = steady.begun.len() + 20;
    while steady.begun.len() < old {
        assert_eq!(steady.next(&stack, &placeholder(0)).await.status, 200);
    }
    assert_eq!(stack.broker.calls(Endpoint::Grants), 2);
    let released = latch.release();
    let ttl = Duration::from_secs(60);
    while steady.leases(&stack, ttl).await.last() != Some(&Some(2)) {
        assert!(released.elapsed() < SOON);
        assert_eq!(steady.next(&stack, &placeholder(0)).await.status, 200);
    }
    let leases = steady.leases(&stack, ttl).await;
    assert!(leases[..old].iter().all(|lease| *lease == Some(1)), "{leases:?}");
    assert_eq!(stack.broker.calls(Endpoint::Grants), 2);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_is_tried_again_without_a_storm() {
    let stack = start(Plan::default()).await;
    stack.broker.grant(lasting(60_000, 1));
    assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
    stack.broker.behave(Endpoint::Grants, Behaviour::Status(503));
    let before = stack.broker.calls(Endpoint::Grants);
    let (begun, mut requests) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200, "the grant holds still");
        requests += 1;
    }
    let asked = stack.broker.calls(Endpoint::Grants) - before;
    println!("{requests} requests in a second, the renewal failing: asked {asked} times");
    assert!((1..=10).contains(&asked), "asked {asked} times in a second");
    stack.broker.behave(Endpoint::Grants, Behaviour::Ok);
    stack.broker.grant(lasting(60_000, 60_000));
    let after = stack.broker.calls(Endpoint::Grants);
    let back = Instant::now();
    while stack.broker.calls(Endpoint::Grants) == after {
        assert!(back.elapsed() < Duration::from_secs(2), "it does not ask again");
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_denied_ends_the_grant_at_once() {
    let stack = start(Plan::default()).await;
    stack.broker.grant(lasting(60_000, 1));
    assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
    stack.broker.deny("session_expired");
    let denied = Instant::now();
    loop {
        let answer = stack.get(HOST, "/", &placeholder(0)).await;
        if answer.status != 200 {
            assert_eq!((answer.status, reason(&answer)), (401, "session_expired".into()));
            break;
        }
        assert!(denied.elapsed() < SOON);
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_believed_for_two_seconds_at_most() {
    const MOST: Duration = Duration::from_secs(2);
    let stack = start(Plan::default()).await;
    stack.broker.deny("placeholder_unknown");
    let mut refused = stack.get(HOST, "/", &placeholder(0)).await;
    assert_eq!((refused.status, reason(&refused)), (401, "placeholder_unknown".into()));
    let asked = stack.broker.heard(Endpoint::Grants)[0].at;
    stack.broker.grant(lasting(60_000, 60_000));
    let mut n = 0;
    while refused.status != 200 {
        assert!(asked.elapsed() < MOST + SLACK, "believed for {:?}", asked.elapsed());
        refused = stack.get(HOST, "/", &placeholder(0)).await;
        n += 1;
    }
    println!("a denial was believed for {:?}, over {n} requests", asked.elapsed());
    assert_eq!(stack.broker.calls(Endpoint::Grants), 2, "it was believed, not asked for each time");
    assert!(n > 2);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_lifts_a_denial_at_once() {
    let stack = start(Plan::default()).await;
    stack.broker.deny("credential_not_granted");
    assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 403);
    stack.broker.grant(lasting(60_000, 60_000));
    let cursor = stack.broker.change(json!({"session_id": "some-session"}));
    eventually(SOON, || stack.broker.workers().values().filter(|heard| **heard >= cursor).count() == 2).await;
    assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
    stack.reconcile().await;
}
