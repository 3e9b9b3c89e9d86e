//! Without the log nothing new is used; with the log back everything goes on by itself.

use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Response, util};
use tokio::time::Instant;

use crate::{assert_gapless, log, of_requests, records, with_requests};

fn reason(answer: &Response) -> (u16, String) {
    (answer.status, answer.header("x-attache-reason").unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_without_an_acknowledged_record_are_bounded() {
    let stack = Plan::default().start_with_fake().await;
    let grant = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
    stack.broker.grant(Grant { max_unacked_uses: 3, ..grant });
    stack.broker.behave(Endpoint::Audit, Behaviour::Status(503));
    let placeholder = stack.placeholder();
    for n in 0..3 {
        assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200, "use {n}");
    }
    for _ in 0..3 {
        let answer = stack.get("api.github.com", "/user", &placeholder).await;
        assert_eq!(reason(&answer), (503, "audit_backlog".into()), "{}", answer.text());
    }
    assert_eq!(stack.upstream().requests().len(), 3);

    stack.broker.behave(Endpoint::Audit, Behaviour::Ok);
    let end = Instant::now() + SOON;
    while stack.get("api.github.com", "/user", &placeholder).await.status != 200 {
        assert!(Instant::now() < end, "uses go on by themselves");
    }
    let sent = stack.site.oracle.agent().ledger().transcripts().len();
    let held = stack.broker.wait_records(sent, SOON).await;
    let numbers: Vec<u64> = held.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=held.len() as u64).collect::<Vec<_>>(), "nothing is lost, nothing twice");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_stops_uses_at_the_bound() {
    let stack = Plan::default().limit("max_unacked_uses: 3").start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    with_requests(&stack, 1).await;
    stack.broker.signal("STOP");
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(reason(&stack.get("api.github.com", "/user", &placeholder).await));
    }
    stack.broker.signal("CONT");
    let passed = answers.iter().take_while(|(status, _)| *status == 200).count();
    assert!(passed <= 3, "{answers:?}");
    assert!(answers[passed..].iter().all(|answer| *answer == (503, "audit_backlog".into())), "{answers:?}");
    assert_eq!(stack.upstream().requests().len(), 1 + passed);
    let end = Instant::now() + SOON;
    while stack.get("api.github.com", "/user", &placeholder).await.status != 200 {
        assert!(Instant::now() < end, "uses go on by themselves");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_lets_no_grant_leave() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "custom");
    assert_eq!(stack.get("api.custom.test", "/v1/x", &placeholder).await.status, 200);
    with_requests(&stack, 1).await;
    let written = records(&stack).len();
    // Somebody has moved the log away and put something else in its place.
    let (path, aside) = (log(&stack), stack.dir().join("aside"));
    std::fs::rename(&path, &aside).expect("a move");
    std::fs::create_dir(&path).expect("a directory");
    let cut = std::fs::OpenOptions::new().append(true).open(&aside).expect("the log");
    std::io::Write::write_all(&mut &cut, b"x").expect("a write");

    let github = stack.placeholder("writer", "github");
    let refused = stack.get("api.github.com", "/user", &github).await;
    assert_eq!(reason(&refused), (503, "broker_unavailable".into()), "{}", refused.text());
    assert_eq!(stack.upstream().requests().len(), 1, "what has no record does not leave");

    std::fs::remove_dir(&path).expect("ours");
    cut.set_len(cut.metadata().expect("a file").len() - 1).expect("a cut");
    std::fs::rename(&aside, &path).expect("a move");
    let end = Instant::now() + SOON;
    while stack.get("api.github.com", "/user", &github).await.status != 200 {
        assert!(Instant::now() < end, "grants leave again by themselves");
    }
    let sent = stack.agent().ledger().transcripts().len();
    util::eventually(SOON, || of_requests(&records(&stack)).count() == sent).await;
    let all = records(&stack);
    assert!(all[written..].iter().any(|record| record.text("kind") == "gap"), "and the log says that it was broken");
    assert_gapless(&all);
    stack.reconcile().await;
}
