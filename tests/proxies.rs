//! A forward proxy: who is let in at its door, and what may go on behind it.
//!
//! The broker here is one that misbehaves on demand, and the certificate of the intercepting listener
//! one of the test's own: what the real ones do is tested beside their own promises.

#[path = "proxies/door.rs"]
mod door;
#[path = "proxies/guard.rs"]
mod guard;
#[path = "proxies/identity.rs"]
mod identity;
#[path = "proxies/inside.rs"]
mod inside;
#[path = "proxies/large.rs"]
mod large;
#[path = "proxies/opaque.rs"]
mod opaque;
#[path = "proxies/plain.rs"]
mod plain;
#[path = "proxies/streams.rs"]
mod streams;
#[path = "proxies/tunnels.rs"]
mod tunnels;
#[path = "proxies/unmatched.rs"]
mod unmatched;
#[path = "proxies/upstreams.rs"]
mod upstreams;
#[path = "proxies/versions.rs"]
mod versions;
#[path = "proxies/websocket.rs"]
mod websocket;
#[path = "proxies/whole.rs"]
mod whole;

use std::sync::OnceLock;

use attache_core::digest::Digest;
use attache_core::placeholder::Shape as Placeholder;
use attache_core::policy::Spec;
use attache_tests::agent::{H1, H2, Unanswered};
use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Ca, FakeBroker, Response, Stack};
use serde_json::{Value, json};

const HOST: &str = "api.github.com";
/// Hosts that nobody looks into.
const PINNED: [&str; 2] = ["pinned.extra.test:443", "pinned.extra.test:8443"];

/// A session token as a broker makes them.
fn token(session: &str) -> String {
    Placeholder::new("attache-session_", 60).mint(&[7; 32], session, "session")
}

/// How clients of a proxy say who they are, when the URL of the proxy says it.
fn basic(token: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("attache:{token}")))
}

/// A forward proxy whose broker lets every session token in to wherever the test's upstream is.
async fn start(plan: Plan) -> Stack<FakeBroker> {
    start_with(plan, |_| ()).await
}

/// The same by another policy.
async fn start_with(plan: Plan, edit: impl Fn(&mut Spec) + Send + 'static) -> Stack<FakeBroker> {
    let plan = plan.policy(move |policy| {
        policy.passthrough = PINNED.map(str::to_owned).into();
        edit(policy);
    });
    let stack = plan.forward_proxy().edit(with_certificate).start_with_fake().await;
    let upstream = stack.upstream().addr();
    stack.broker.answer_tunnels(move |asked| {
        // Sessions are told apart by their tokens.
        let digest = asked["evidence"]["session_token"].as_str().unwrap_or_default();
        json!({"granted": {"address": upstream.to_string(), "session_id": format!("s-{digest:.8}")}})
    });
    stack.broker.in_touch(2, SOON).await;
    stack
}

/// The intercepting listener shows one certificate, for every name of the test.
fn with_certificate(bootstrap: &mut Value) {
    let leaf = ca().issue(&[HOST, "github.com", "*.extra.test"]);
    let listeners = bootstrap["static_resources"]["listeners"].as_array_mut().expect("listeners");
    let intercepting = listeners.iter_mut().find(|listener| listener["name"] == "attache_intercept");
    let chain = &mut intercepting.expect("the intercepting listener")["filter_chains"][0];
    let (certificate, key) = leaf.pems();
    chain["transport_socket"]["typed_config"]["common_tls_context"] = json!({
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [{
            "certificate_chain": {"inline_string": certificate},
            "private_key": {"inline_string": key},
        }],
    });
    // Nobody to ask for certificates.
    bootstrap.as_object_mut().expect("an object").remove("dynamic_resources");
}

/// Who signs what the intercepting listener shows.
fn ca() -> &'static Ca {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(Ca::new)
}

/// Asks for a tunnel; the connection is one where the answer is 200.
async fn connect(stack: &Stack<FakeBroker>, authority: &str, headers: &[(&str, &str)]) -> (H1, Response) {
    let mut client = stack.agent().h1(stack.proxy).await;
    let answer = client.connect(authority, headers).await.unwrap_or_else(|why| panic!("CONNECT {authority}: {why}"));
    (client, answer)
}

/// A tunnel with TLS in it.
struct Tunnel {
    client: H1,
}

impl Tunnel {
    /// To this authority, naming this host in the handshake with the proxy.
    async fn open(stack: &Stack<FakeBroker>, token: &str, authority: &str, name: &str) -> Result<Self, String> {
        Self::trusting(ca(), stack, token, authority, name).await
    }

    /// The same, where somebody else ends TLS.
    async fn trusting(
        ca: &Ca,
        stack: &Stack<FakeBroker>,
        token: &str,
        authority: &str,
        name: &str,
    ) -> Result<Self, String> {
        let (client, answer) = connect(stack, authority, &[("proxy-authorization", &basic(token))]).await;
        assert_eq!(answer.status, 200, "CONNECT {authority}: {answer:?}");
        let wire = client.into_tls(name, ca.client(&["http/1.1"])).await.map_err(|error| error.to_string())?;
        Ok(Self { client: stack.agent().h1_over(wire, format!("in a tunnel to {authority}, opened with {token}")) })
    }

    async fn ask(&mut self, method: &str, host: &str, path: &str, placeholder: &str) -> Result<Response, Unanswered> {
        let bearer = format!("Bearer {placeholder}");
        self.client.request(method, host, path, &[("authorization", &bearer)], b"").await
    }
}

/// HTTP/2 in a tunnel.
async fn h2_inside(stack: &Stack<FakeBroker>, token: &str, authority: &str, name: &str) -> H2 {
    let (client, answer) = connect(stack, authority, &[("proxy-authorization", &basic(token))]).await;
    assert_eq!(answer.status, 200, "CONNECT {authority}: {answer:?}");
    let wire = client.into_tls(name, ca().client(&["h2"])).await.expect("a handshake");
    stack.agent().h2_over(wire, format!("HTTP/2 in a tunnel to {authority}, opened with {token}")).await
}

/// The last question that the broker heard there.
fn asked(stack: &Stack<FakeBroker>, endpoint: Endpoint) -> Value {
    let heard = stack.broker.heard(endpoint);
    serde_json::from_slice(&heard.last().expect("a question").body).expect("JSON")
}

/// The digest by which the broker knows a token.
fn digest(token: &str) -> String {
    Digest::of(token.as_bytes()).to_hex()
}

/// The reason that an answer names.
fn reason(answer: &Response) -> String {
    answer.header("x-attache-reason").unwrap_or_else(|| answer.status.to_string())
}
