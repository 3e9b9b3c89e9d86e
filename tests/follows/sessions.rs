//! Sessions: made, narrowed, widened, ended.

use std::time::{Duration, Instant};

use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, SOON};

use super::{Spread, applied_everywhere, session, start, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_session_is_refused_by_the_very_next_request_on_every_worker() {
    let stack = start(Plan::default()).await;
    let mut spread = Spread::open(&stack, &session(&stack, "agent", &[])).await;
    let mut took = Vec::new();
    for _ in 0..10 {
        spread.all("POST", "200").await;
        took.push(applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", "read-only"])));
        spread.all("POST", "read_only").await;
        spread.all("GET", "200").await;
        took.push(applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", "read-write"])));
    }
    spread.all("POST", "200").await;
    println!("access mode set, applied on 3/3 VMs, in ms: {took:?}");
    assert!(took.iter().all(|ms| *ms < 1_000), "{took:?}");

    let said = stack.broker.cli(&["session", "set-access-mode", "agent", "read-only"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.starts_with("agent is read-only: applied on 3/3 workers in ") && said.trim_end().ends_with(" ms"),
        "{said}"
    );
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_over_on_every_worker_and_no_other_is() {
    let stack = start(Plan::default()).await;
    let mut others = Spread::open(&stack, &stack.placeholder("reader", "github")).await;
    let mut took = Vec::new();
    for n in 0..5 {
        // A name is free again when its session is over; the placeholder is another.
        let mut spread = Spread::open(&stack, &session(&stack, "agent", &[])).await;
        took.push(applied_everywhere(&stack.broker.json(&["session", "revoke", "agent"])));
        spread.all("GET", "session_expired").await;
        others.all("GET", "200").await;
        spread.all("GET", "session_expired").await;
        assert!(!stack.broker.cli(&["session", "revoke", "agent"]).status.success(), "round {n}: it is gone");
    }
    println!("sessions revoked, applied on 3/3 VMs, in ms: {took:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_works_from_its_first_moment_to_its_last() {
    const TTL: Duration = Duration::from_millis(1_500);
    let stack = start(Plan::default()).await;
    let asked = Instant::now();
    let placeholder = session(&stack, "brief", &["--ttl", "1500ms"]);
    let made = Instant::now();
    let mut spread = Spread::open(&stack, &placeholder).await;
    let refused = loop {
        let begun = Instant::now();
        let answer = spread.ask(0, "GET", "/brief").await;
        if answer.status != 200 {
            assert_eq!(verdict(&answer), "session_expired");
            break Instant::now();
        }
        assert!(begun < made + TTL, "used after its end");
        assert!(made.elapsed() < SOON);
    };
    assert!(refused >= asked + TTL, "ended early");
    spread.all("GET", "session_expired").await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elevated_session_writes_on_every_worker_until_its_time_is_over_and_not_after() {
    const LENGTH: Duration = Duration::from_secs(4);
    let stack = start(Plan::default()).await;
    let placeholder = session(&stack, "agent", &["--access-mode", "read-only"]);
    let mut spread = Spread::open(&stack, &placeholder).await;
    spread.all("POST", "read_only").await;
    let asked = Instant::now();
    let done = stack.broker.json(&["session", "set-access-mode", "agent", "read-write", "--for", "4s"]);
    let told = Instant::now();
    applied_everywhere(&done);
    let mut written = 0;
    // What begins well before the end goes, on every connection in turn; what begins after it does not.
    loop {
        for connection in 0..spread.connections.len() {
            let begun = Instant::now();
            let answer = spread.try_ask(connection, "POST", "/elevated").await;
            let Some(answer) = answer.ok().filter(|answer| answer.complete) else {
                // What was open when the time was over went on no longer.
                assert!(begun < told + LENGTH && Instant::now() >= asked + LENGTH, "a write was cut in time");
                spread.connections[connection] = stack.agent().h1(stack.proxy).await;
                continue;
            };
            match verdict(&answer).as_str() {
                "200" => {
                    assert!(begun < told + LENGTH, "it wrote {:?} after the end", begun - (told + LENGTH));
                    written += 1;
                }
                "read_only" => assert!(Instant::now() >= asked + LENGTH, "it ended early"),
                other => panic!("{other}"),
            }
        }
        if told.elapsed() > LENGTH {
            break;
        }
    }
    assert!(written >= spread.connections.len(), "{written}");
    spread.all("POST", "read_only").await;
    spread.all("GET", "200").await;
    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    let edges: Vec<_> = audit.of_kind("mode").filter(|record| record.text("session") == "agent").collect();
    let edges: Vec<_> = edges.iter().map(|record| record.text("decision")).collect();
    assert_eq!(edges, ["create", "elevate", "revert"]);
    let live = stack.broker.json(&["feed", "workers"]);
    let live: Vec<_> = live.as_array().expect("a list").iter().filter(|worker| worker["live"] == true).collect();
    assert!(live.len() as u64 == super::VMS && live.iter().all(|worker| worker["behind"] == 0), "{live:?}");
    stack.reconcile().await;
}
