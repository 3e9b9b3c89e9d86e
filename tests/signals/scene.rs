//! One Envoy with the filter and one broker with its door of probes, a credential of every kind that metrics tell of, and
//! traffic of every kind.

use std::net::SocketAddr;

use attache_tests::attache::Attache;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Agent, Stack};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The counter of requests that went out with a credential, as Envoy calls it.
pub const FORWARDED: &str = "wasmcustom.outcome=.=forwarded;.;attache.decisions";

pub struct Scene {
    pub stack: Stack<Attache>,
    /// The broker's door of probes.
    pub health: SocketAddr,
}

impl Scene {
    pub async fn start() -> Self {
        Self::of(Plan::default()).await
    }

    pub async fn of(plan: Plan) -> Self {
        // One that says when it ends, and one that is rotated, in time.
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let jwt = format!("{}.{}.c2lnbmF0dXJl", part(r#"{"alg":"ES256"}"#), part(r#"{"exp":4102444800}"#));
        let plan = plan
            .credential(
                "jwt",
                &jwt,
                "{source: {file: jwt}, inject: bearer, destinations: [{host: jwt.extra.test, upstream: DIAL}]}",
            )
            .credential(
                "turned",
                "a-secret-that-is-replaced-in-a-year",
                "{source: {file: turned}, inject: bearer, destinations: [{host: turned.extra.test, upstream: DIAL}], \
                 rotation: {command: [/bin/false], every: 365d}}",
            );
        let stack = plan.health().start().await;
        stack.broker.json(&["ca", "show"]);
        let runtime = std::fs::read_to_string(stack.config.state_dir.join("runtime.json")).expect("it is announced");
        let runtime: Value = serde_json::from_str(&runtime).expect("JSON");
        let health = runtime["health"].as_str().and_then(|at| at.parse().ok()).expect("the door of probes");
        Self { stack, health }
    }

    /// Allowed and refused requests: three with a credential, and one each that may only read, that nobody knows, and that
    /// goes nowhere.
    pub async fn live(&self, turn: usize) {
        let stack = &self.stack;
        let (writer, reader) = (stack.placeholder("writer", "github"), stack.placeholder("reader", "github"));
        for _ in 0..3 {
            assert_eq!(stack.get("api.github.com", "/user", &writer).await.status, 200);
        }
        let posted = stack.send("POST", "api.github.com", "/repos/o/r/issues", &reader, b"{}").await;
        assert_eq!(posted.status, 403);
        let nobodys = format!("ghp_ATTACHEnobodys{turn:020}");
        assert_eq!(stack.get("api.github.com", "/user", &nobodys).await.status, 401);
        assert_eq!(stack.get("nowhere.test", "/", &writer).await.status, 403);
    }

    /// Waits until Envoy was told of so many requests with a credential, and the broker holds the records of all requests.
    pub async fn counted(&self, forwarded: u64, records: u64) {
        let envoy = &self.stack.envoy;
        envoy.wait_stat(FORWARDED, |counted| counted == forwarded, SOON).await;
        envoy.wait_stat("wasmcustom.attache.records_acknowledged", |held| held == records, SOON).await;
    }

    /// What Envoy tells Prometheus.
    pub async fn filter(&self) -> String {
        self.stack.envoy.admin_get("/stats/prometheus").await
    }

    /// What the broker does.
    pub async fn broker(&self) -> String {
        Agent::new().get(self.health, "broker", "/metrics", &[]).await.text()
    }
}
