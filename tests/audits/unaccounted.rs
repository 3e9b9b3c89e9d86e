//! What a worker took along when it died is told of, at its most.

use attache_tests::oracle::Record;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Stack, util};
use tokio::time::Instant;

use crate::{records, with_requests};

fn unaccounted(stack: &Stack<Attache>) -> Vec<Record> {
    records(stack).into_iter().filter(|record| record.text("kind") == "unaccounted").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_is_killed_under_use_is_told_of_within_the_staleness_limit() {
    let stack = Plan::default().limit("stale_after: 2s").limit("max_unacked_uses: 70").start().await;
    let (writer, reader) = (stack.placeholder("writer", "github"), stack.placeholder("reader", "github"));
    for placeholder in [&writer, &reader, &writer] {
        assert_eq!(stack.get("api.github.com", "/user", placeholder).await.status, 200);
    }
    let all = with_requests(&stack, 3).await;
    let issues: Vec<_> = all.iter().filter(|record| record.text("kind") == "issue").collect();
    assert!(!issues.is_empty() && unaccounted(&stack).is_empty(), "as long as it lives, it may tell itself");

    let killed = std::process::Command::new("kill").args(["-KILL", &stack.envoy.pid().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    let began = Instant::now();
    util::eventually(SOON, || unaccounted(&stack).len() >= issues.len()).await;
    assert!(began.elapsed().as_millis() > 1000, "a worker that is late is not dead yet");
    let told = unaccounted(&stack);
    let facts = |record: &Record| {
        ["lease_id", "issued_to", "session", "session_id", "credential", "destination", "fingerprint"]
            .map(|field| record.text(field))
    };
    let (mut were, mut are): (Vec<_>, Vec<_>) =
        (issues.iter().map(|r| facts(r)).collect(), told.iter().map(facts).collect());
    were.sort();
    are.sort();
    assert_eq!(were, are, "one for each lease");
    for record in &told {
        assert_eq!(record.text("count"), "70");
        let said = format!("at most 70 uses of lease {} have no record", record.text("lease_id"));
        assert!(record.text("reason").contains(&said), "{}", record.json);
    }

    // Told once, whatever becomes of the broker.
    stack.broker.restart().await;
    let since = Instant::now();
    util::eventually(SOON, || since.elapsed().as_secs() >= 4).await;
    assert_eq!(unaccounted(&stack).len(), told.len());
    assert_eq!(stack.broker.cli(&["audit", "verify"]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_outlive_a_broker_are_not_told_of_and_those_that_do_not_are() {
    let stack = Plan::default().limit("stale_after: 2s").start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    with_requests(&stack, 1).await;
    stack.broker.restart().await;
    let since = Instant::now();
    util::eventually(SOON, || since.elapsed().as_secs() >= 4).await;
    assert_eq!(unaccounted(&stack).len(), 0, "its workers have found the next life");

    // Envoy dies while no broker lives: the next one knows from the log.
    let issued = records(&stack).iter().filter(|record| record.text("kind") == "issue").count();
    stack.broker.kill();
    let killed = std::process::Command::new("kill").args(["-KILL", &stack.envoy.pid().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    stack.broker.restart().await;
    util::eventually(SOON, || unaccounted(&stack).len() == issued).await;
}
