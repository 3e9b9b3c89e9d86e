//! A change that meets a request, or a grant, half-way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attache_tests::fake_broker::{Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::util::eventually;
use attache_tests::{Latch, Response};
use serde_json::{Value, json};

use super::{HOST, Spread, applied_everywhere, session, start, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_under_way_when_its_session_changed_is_asked_for_again() {
    for change in [json!({"session_id": "session-1"}), json!({"credential": "github"}), json!({})] {
        let stack = Plan::default().start_with_fake().await;
        stack.broker.in_touch(2, SOON).await;
        let (latch, asked) = (Latch::default(), AtomicUsize::new(0));
        // The first answer knows nothing of the change that came meanwhile.
        stack.broker.answer_grants(latch.before(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => old_grant(),
            _ => json!({"denied": {"reason": "session_expired"}}),
        }));
        let (agent, proxy, bearer) = (stack.agent(), stack.proxy, format!("Bearer {}", stack.placeholder()));
        let asking = tokio::spawn(async move { agent.get(proxy, HOST, "/", &[("authorization", &bearer)]).await });
        eventually(SOON, || stack.broker.calls(Endpoint::Grants) == 1).await;
        let cursor = stack.broker.change(change.clone());
        eventually(SOON, || stack.broker.workers().values().filter(|heard| **heard >= cursor).count() == 2).await;
        latch.release();
        let answer = asking.await.expect("the agent");
        assert_eq!((answer.status, verdict(&answer)), (401, "session_expired".into()), "{change}");
        assert_eq!(stack.broker.calls(Endpoint::Grants), 2, "{change}");
        assert!(stack.upstream().connections().is_empty(), "{change}");
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_under_way_serves_where_the_change_was_about_another() {
    let stack = Plan::default().start_with_fake().await;
    stack.broker.in_touch(2, SOON).await;
    let latch = Latch::default();
    stack.broker.answer_grants(latch.before(|_| old_grant()));
    let (agent, proxy, bearer) = (stack.agent(), stack.proxy, format!("Bearer {}", stack.placeholder()));
    let asking = tokio::spawn(async move { agent.get(proxy, HOST, "/", &[("authorization", &bearer)]).await });
    eventually(SOON, || stack.broker.calls(Endpoint::Grants) == 1).await;
    stack.broker.change(json!({"session_id": "session-2"}));
    let cursor = stack.broker.change(json!({"credential": "custom"}));
    eventually(SOON, || stack.broker.workers().values().filter(|heard| **heard >= cursor).count() == 2).await;
    latch.release();
    assert_eq!(asking.await.expect("the agent").status, 200);
    assert_eq!(stack.broker.calls(Endpoint::Grants), 1);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_traffic_no_request_begun_after_the_command_returned_gets_more_than_it_says() {
    let stack = start(Plan::default()).await;
    let placeholder = session(&stack, "agent", &[]);
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut traffic = Vec::new();
    for _ in 0..4 {
        let (mut spread, over) = (Spread::cold(&stack, &placeholder, 8).await, Arc::clone(&over));
        let (agent, proxy) = (stack.agent(), stack.proxy);
        let count = Arc::clone(&count);
        traffic.push(tokio::spawn(async move {
            let (mut seen, mut broken) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                for connection in 0..spread.connections.len() {
                    let path = format!("/write/{}.", count.fetch_add(1, Ordering::Relaxed));
                    let begun = Instant::now();
                    let answer = spread.try_ask(connection, "POST", &path).await;
                    let whole = |answer: &Response| answer.complete;
                    if !answer.as_ref().is_ok_and(whole) {
                        // Its answer had begun: that could only be broken off.
                        broken.push(path);
                        spread.connections[connection] = agent.h1(proxy).await;
                    }
                    let said = answer.ok().filter(whole).map_or("cut".into(), |answer| verdict(&answer));
                    seen.push((begun, Instant::now(), said));
                }
            }
            (seen, broken)
        }));
    }
    // From when to when which verdict is the only one.
    let mut spans: Vec<(Instant, Instant, &str)> = Vec::new();
    for (mode, expected) in [("read-only", "read_only"), ("read-write", "200")].into_iter().cycle().take(16) {
        applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", mode]));
        let since = Instant::now();
        tokio::time::sleep(Duration::from_millis(40)).await;
        spans.push((since, Instant::now(), expected));
    }
    applied_everywhere(&stack.broker.json(&["session", "revoke", "agent"]));
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    over.store(true, Ordering::Relaxed);
    spans.push((since, since + SOON, "session_expired"));
    let (mut judged, mut all) = (0, 0);
    for task in traffic {
        let (seen, broken) = task.await.expect("the traffic");
        broken.iter().for_each(|path| stack.site.oracle.excuse(path));
        for (begun, ended, said) in seen {
            all += 1;
            // Whoever meets a change half-way gets an answer that was right a moment ago, or is now, or
            // is cut.
            assert!(["200", "read_only", "session_expired", "cut"].contains(&said.as_str()), "{said}");
            let within = spans.iter().find(|(since, until, _)| begun >= *since && ended <= *until);
            let Some((since, _, expected)) = within else { continue };
            judged += 1;
            assert_eq!(said, *expected, "a request begun {:?} after the command returned", begun - *since);
        }
    }
    println!("{judged} of {all} requests fell between two changes, each as the last one said");
    assert!(judged > 100, "{judged} of {all}");
    stack.reconcile().await;
}

/// A grant by a broker that had not heard of any change.
fn old_grant() -> Value {
    let mut answer = Grant::header("github", "authorization", &format!("Bearer {GITHUB}")).answer();
    answer["granted"]["as_of"] = 0.into();
    answer
}
