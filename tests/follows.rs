//! What the operator changes is in force on every worker when the command says so, and soon after
//! when nobody waits for it.

#[path = "follows/broker.rs"]
mod broker;
#[path = "follows/races.rs"]
mod races;
#[path = "follows/secrets.rs"]
mod secrets;
#[path = "follows/sessions.rs"]
mod sessions;
#[path = "follows/streams.rs"]
mod streams;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use attache_tests::agent::H1;
use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Response, Stack, Unanswered};
use serde_json::Value;

const HOST: &str = "api.github.com";
/// Two workers, and the VM on Envoy's main thread: all three follow the feed.
const WORKERS: u32 = 2;
const VMS: u64 = 3;

/// Two workers that are in touch with a real broker.
async fn start(plan: Plan) -> Stack<Attache> {
    let stack = plan.workers(WORKERS).start().await;
    all_in_touch(&stack).await;
    stack
}

/// All VMs poll this life of the broker: a change that harms nobody is acknowledged by each.
async fn all_in_touch(stack: &Stack<Attache>) {
    let begun = Instant::now();
    loop {
        let done = stack.broker.json(&["session", "set-access-mode", "writer", "read-write"]);
        if done["applied"]["applied"] == VMS {
            return;
        }
        assert!(begun.elapsed() < SOON, "{done:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Connections that stay, on every worker.
struct Spread {
    connections: Vec<H1>,
    bearer: String,
}

impl Spread {
    /// So many connections, not warm.
    async fn cold(stack: &Stack<Attache>, placeholder: &str, n: usize) -> Self {
        let mut connections = Vec::new();
        for _ in 0..n {
            connections.push(stack.agent().h1(stack.proxy).await);
        }
        Self { connections, bearer: format!("Bearer {placeholder}") }
    }

    /// Opens connections, each warm, until every worker has some: the kernel spreads them. For a
    /// session that no worker knows yet.
    async fn open(stack: &Stack<Attache>, placeholder: &str) -> Self {
        let mut spread = Self::cold(stack, placeholder, 0).await;
        let begun = Instant::now();
        let before = issued_to(stack).len();
        while spread.connections.len() < 12 || issued_to(stack)[before..].iter().collect::<BTreeSet<_>>().len() < 2 {
            assert!(begun.elapsed() < SOON, "one worker gets everything");
            spread.connections.push(stack.agent().h1(stack.proxy).await);
            let last = spread.connections.len() - 1;
            let answer = spread.ask(last, "GET", "/warm").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        spread
    }

    async fn ask(&mut self, connection: usize, method: &str, path: &str) -> Response {
        let answer = self.try_ask(connection, method, path).await;
        answer.unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    async fn try_ask(&mut self, connection: usize, method: &str, path: &str) -> Result<Response, Unanswered> {
        let headers = [("authorization", self.bearer.as_str())];
        self.connections[connection].request(method, HOST, path, &headers, b"").await
    }

    /// The next request of every connection is answered like this: 200, or refused for this reason.
    async fn all(&mut self, method: &str, expected: &str) {
        for connection in 0..self.connections.len() {
            let answer = self.ask(connection, method, "/next").await;
            assert_eq!(verdict(&answer), expected, "{method} on connection {connection}");
        }
    }
}

fn verdict(answer: &Response) -> String {
    answer.header("x-attache-reason").unwrap_or_else(|| answer.status.to_string())
}

/// The workers that leases were issued to, in order.
fn issued_to(stack: &Stack<Attache>) -> Vec<String> {
    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    audit.of_kind("issue").map(|record| record.text("issued_to")).collect()
}

/// Makes a session with the GitHub credential; its placeholder.
fn session(stack: &Stack<Attache>, name: &str, more: &[&str]) -> String {
    stack.broker.json(&[&["session", "create", name, "--credential", "github"], more].concat());
    stack.placeholder(name, "github")
}

/// A change that every VM has acknowledged; how long that took, in milliseconds.
fn applied_everywhere(done: &Value) -> u64 {
    let applied = &done["applied"];
    assert!(
        applied["applied"] == VMS && applied["total"] == VMS && applied["waiting"] == Value::Array(vec![]),
        "{done:#}"
    );
    assert_eq!(done["recorded"], true);
    applied["took_ms"].as_u64().expect("a number")
}
