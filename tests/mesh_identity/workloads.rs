//! Who an agent is, in a mesh: the SPIFFE ID that its sidecar shows to an egress gateway, or its service account's
//! token; mapped by rules. What is revoked is over everywhere.

use std::net::SocketAddr;
use std::sync::Arc;

use attache_tests::agent::Wire;
use attache_tests::stack::{CUSTOM, Plan, SOON};
use attache_tests::upstream::{Held, Part};
use attache_tests::{Attache, Ca, Reply, Stack, util};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::listeners::{add_listener, conflict, downstream_tls, evidence_of, required, said, served};
use crate::pki::{GATEWAY, client_leaf};
use crate::scene::{HOST, Scene};

const CUSTOM_HOST: &str = "api.custom.test";
const NAME: &str = "egress.test";
const AGENTS: &str = "spiffe://cluster.local/ns/agents/sa";
/// Of each of two listeners: two workers, and the one on Envoy's main thread.
const VMS: u64 = 6;

/// An egress gateway with a listener that asks workloads for their certificate.
struct Egress {
    scene: Scene,
    server: Ca,
    clients: Ca,
}

impl Egress {
    async fn start() -> Self {
        let (server, clients) = (Ca::new(), Ca::new());
        let leaf = server.issue(&[NAME]);
        let (pem, key) = leaf.pems();
        let (pem, key, ca) = (pem.to_owned(), key.to_owned(), clients.pem().to_owned());
        let rules = format!(
            "peers:\n  - {{id: '{AGENTS}/reviewer', session: reviewer}}\n  - {{id: '{AGENTS}/*', session: agents}}\n"
        );
        let plan = Plan::default()
            .missing_placeholder("inject")
            .session("{name: reviewer, credentials: [github, custom], access_mode: read-only}")
            .session("{name: agents, credentials: [custom]}")
            .extra(&rules)
            .workers(2)
            .edit(move |bootstrap| {
                let tls = downstream_tls((&pem, &key), &ca, json!({}), json!({"require_client_certificate": true}));
                add_listener(bootstrap, "mesh", Some(tls));
            });
        let scene = Scene::start(GATEWAY, plan).await;
        let known = scene.stack.broker.evidence();
        known.connection("reviewer", &format!("as {AGENTS}/reviewer at"));
        known.connection("agents", &format!("as {AGENTS}/builder at"));
        Self { scene, server, clients }
    }

    fn stack(&self) -> &Stack<Attache> {
        &self.scene.stack
    }

    fn tls(&self, uri: &str) -> Arc<ClientConfig> {
        self.server.client_as(&["http/1.1"], &client_leaf(&self.clients, &[uri]))
    }

    async fn connect(&self, uri: &str) -> attache_tests::agent::H1 {
        let at: SocketAddr = self.stack().envoy.addr("mesh").await;
        let wire = Wire::plain(at).await.secured(NAME, self.tls(uri)).await.expect("a TLS handshake");
        self.stack().agent().h1_over(wire, format!("HTTP/1 as {uri} at mesh"))
    }

    async fn ask(&self, uri: &str, host: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let answer = self.connect(uri).await.request("GET", host, "/v1/x", headers, b"").await;
        said(&answer.unwrap_or_else(|why| panic!("no answer: {why}")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_the_session_of_the_first_rule_that_fits_its_certificate() {
    let egress = Egress::start().await;
    let (reviewer, builder) = (format!("{AGENTS}/reviewer"), format!("{AGENTS}/builder"));
    for uri in [&reviewer, &builder] {
        assert_eq!(egress.ask(uri, CUSTOM_HOST, &[]).await, served(), "{uri}");
    }
    for hit in egress.stack().upstream().wait_for(2, SOON).await {
        assert_eq!(hit.fields.all("x-custom-key"), [format!("Key {CUSTOM}").as_bytes()]);
    }
    assert_eq!(evidence_of(egress.stack(), "reviewer", 1).await, ["peer"]);
    assert_eq!(evidence_of(egress.stack(), "agents", 1).await, ["peer"]);
    // Its placeholder says the same, and what it may do is its session's.
    let own = format!("Bearer {}", egress.stack().placeholder("reviewer", "github"));
    assert_eq!(egress.ask(&reviewer, HOST, &[("authorization", &own)]).await, served());
    let mut connection = egress.connect(&reviewer).await;
    let answer = connection.request("POST", CUSTOM_HOST, "/v1/x", &[], b"x").await.expect("an answer");
    assert_eq!(said(&answer), (403, "read_only".into()));
    // Whoever shows another's is in conflict; whoever no rule fits is nobody.
    assert_eq!(egress.ask(&builder, HOST, &[("authorization", &own)]).await, conflict());
    let writer = format!("Bearer {}", egress.stack().placeholder("writer", "github"));
    assert_eq!(egress.ask(&reviewer, HOST, &[("authorization", &writer)]).await, conflict());
    for uri in [
        "spiffe://cluster.local/ns/others/sa/reviewer",
        "spiffe://elsewhere/ns/agents/sa/reviewer",
        "spiffe://cluster.local/ns/agents/sa/reviewer/more",
        "spiffe://cluster.local/ns/agents/sa",
        "https://cluster.local/ns/agents/sa/reviewer",
    ] {
        assert_eq!(egress.ask(uri, CUSTOM_HOST, &[]).await, required(), "{uri}");
    }
    // The rule names; it demands nothing of whoever comes by another way.
    assert_eq!(egress.stack().get(HOST, "/user", own.trim_start_matches("Bearer ")).await.status, 200);
    let answer = egress.stack().agent().get(egress.stack().proxy, CUSTOM_HOST, "/v1/x", &[]).await;
    assert_eq!(said(&answer), required());
    egress.stack().reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_whose_session_is_revoked_gets_nothing_any_more_and_its_streams_are_cut() {
    let egress = Egress::start().await;
    let (reviewer, builder) = (format!("{AGENTS}/reviewer"), format!("{AGENTS}/builder"));
    for uri in [&reviewer, &builder] {
        assert_eq!(egress.ask(uri, CUSTOM_HOST, &[]).await, served(), "{uri}");
    }
    let held = Arc::new(Held::default());
    let part = Part::Held(Arc::clone(&held));
    egress
        .stack()
        .upstream()
        .answer_with(move |_| Reply::new(200).chunked().body("first\n").part(part.clone()).body("last\n"));
    let mut streams = Vec::new();
    for uri in [&reviewer, &builder] {
        let mut stream = egress.connect(uri).await;
        stream.send(format!("GET /v1/x HTTP/1.1\r\nHost: {CUSTOM_HOST}\r\n\r\n")).await.expect("sent");
        assert_eq!(stream.head(SOON).await.expect("a head").status, 200);
        streams.push(stream);
    }
    util::eventually(SOON, || held.waiting() == 2).await;
    let done = egress.stack().broker.json(&["session", "revoke", "reviewer"]);
    let applied = &done["applied"];
    assert!(applied["applied"] == VMS && applied["total"] == VMS, "{done:#}");
    util::eventually(SOON, || held.left() == 1).await;
    held.go();
    let mut ends = streams.into_iter();
    let (mut cut, mut whole) = (ends.next().expect("one"), ends.next().expect("two"));
    let read = async |stream: &mut attache_tests::agent::H1| {
        let mut text = Vec::new();
        while let Ok(Some(piece)) = stream.piece(SOON).await {
            text.extend_from_slice(&piece);
        }
        text
    };
    let text = read(&mut cut).await;
    assert!(!text.ends_with(b"last\n"), "the revoked one is cut");
    let text = read(&mut whole).await;
    assert!(text.ends_with(b"last\n"), "the other goes on to its end");
    egress.stack().upstream().answer_with(|_| Reply::new(200));
    assert_eq!(egress.ask(&reviewer, CUSTOM_HOST, &[]).await, (401, "session_expired".into()));
    assert_eq!(egress.ask(&builder, CUSTOM_HOST, &[]).await, served());
    egress.stack().reconcile().await;
}

/// The claims of a projected token, as an API server of Kubernetes 1.30 and later writes them.
fn projected(namespace: &str, account: &str, changes: Value) -> Value {
    let now = util::wall_ms() / 1000;
    let mut claims = json!({
        "aud": ["attache"],
        "exp": now + 3600,
        "iat": now,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": "0b5a9b7e-5a77-4b0b-8d6c-5d7c7f0c7a11",
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node-1", "uid": "4c2f5b3a-7f0e-4b44-9a51-2b6b0d5c0a01"},
            "pod": {"name": format!("{account}-6f7c9d8b5-x2x7q"), "uid": "d3c1e1a7-55a3-4d3e-8f0e-9a6f7b1f3c02"},
            "serviceaccount": {"name": account, "uid": "9f5d7f34-2c1e-4f5b-8a90-0d1c2b3a4f03"},
            "warnafter": now + 3607,
        },
        "nbf": now,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_names_the_session_of_its_rule() {
    let Some(issuer) = crate::tokens::Issuer::new() else { return };
    let dir = util::temp_dir();
    let jwks = dir.path().join("jwks.json");
    std::fs::write(&jwks, issuer.jwks().to_string()).expect("a file");
    let oidc = format!(
        "oidc:\n  - name: kubernetes\n    issuer: https://kubernetes.default.svc.cluster.local\n    audience: attache\n    \
         jwks: '{}'\n    algorithms: [RS256, ES256]\n    rules:\n      - {{claims: {{/kubernetes.io/namespace: agents, \
         /kubernetes.io/serviceaccount/name: reviewer}}, session: reviewer}}\n",
        jwks.display()
    );
    let plan = Plan::default()
        .missing_placeholder("inject")
        .session("{name: reviewer, credentials: [github, custom]}")
        .extra(&oidc);
    let scene = Scene::start(GATEWAY, plan).await;
    let ask = async |token: &str| {
        let headers = [("x-attache-identity", token)];
        said(&scene.stack.agent().get(scene.stack.proxy, CUSTOM_HOST, "/v1/x", &headers).await)
    };
    let good = projected("agents", "reviewer", json!({}));
    let mut uses = 0;
    for (algorithm, token) in [("RS256", issuer.rs256(&good)), ("ES256", issuer.es256(&good))] {
        scene.stack.broker.evidence().jwt("reviewer", &token);
        assert_eq!(ask(&token).await, served(), "{algorithm}");
        uses += 1;
    }
    for hit in scene.stack.upstream().wait_for(uses, SOON).await {
        assert!(!hit.fields.has("x-attache-identity"), "the token stays here");
    }
    let now = util::wall_ms() / 1000;
    for (what, claims) in [
        ("another account", projected("agents", "builder", json!({}))),
        ("another namespace", projected("default", "reviewer", json!({}))),
        (
            "for the API server",
            projected("agents", "reviewer", json!({"aud": ["https://kubernetes.default.svc.cluster.local"]})),
        ),
        ("of another cluster", projected("agents", "reviewer", json!({"iss": "https://kubernetes.default.svc"}))),
        ("over", projected("agents", "reviewer", json!({"exp": now - 1}))),
        (
            "a name in another place",
            projected(
                "default",
                "reviewer",
                json!({"namespace": "agents", "sub": "system:serviceaccount:agents:reviewer"}),
            ),
        ),
    ] {
        assert_eq!(ask(&issuer.rs256(&claims)).await, required(), "{what}");
    }
    let other = crate::tokens::Issuer::new().expect("keys");
    assert_eq!(ask(&other.rs256(&good)).await, required(), "another cluster's key of the same id");
    assert_eq!(ask(&other.es256(&good)).await, required());
    scene.stack.reconcile().await;
}
