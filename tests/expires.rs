//! Every right ends in time: leases, denials, what a worker believes without touch, what it waits for.

#[path = "expires/apart.rs"]
mod apart;
#[path = "expires/clocks.rs"]
mod clocks;
#[path = "expires/leases.rs"]
mod leases;
#[path = "expires/stale.rs"]
mod stale;
#[path = "expires/waits.rs"]
mod waits;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use attache_core::placeholder::Shape;
use attache_tests::fake_broker::{Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::util::eventually_some;
use attache_tests::{FakeBroker, Response, Stack};

const HOST: &str = "api.github.com";
/// How long a decision may take (`limits.callout_timeout`, its default).
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_millis(900);

/// Starts everything, and waits until all VMs (each worker's, the main thread's) know the broker.
async fn start(plan: Plan) -> Stack<FakeBroker> {
    let workers = plan.concurrency as usize;
    let stack = plan.start_with_fake().await;
    stack.broker.in_touch(workers + 1, SOON).await;
    stack
}

/// A grant of the GitHub token for so many milliseconds.
fn lasting(ttl_ms: u64, refresh_after_ms: u64) -> Grant {
    Grant { ttl_ms, refresh_after_ms, ..Grant::header("github", "authorization", &format!("Bearer {GITHUB}")) }
}

/// Different for each `n`.
fn placeholder(n: u8) -> String {
    Shape::new("ghp_", 40).mint(&[n; 32], "writer", "github")
}

fn reason(answer: &Response) -> String {
    answer.header("x-attache-reason").unwrap_or_else(|| answer.status.to_string())
}

/// Requests one after the other, each with a path of its own, and when each was begun.
#[derive(Default)]
struct Steady {
    begun: Vec<Instant>,
}

impl Steady {
    async fn next(&mut self, stack: &Stack<FakeBroker>, placeholder: &str) -> Response {
        self.begun.push(Instant::now());
        stack.get(HOST, &format!("/steady/{}", self.begun.len() - 1), placeholder).await
    }

    /// Which lease each request was forwarded with, counted from 1 in the order of the callouts;
    /// and no request was begun after the end of its lease, counted from when it was asked for.
    async fn leases(&self, stack: &Stack<FakeBroker>, ttl: Duration) -> Vec<Option<usize>> {
        let n = self.begun.len();
        let records = eventually_some(SOON, || {
            let records = stack.broker.records();
            let own =
                records.into_iter().filter(|record| record["path"].as_str().is_some_and(|p| p.contains("/steady/")));
            Some(own.collect::<Vec<_>>()).filter(|own| own.len() >= n)
        })
        .await;
        let asked: Vec<Instant> = stack.broker.heard(Endpoint::Grants).iter().map(|call| call.at).collect();
        let mut leases = HashMap::new();
        for record in records.iter().filter(|record| record["decision"] == "forward") {
            let number = |text: &str, before: &str| text.strip_prefix(before).and_then(|n| n.parse::<usize>().ok());
            let lease = number(record["lease_id"].as_str().unwrap_or_default(), "lease-").expect("a lease");
            let request = number(record["path"].as_str().unwrap_or_default(), "/steady/").expect("a request");
            let late = self.begun[request].saturating_duration_since(asked[lease - 1]);
            assert!(late < ttl, "request {request} used lease {lease} {late:?} after it was asked for");
            leases.insert(request, lease);
        }
        (0..n).map(|request| leases.get(&request).copied()).collect()
    }
}
