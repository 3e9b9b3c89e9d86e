//! A session that is bound to a peer: mutual TLS at Envoy, SPIFFE IDs in real certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use attache_tests::agent::Wire;
use attache_tests::ca::Leaf;
use attache_tests::envoy::{binary, released, served as served_envoys};
use attache_tests::stack::{CUSTOM, Plan, SOON};
use attache_tests::{Attache, Ca, Stack, util};
use rustls::ClientConfig;
use serde_json::json;

use crate::scene::{HOST, add_listener, conflict, downstream_tls, evidence_of, required, said, served};

const AGENT: &str = "spiffe://test/ns/agents/sa/reviewer";
const OTHER: &str = "spiffe://test/ns/agents/sa/other";
const NAME: &str = "gateway.test";

/// A stack whose listeners ask for client certificates, and who signs those.
struct Scene {
    stack: Stack<Attache>,
    server: Ca,
    clients: Ca,
}

/// Who connects: what its transcripts call it, and the certificate it has.
struct Peer(String, Arc<ClientConfig>);

/// A scene on the Envoy that is tested; none on one that does not say whether it has verified a certificate.
async fn scene(plan: Plan) -> Option<Scene> {
    let version = attache_broker::envoy::process::version(&binary()).expect("an Envoy");
    if !version.tells_peers() {
        util::skipped(format_args!(
            "Envoy {version} does not tell filters of verified certificates: what is bound to a peer is refused"
        ));
        return None;
    }
    Some(Scene::start(plan).await)
}

impl Scene {
    async fn start(plan: Plan) -> Self {
        let (server, clients) = (Ca::new(), Ca::new());
        let leaf = server.issue(&[NAME]);
        let (pem, key) = leaf.pems();
        let (pem, key, ca) = (pem.to_owned(), key.to_owned(), clients.pem().to_owned());
        let plan = plan.session(&format!("{{name: bound, credentials: [github, custom], bind: {{peer: '{AGENT}'}}}}"));
        let plan = plan.edit(move |bootstrap| {
            let tls = |context, tls| Some(downstream_tls((&pem, &key), &ca, context, tls));
            let must = json!({"require_client_certificate": true});
            add_listener(bootstrap, "strict", tls(json!({}), must.clone()));
            add_listener(bootstrap, "optional", tls(json!({}), json!({})));
            add_listener(bootstrap, "lax", tls(json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"}), must.clone()));
            let resumes = json!({
                "require_client_certificate": true,
                "disable_stateless_session_resumption": false,
                "disable_stateful_session_resumption": false,
            });
            add_listener(bootstrap, "resumes", tls(json!({}), resumes));
        });
        let stack = plan.start().await;
        stack.broker.evidence().connection("bound", &format!("as {AGENT} at"));
        Self { stack, server, clients }
    }

    async fn at(&self, listener: &str) -> SocketAddr {
        self.stack.envoy.addr(listener).await
    }

    /// TLS as the holder of a certificate for this URI.
    fn as_peer(&self, uri: &str) -> Peer {
        Peer(uri.to_owned(), self.server.client_as(&["http/1.1"], &self.clients.issue_client(uri)))
    }

    /// One GET with these headers; status and reason.
    async fn ask(&self, listener: &str, Peer(name, tls): &Peer, host: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let at = self.at(listener).await;
        let wire = Wire::plain(at).await.secured(NAME, Arc::clone(tls)).await.expect("a TLS handshake");
        let mut connection = self.stack.agent().h1_over(wire, format!("HTTP/1 as {name} at {listener}"));
        let answer = connection.request("GET", host, "/v1/x", headers, b"").await;
        said(&answer.unwrap_or_else(|why| panic!("no answer: {why}")))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.stack.placeholder("bound", "github"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_peer_passes_and_a_stolen_placeholder_is_worth_nothing() {
    let Some(scene) = scene(Plan::default()).await else { return };
    let bearer = scene.bearer();
    let shown = [("authorization", bearer.as_str())];
    let (right, other) = (scene.as_peer(AGENT), scene.as_peer(OTHER));
    for listener in ["strict", "optional"] {
        assert_eq!(scene.ask(listener, &right, HOST, &shown).await, served(), "{listener}");
        assert_eq!(scene.ask(listener, &other, HOST, &shown).await, conflict(), "{listener}");
    }
    assert_eq!(scene.ask("strict", &scene.as_peer(&format!("{AGENT}2")), HOST, &shown).await, conflict());

    // Without a certificate: at a listener that asks for one but does without, and at one without TLS.
    let nobody = Peer("nobody".into(), scene.server.client(&["http/1.1"]));
    assert_eq!(scene.ask("optional", &nobody, HOST, &shown).await, required());
    let agent = scene.stack.agent();
    let forged = format!("By=spiffe://test/gateway;URI={AGENT}");
    for extra in [&[][..], &[("x-forwarded-client-cert", forged.as_str())]] {
        let headers = [&shown[..], extra].concat();
        let answer = agent.get(scene.stack.proxy, HOST, "/user", &headers).await;
        assert_eq!(said(&answer), required(), "{extra:?}");
    }
    // A session that demands nothing is served by any way.
    let writer = format!("Bearer {}", scene.stack.placeholder("writer", "github"));
    assert_eq!(scene.ask("strict", &other, HOST, &[("authorization", &writer)]).await, served());
    assert_eq!(scene.stack.upstream().wait_for(3, SOON).await.len(), 3);
    assert_eq!(evidence_of(&scene.stack, "bound", 2).await, ["placeholder+peer"; 2]);
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_has_verified_names_nobody() {
    let Some(scene) = scene(Plan::default()).await else { return };
    let bearer = scene.bearer();
    let shown = [("authorization", bearer.as_str())];
    // The right name, signed by an authority of the agent's own; and by none.
    let impostor = scene.server.client_as(&["http/1.1"], &Ca::new().issue_client(AGENT));
    let alone = scene.server.client_as(&["http/1.1"], &Leaf::self_signed_client(AGENT));
    for tls in [&impostor, &alone] {
        let impostor = Peer("an impostor".into(), Arc::clone(tls));
        assert_eq!(scene.ask("lax", &impostor, HOST, &shown).await, required(), "presented, and not verified");
        let at = scene.at("strict").await;
        let mut connection = scene.stack.agent().h1_tls(at, NAME, Arc::clone(tls)).await;
        assert!(connection.request("GET", HOST, "/no-handshake", &[], b"").await.is_err(), "Envoy ends the handshake");
    }
    assert_eq!(scene.ask("lax", &scene.as_peer(AGENT), HOST, &shown).await, served(), "verified there, too");
    scene.stack.site.oracle.excuse("/no-handshake");
    scene.stack.reconcile().await;
}

/// A resumed TLS session carries the certificate over, and Envoy does not verify it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_is_the_same_peer_or_nobody() {
    let Some(scene) = scene(Plan::default()).await else { return };
    let bearer = scene.bearer();
    let shown = [("authorization", bearer.as_str())];
    let right = scene.as_peer(AGENT);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(scene.ask("resumes", &right, HOST, &shown).await);
        assert_eq!(scene.ask("strict", &right, HOST, &shown).await, served(), "without resumption, each time anew");
    }
    eprintln!("with resumption: {seen:?}");
    assert_eq!(seen[0], served());
    assert!(seen.iter().all(|said| *said == served() || *said == required()), "{seen:?}");
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_alone_names_its_session_where_no_placeholder_is_needed() {
    let Some(scene) = scene(Plan::default().missing_placeholder("inject")).await else { return };
    let host = "api.custom.test";
    let (right, other) = (scene.as_peer(AGENT), scene.as_peer(OTHER));
    for headers in [&[][..], &[("x-custom-key", "Key agents-own")], &[("authorization", "Bearer agents-own")]] {
        assert_eq!(scene.ask("strict", &right, host, headers).await, served());
        assert_eq!(scene.ask("strict", &other, host, headers).await, required());
        let answer = scene.stack.agent().get(scene.stack.proxy, host, "/v1/x", headers).await;
        assert_eq!(said(&answer), required());
    }
    for hit in scene.stack.upstream().wait_for(3, SOON).await {
        assert_eq!(hit.fields.all("x-custom-key"), [format!("Key {CUSTOM}").as_bytes()]);
        assert!(!hit.fields.has("authorization"));
    }
    // A credential that asks for a placeholder is not given without one, whoever asks.
    assert_eq!(scene.ask("strict", &right, HOST, &[]).await, required());
    // Nor is a session that demands nothing known by its token alone.
    let token = scene.stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    let answer = scene.stack.agent().get(scene.stack.proxy, host, "/v1/x", &[("x-attache-session", &token)]).await;
    assert_eq!(said(&answer), required());
    assert_eq!(evidence_of(&scene.stack, "bound", 3).await, ["peer"; 3]);
    scene.stack.reconcile().await;
}

/// Envoys that do not say whether they have verified a certificate: nobody is believed to be a peer.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_tells_of_no_peer_serves_nobody_who_is_bound_to_one() {
    for version in served_envoys() {
        if version.parse::<attache_broker::envoy::Version>().expect("a version").tells_peers() {
            continue;
        }
        let Some(envoy) = released(&version) else { continue };
        let scene = Scene::start(Plan::default().on(envoy)).await;
        let bearer = scene.bearer();
        // Operators hear of it.
        let written = scene.stack.broker.cli(&["envoy-config", "--envoy-version", &version, "--filter", "/f.wasm"]);
        let doctor =
            scene.stack.broker.cli(&["doctor", "--envoy-admin", &format!("http://{}", scene.stack.envoy.admin())]);
        for said in [written.stdout, written.stderr, doctor.stdout] {
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(said.contains("before 1.39 Envoy does not tell filters"), "{version}: {said}");
        }
        for listener in ["strict", "lax"] {
            let said = scene.ask(listener, &scene.as_peer(AGENT), HOST, &[("authorization", &bearer)]).await;
            assert_eq!(said, required(), "{version}, {listener}");
        }
        assert!(scene.stack.upstream().requests().is_empty());
    }
}
