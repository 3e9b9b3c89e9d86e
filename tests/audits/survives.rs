//! The broker dies under traffic and comes back: nothing that was on record is lost, nothing is
//! on record twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use attache_tests::oracle::Record;
use attache_tests::stack::{Plan, SOON};
use attache_tests::util;

use crate::{assert_gapless, of_requests, records};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_continues_its_log() {
    let stack = Plan::default().workers(2).start().await;
    let placeholder = stack.placeholder("writer", "github");
    let (stop, bearer) = (Arc::new(AtomicBool::new(false)), format!("Bearer {placeholder}"));
    let traffic: Vec<_> = (0..4)
        .map(|_| {
            let (agent, proxy, stop, bearer) = (stack.agent(), stack.proxy, Arc::clone(&stop), bearer.clone());
            tokio::spawn(async move {
                let (mut sent, mut connection) = (0, agent.h1(proxy).await);
                while !stop.load(Ordering::Relaxed) {
                    let headers = [("authorization", bearer.as_str())];
                    let answer = connection.request("GET", "api.github.com", "/user", &headers, b"").await;
                    let answer = answer.expect("every request is answered");
                    assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
                    sent += 1;
                }
                sent
            })
        })
        .collect();

    for _ in 0..2 {
        let before = of_requests(&records(&stack)).count();
        util::eventually(SOON, || of_requests(&records(&stack)).count() > before + 20).await;
        stack.broker.kill();
        let acknowledged = records(&stack);
        stack.broker.restart().await;
        let now = records(&stack);
        let same = |(old, new): (&Record, &Record)| old.json == new.json;
        assert!(now.len() > acknowledged.len() && acknowledged.iter().zip(&now).all(same), "what is on disk stays");
    }
    let before = of_requests(&records(&stack)).count();
    util::eventually(SOON, || of_requests(&records(&stack)).count() > before + 20).await;
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for worker in traffic {
        sent += worker.await.expect("no request is lost");
    }
    // The filter repeats what was not acknowledged: each request is on record once.
    util::eventually(SOON, || of_requests(&records(&stack)).count() >= sent).await;
    let all = records(&stack);
    assert_eq!(of_requests(&all).count(), sent);
    assert_gapless(&all);
    let starts = all.iter().filter(|record| record.text("kind") == "start").count();
    assert_eq!(starts, 3);
    assert_eq!(stack.broker.cli(&["audit", "verify"]).status.code(), Some(0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_record_is_put_aside_and_told() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    crate::with_requests(&stack, 1).await;
    stack.broker.kill();
    let path = crate::log(&stack);
    let whole = std::fs::read(&path).expect("a log");
    std::fs::write(&path, [&whole[..], br#"{"timestamp":"2026-"#].concat()).expect("a torn log");
    stack.broker.restart().await;
    let told = records(&stack).into_iter().find(|record| record.text("kind") == "gap").expect("a gap record");
    assert!(told.text("reason").contains("19 bytes of torn records"), "{}", told.json);
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    crate::with_requests(&stack, 2).await;
    assert_gapless(&records(&stack));
    stack.reconcile().await;
}
