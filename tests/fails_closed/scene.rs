//! One stack under fault: who asks, what a refusal must be, and what must hold afterwards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attache_core::placeholder::Shape;
use attache_core::refusal::Reason;
use attache_tests::{Response, Stack, refusal};

/// The bound of a decision: the default `callout_timeout`.
pub const DECISION: Duration = Duration::from_secs(2);
/// How long recovery may take once its cause is gone.
pub const RECOVERY: Duration = Duration::from_secs(2);
/// What a busy machine may add to a bound.
pub const SLACK: Duration = Duration::from_secs(1);

/// A stack, and how many VMs it began with.
pub struct Scene<B> {
    pub stack: Stack<B>,
    asked: AtomicUsize,
    vms: u64,
}

impl<B> Scene<B> {
    pub async fn of(stack: Stack<B>) -> Self {
        let vms = stack.vms().await;
        Self { stack, asked: AtomicUsize::new(0), vms }
    }

    /// A placeholder never shown before: no cache knows it. The fake broker grants to anyone.
    pub fn stranger(&self) -> String {
        let name = format!("stranger-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        Shape::new("ghp_", 40).mint(&[7; 32], &name, "github")
    }

    /// One GET of a stranger.
    pub async fn ask(&self) -> Response {
        self.ask_as(&self.stranger()).await
    }

    /// One GET with this placeholder.
    pub async fn ask_as(&self, placeholder: &str) -> Response {
        self.ask_at("api.github.com", placeholder).await
    }

    /// One GET to this host.
    pub async fn ask_at(&self, host: &str, placeholder: &str) -> Response {
        self.stack.get(host, "/user", placeholder).await
    }

    /// A stranger is refused for this reason within the bound of a decision, and nothing goes upstream.
    pub async fn refuses(&self, reason: Reason, fault: &str) {
        self.refuses_at("api.github.com", &self.stranger(), reason, fault).await;
    }

    /// The same for this placeholder at this host.
    pub async fn refuses_at(&self, host: &str, placeholder: &str, reason: Reason, fault: &str) {
        println!("{fault}");
        let (before, begun) = (self.sent(), Instant::now());
        let answer = self.ask_at(host, placeholder).await;
        let took = begun.elapsed();
        refusal::expect(&answer, reason);
        assert!(took < DECISION + SLACK, "{fault}: answered after {took:?}");
        assert_eq!(self.sent(), before, "{fault}: something went upstream");
    }

    /// A stranger's good request passes, at once.
    pub async fn serves(&self, after: &str) {
        let (before, begun) = (self.sent(), Instant::now());
        let answer = self.ask().await;
        let took = begun.elapsed();
        assert_eq!(answer.status, 200, "after {after}: {}", answer.text());
        assert!(took < SLACK, "after {after}: served after {took:?}");
        assert_eq!(self.sent(), before + 1, "after {after}");
    }

    /// A stranger is served within the bound of recovery.
    pub async fn recovers(&self, after: &str) {
        self.recovers_at("api.github.com", &self.stranger(), after).await;
    }

    /// The same for this placeholder at this host.
    pub async fn recovers_at(&self, host: &str, placeholder: &str, after: &str) {
        let begun = Instant::now();
        loop {
            let answer = self.ask_at(host, placeholder).await;
            let took = begun.elapsed();
            if answer.status == 200 {
                return;
            }
            assert!(answer.header("x-attache-reason").is_some(), "after {after}: {} {}", answer.status, answer.text());
            assert!(took < RECOVERY, "after {after}: still {} after {took:?}", answer.text());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many requests have gone upstream, with or without a credential.
    pub fn sent(&self) -> usize {
        self.stack.upstream().requests().len()
    }

    /// No VM has died, and everything adds up.
    pub async fn ends_well(&self) {
        assert_eq!(self.stack.vms().await, self.vms, "a VM was replaced");
        let log = self.stack.envoy.log();
        assert!(!log.contains("Uncaught RuntimeError"), "a VM has trapped");
        assert!(self.stack.envoy.alive());
        self.stack.reconcile().await;
    }
}
