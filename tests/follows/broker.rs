//! The broker dies and comes back; workers die and do not.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attache_broker::envoy::LISTENER;
use attache_tests::envoy::Options;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Envoy, util};
use serde_json::Value;

use super::{HOST, Spread, VMS, all_in_touch, applied_everywhere, issued_to, session, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_is_followed_again() {
    let stack = start(Plan::default().limit("stale_after: 3s")).await;
    let mut spread = Spread::open(&stack, &session(&stack, "agent", &[])).await;
    let issued = issued_to(&stack).len();
    stack.broker.kill();
    spread.all("GET", "200").await;
    let begun = Instant::now();
    stack.broker.restart().await;
    let up = begun.elapsed();
    all_in_touch(&stack).await;
    println!("broker up after {up:?}, all feeds back after {:?}", begun.elapsed());
    // Another life, another epoch: what was granted before is asked for again.
    spread.all("GET", "200").await;
    let again: std::collections::BTreeSet<_> = issued_to(&stack).drain(issued..).collect();
    assert_eq!(again.len(), 2, "each worker has asked again");
    applied_everywhere(&stack.broker.json(&["session", "revoke", "agent"]));
    spread.all("GET", "session_expired").await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_changed_is_said_to_be_in_force_on_every_worker() {
    let stack = start(Plan::default().limit("stale_after: 3s")).await;
    let mut spread = Spread::open(&stack, &stack.placeholder("writer", "github")).await;
    spread.all("POST", "200").await;
    let written = std::fs::read_to_string(stack.site.config_path()).expect("the config");
    let name = "{name: writer, ";
    let narrowed = written.replace(name, "{name: writer, access_mode: read-only, ");
    assert_ne!(narrowed, written);
    std::fs::write(stack.site.config_path(), narrowed).expect("the config");
    stack.broker.restart().await;
    let told = || {
        let log = std::fs::read_to_string(stack.broker.log_path()).expect("the broker's log");
        log.lines().find(|line| line.contains("what the config has changed of sessions")).map(str::to_owned)
    };
    let told = util::eventually_some(SOON, told).await;
    assert!(told.contains("INFO") && told.contains("applied=3 total=3 took_ms="), "{told}");
    spread.all("POST", "read_only").await;
    spread.all("GET", "200").await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_right_after_a_restart_is_in_force_when_the_command_returns() {
    let stack = start(Plan::default().limit("stale_after: 2s")).await;
    for round in 0..5 {
        let mut spread = Spread::open(&stack, &session(&stack, "agent", &[])).await;
        stack.broker.restart().await;
        let begun = Instant::now();
        let done = stack.broker.json(&["session", "revoke", "agent"]);
        let took = begun.elapsed();
        println!("round {round}: revoked after a restart in {took:?}: {}", done["applied"]);
        // Followers that the new life has not heard of yet are waited for, too.
        spread.all("GET", "session_expired").await;
        assert!(took < Duration::from_secs(3), "an absolute bound: {took:?}");
        all_in_touch(&stack).await;
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_revoked_while_the_broker_hangs_is_over_when_it_answers() {
    let stack = start(Plan::default().limit("stale_after: 2s")).await;
    let mut spread = Spread::open(&stack, &session(&stack, "agent", &[])).await;
    stack.broker.signal("STOP");
    let stopped = Instant::now();
    // Out of touch for longer than allowed: nobody passes any more, whoever is right.
    loop {
        let answer = spread.ask(0, "GET", "/next").await;
        if answer.status != 200 {
            assert_eq!(super::verdict(&answer), "stale");
            break;
        }
        assert!(stopped.elapsed() < SOON);
    }
    stack.broker.signal("CONT");
    stack.broker.json(&["session", "revoke", "agent"]);
    spread.all("GET", "session_expired").await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_died_delays_a_revocation_no_longer_than_it_could_have_lived() {
    const STALE_AFTER: Duration = Duration::from_secs(6);
    let seen = Arc::new(Mutex::new(Value::Null));
    let copy = Arc::clone(&seen);
    let plan = Plan::default().limit("stale_after: 6s");
    let stack = start(plan.edit(move |bootstrap| *copy.lock().unwrap() = bootstrap.clone())).await;
    let placeholder = session(&stack, "agent", &[]);
    let mut spread = Spread::open(&stack, &placeholder).await;

    let bootstrap = seen.lock().unwrap().take();
    let other = Envoy::start(&bootstrap, Options::default()).await;
    let (proxy, bearer) = (other.addr(LISTENER).await, format!("Bearer {placeholder}"));
    let answer = stack.agent().get(proxy, HOST, "/", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let both = stack.broker.json(&["session", "set-access-mode", "agent", "read-write"]);
    assert_eq!(both["applied"]["applied"], VMS + 2, "{both:#}");
    // Its records are delivered; then it dies without a word.
    stack.reconcile().await;
    drop(other);

    // Giving more rights waits for nobody that long.
    stack.broker.json(&["session", "create", "more", "--credential", "github", "--access-mode", "read-only"]);
    let begun = Instant::now();
    let done = stack.broker.json(&["session", "set-access-mode", "more", "read-write"]);
    let took = begun.elapsed();
    println!("widened with two VMs dead in {took:?}: {}", done["applied"]);
    assert_eq!(done["applied"]["applied"], VMS, "{done:#}");
    assert_eq!(done["applied"]["waiting"].as_array().map(Vec::len), Some(2), "{done:#}");
    assert!(took < STALE_AFTER / 2, "{took:?}");

    let begun = Instant::now();
    let done = stack.broker.json(&["session", "revoke", "agent"]);
    let took = begun.elapsed();
    println!("revoked with two VMs dead in {took:?}: {}", done["applied"]);
    assert_eq!(done["applied"]["applied"], VMS, "{done:#}");
    assert_eq!(done["applied"]["waiting"].as_array().map(Vec::len), Some(2), "{done:#}");
    assert!(took < STALE_AFTER + Duration::from_millis(500), "{took:?}");
    spread.all("GET", "session_expired").await;
    // And then they are forgotten.
    session(&stack, "next", &[]);
    applied_everywhere(&stack.broker.json(&["session", "revoke", "next"]));
    stack.reconcile().await;
}
