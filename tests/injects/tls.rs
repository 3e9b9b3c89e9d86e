//! A credential leaves only to a server that has proved its name.

use attache_tests::ca::Leaf;
use attache_tests::matrix::promises_less;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Ca, Response, Stack, Upstream, util};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData as _;
use sha2::{Digest as _, Sha256};

/// A credential `NAME` for `NAME.extra.test`, exported as `NAME_KEY`.
fn credential(plan: Plan, name: &str, destination: &str) -> Plan {
    let yaml = format!(
        "{{source: {{file: {name}}}, inject: bearer, agent_env: {{{}_KEY: placeholder}}, \
         destinations: [{{host: {name}.extra.test, {destination}}}]}}",
        name.to_uppercase()
    );
    plan.credential(name, &secret(name), &yaml).session(&format!("{{name: {name}, credentials: [{name}]}}"))
}

fn secret(name: &str) -> String {
    format!("the-real-secret-of-{name}")
}

fn dial(upstream: &Upstream, ca: Option<&Ca>) -> String {
    let ca_file = ca.map(|ca| format!(", ca_file: {}", ca.pem_path().display())).unwrap_or_default();
    format!("upstream: {{address: '{}'{ca_file}}}", upstream.addr())
}

async fn ask(stack: &Stack<Attache>, name: &str) -> u16 {
    answer(stack, name).await.status
}

async fn answer(stack: &Stack<Attache>, name: &str) -> Response {
    let placeholder = stack.broker.exported(name, &format!("{}_KEY", name.to_uppercase()));
    stack.get(&format!("{name}.extra.test"), "/v1", &placeholder).await
}

/// What an agent is told of each.
fn why(name: &str) -> &'static str {
    match name {
        "misnamed" | "byaddress" => "SAN",
        "expired" => "certificate_has_expired",
        "bare" => "WRONG_VERSION_NUMBER",
        "selfsigned" => "self",
        _ => "unable_to_get_local_issuer_certificate",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_its_name_gets_nothing() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let name = |name: &str| format!("{name}.extra.test");
    let mut servers = Vec::new();
    let mut plan = Plan::default();
    for (credential_name, leaf, trusted) in [
        ("misnamed", ca.issue(&["other.extra.test", "extra.test"]), Some(&ca)),
        ("unknown", stranger.issue(&[&name("unknown")]), Some(&ca)),
        ("expired", ca.issue_expired(&[&name("expired")]), Some(&ca)),
        ("selfsigned", Leaf::self_signed(&[&name("selfsigned")]), Some(&ca)),
        ("systemroots", ca.issue(&[&name("systemroots")]), None),
        ("byaddress", ca.issue(&["127.0.0.1"]), Some(&ca)),
    ] {
        let server = Upstream::tls(&ca, &["replaced"]).certificate(leaf).start().await;
        plan = credential(plan, credential_name, &dial(&server, trusted));
        servers.push((credential_name, server));
    }
    // No TLS at all where the config does not say so.
    let bare = Upstream::plain().start().await;
    plan = credential(plan, "bare", &dial(&bare, Some(&ca)));
    servers.push(("bare", bare));

    let stack = plan.start().await;
    let less = promises_less("injects::tls::a_server_that_cannot_prove_its_name_gets_nothing");
    for (name, server) in &servers {
        stack.site.oracle.upstream(name, server, &[]);
        let answer = answer(&stack, name).await;
        assert_eq!((answer.status, answer.header("x-attache-reason")), (502, Some("upstream_tls".into())), "{name}");
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        // Or that a certificate was not verified, and no more.
        let says_why = *name == "bare" || !less;
        let expected = if says_why { why(name) } else { "CERTIFICATE_VERIFY_FAILED" };
        assert!(detail.contains(expected), "{name}: {detail}");
        let seen = server.requests();
        let said: Vec<u8> = seen.iter().flat_map(|request| request.body.to_vec()).collect();
        // A server without TLS records the handshake it was offered as bytes that are no HTTP.
        assert!(seen.iter().all(|request| request.fields.0.is_empty()), "{name}: {seen:#?}");
        assert!(!String::from_utf8_lossy(&said).contains(&secret(name)), "{name}");
        // It was dialled; what became of that is on record once the server has heard of it.
        util::eventually(SOON, || !server.connections().is_empty()).await;
        if *name != "bare" {
            assert!(server.connections().iter().all(|one| one.handshake_error.is_some()), "{name}");
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_key_is_as_good_as_a_name_and_another_key_is_not() {
    let ca = Ca::new();
    let (right, wrong) = (Leaf::self_signed(&["device.local"]), Leaf::self_signed(&["pinned.extra.test"]));
    let pin = spki(&right);
    let device = Upstream::tls(&ca, &["replaced"]).certificate(right).start().await;
    let impostor = Upstream::tls(&ca, &["replaced"]).certificate(wrong).start().await;
    let with_pin = |server: &Upstream| format!("spki_sha256: {pin}, {}", dial(server, None));
    let plan = credential(Plan::default(), "device", &with_pin(&device));
    let stack = credential(plan, "impostor", &with_pin(&impostor)).start().await;
    stack.site.oracle.upstream("device", &device, &[("device", "device.extra.test:443")]);
    stack.site.oracle.upstream("impostor", &impostor, &[]);

    assert_eq!(ask(&stack, "device").await, 200);
    let hits = device.wait_for(1, SOON).await;
    assert!(hits[0].secrets.contains("device"), "the oracle has a hit to reconcile");
    assert_eq!(hits[0].header("authorization"), Some(format!("Bearer {}", secret("device"))));
    assert_eq!(ask(&stack, "impostor").await, 502);
    assert!(impostor.requests().is_empty());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_only_where_the_config_says_so() {
    let server = Upstream::plain().start().await;
    let plan = credential(Plan::default(), "plain", &format!("plaintext: true, {}", dial(&server, None)));
    let stack = plan.start().await;
    stack.site.oracle.upstream("plain", &server, &[("plain", "plain.extra.test:80")]);
    assert_eq!(ask(&stack, "plain").await, 200);
    let hits = server.wait_for(1, SOON).await;
    assert_eq!(hits[0].header("authorization"), Some(format!("Bearer {}", secret("plain"))));
    assert_eq!(&hits[0].authority[..], b"plain.extra.test");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_speaks_http_1_only_is_served() {
    let ca = Ca::new();
    let server = Upstream::tls(&ca, &["old.extra.test"]).alpn(&["http/1.1"]).start().await;
    let stack = credential(Plan::default(), "old", &dial(&server, Some(&ca))).start().await;
    stack.site.oracle.upstream("old", &server, &[("old", "old.extra.test:443")]);
    assert_eq!(ask(&stack, "old").await, 200);
    let hits = server.wait_for(1, SOON).await;
    assert_eq!(hits[0].fields.all("authorization"), [format!("Bearer {}", secret("old")).as_bytes()]);
    assert_eq!(&hits[0].authority[..], b"old.extra.test");
    stack.reconcile().await;
}

/// The SHA-256 of a certificate's public key, base64: what `openssl` prints for the pin.
fn spki(leaf: &Leaf) -> String {
    let key = rcgen::KeyPair::from_pem(leaf.pems().1).expect("a key of ours");
    STANDARD.encode(Sha256::digest(key.subject_public_key_info()))
}
