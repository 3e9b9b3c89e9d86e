//! Certificates are rotated while requests go through: all of them are served. What is no good is kept out, and
//! told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attache_tests::Ca;
use attache_tests::agent::{Agent, Unanswered, head};
use attache_tests::ca::Leaf;
use attache_tests::stack::{Plan, SOON};
use serde_json::{Value, json};

use crate::pki::{GATEWAY, SIDECAR, Volume, broker_leaf, client_leaf};
use crate::scene::{HOST, Scene};

/// A file's name, content and mode.
type FileOf<'a> = (&'a str, &'a str, u32);
/// How long each step is under load: leases and polls go to and fro meanwhile.
const STEP: Duration = Duration::from_millis(2_000);

/// Agents that ask all the time, each of another session, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    agents: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    async fn on(scene: &Scene, agents: usize) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for n in 0..agents {
            let name = format!("loaded-{n}");
            scene.stack.broker.json(&["session", "create", &name, "--credential", "github"]);
            let bearer = format!("Bearer {}", scene.stack.placeholder(&name, "github"));
            let (proxy, stop, served) = (scene.stack.proxy, stop.clone(), served.clone());
            let agent: Agent = scene.stack.agent();
            tasks.push(tokio::spawn(async move {
                let mut lost = Vec::new();
                let mut connection = agent.h1(proxy).await;
                while !stop.load(Ordering::Relaxed) {
                    let headers = [("authorization", bearer.as_str())];
                    match connection.request("GET", HOST, "/user", &headers, b"").await {
                        Ok(answer) if answer.status == 200 => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Ok(answer) => lost.push(format!("{} {:?}", answer.status, answer.header("x-attache-reason"))),
                        Err(why) => {
                            lost.push(why.to_string());
                            connection = agent.h1(proxy).await;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                lost
            }));
        }
        Self { stop, served, agents: tasks }
    }

    async fn goes_on(&self) {
        let (before, end) = (self.served.load(Ordering::Relaxed), Instant::now() + STEP);
        while Instant::now() < end || self.served.load(Ordering::Relaxed) < before + 20 {
            assert!(Instant::now() < end + SOON, "nothing is served any more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for agent in self.agents {
            assert_eq!(agent.await.expect("an agent"), Vec::<String>::new(), "lost");
        }
        self.served.load(Ordering::Relaxed)
    }
}

/// The secrets of an Envoy that looks again when its volume is swapped.
fn sds(volume: &Volume) -> [Value; 2] {
    let file = |name: &str| json!({"filename": volume.path().join(name)});
    let watched = json!({"path": volume.path()});
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let certificate = json!({"@type": kind, "name": "attache_client", "tls_certificate": {
        "certificate_chain": file("tls.crt"), "private_key": file("tls.key"), "watched_directory": watched,
    }});
    let ca = json!({"@type": kind, "name": "attache_broker_ca", "validation_context": {
        "trusted_ca": file("ca.crt"), "watched_directory": watched,
    }});
    [certificate, ca].map(|secret| json!({"resources": [secret]}))
}

/// Waits until new connections see this certificate.
async fn shows(scene: &Scene, wanted: &Leaf, trusted: &Ca, own: &Leaf) {
    let end = Instant::now() + SOON;
    let pem = wanted.pems().0.replace("-----BEGIN CERTIFICATE-----", "").replace("-----END CERTIFICATE-----", "");
    let wanted: String = pem.split_whitespace().collect();
    loop {
        use base64::Engine as _;
        let tls = trusted.client_as(&[], own);
        let wire = attache_tests::agent::Wire::plain(scene.door).await.secured(crate::pki::SERVER, tls).await;
        let shown = wire.ok().and_then(|wire| wire.peer_certificate()).unwrap_or_default();
        if base64::engine::general_purpose::STANDARD.encode(shown) == wanted {
            return;
        }
        assert!(Instant::now() < end, "the certificate is not picked up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_all_certificates_and_the_authority_are_rotated() {
    let plan = Plan::default().limit("grant_ttl: 1s").workers(2);
    let scene = Scene::start_by(GATEWAY, plan, |envoy, dir| {
        let [own, ca] = [dir.join("own.json"), dir.join("ca.json")];
        for (file, secret) in [&own, &ca].into_iter().zip(sds(envoy)) {
            std::fs::write(file, secret.to_string()).expect("a file");
        }
        format!("sds: {{certificate: '{}', ca: '{}'}}", own.display(), ca.display())
    })
    .await;
    let load = Load::on(&scene, 4).await;
    load.goes_on().await;

    // Another certificate of the same authority.
    let own = client_leaf(&scene.mesh, &[GATEWAY]);
    let second = broker_leaf(&scene.mesh);
    scene.broker.swap(&second, scene.mesh.pem());
    shows(&scene, &second, &scene.mesh, &own).await;
    load.goes_on().await;

    // Another authority: first both are trusted, on both sides.
    let next = Ca::new();
    let both = format!("{}{}", scene.mesh.pem(), next.pem());
    let third = broker_leaf(&scene.mesh);
    scene.broker.swap(&third, &both);
    scene.envoy.swap(&own, &both);
    shows(&scene, &third, &scene.mesh, &own).await;
    load.goes_on().await;
    // Then Envoy's certificate is of the next one, and the broker's.
    let theirs = client_leaf(&next, &[GATEWAY]);
    scene.envoy.swap(&theirs, &both);
    load.goes_on().await;
    let fourth = broker_leaf(&next);
    scene.broker.swap(&fourth, &both);
    shows(&scene, &fourth, &next, &theirs).await;
    load.goes_on().await;
    // Then the former is trusted no more.
    let fifth = broker_leaf(&next);
    scene.broker.swap(&fifth, next.pem());
    shows(&scene, &fifth, &next, &theirs).await;
    load.goes_on().await;
    assert!(scene.caller(GATEWAY).ask("GET", "/healthz", &Value::Null).await.is_err(), "of the former");

    println!("{} requests were served", load.end().await);
    // A record whose delivery met the end of a connection is delivered again.
    let path = scene.stack.dir().join("state/default/audit.jsonl");
    attache_tests::util::eventually(3 * SOON, || {
        let (audit, _) = attache_tests::oracle::Audit::read(Some(&path));
        audit.of_kind("use").count() >= scene.stack.upstream().requests().len()
    })
    .await;
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_by_an_authority_that_is_trusted_no_more_is_shown_out() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let caller = scene.caller(SIDECAR);
    let mut connected = caller.connect().await.expect("a connection");
    let answer = connected.request("GET", "attache", "/healthz", &[], b"").await.expect("an answer");
    assert_eq!(answer.status, 200);
    scene.broker.swap(&broker_leaf(&scene.mesh), Ca::new().pem());
    // It ends by itself, whoever says something on it or not.
    attache_tests::util::within(SOON, connected.rest(SOON)).await.expect("closed");
    assert!(caller.ask("GET", "/healthz", &Value::Null).await.is_err());
}

/// A stream for certificates has no end of its own.
#[tokio::test(flavor = "multi_thread")]
async fn nor_does_an_open_stream_keep_whose_authority_is_trusted_no_more() {
    const CERTIFICATES: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let tls = scene.mesh.client_as(&["h2"], &client_leaf(&scene.mesh, &[GATEWAY]));
    let wire = attache_tests::agent::Wire::plain(scene.door).await.secured(crate::pki::SERVER, tls).await;
    let mut connected = Agent::new().h2_over(wire.expect("a handshake"), "certificates").await;
    let asked = head("POST", "attache", CERTIFICATES, &[("content-type", "application/grpc"), ("te", "trailers")]);
    let stream = connected.start(asked, false).await.expect("begun");
    scene.broker.swap(&broker_leaf(&scene.mesh), Ca::new().pem());
    let end = stream.response(2 * SOON).await;
    assert!(!matches!(end, Err(Unanswered::TimedOut(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_when_its_certificate_ends_is_shown_out() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let leaf = scene.mesh.issue_with(&[], |params| {
        params.subject_alt_names = vec![rcgen::SanType::URI(SIDECAR.try_into().expect("a URI"))];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = std::time::SystemTime::now().checked_add(Duration::from_secs(4)).expect("soon").into();
    });
    let caller = scene.caller_with(&leaf);
    let mut connected = caller.connect().await.expect("a connection");
    let answer = connected.request("GET", "attache", "/healthz", &[], b"").await.expect("an answer");
    assert_eq!(answer.status, 200);
    attache_tests::util::within(SOON, connected.rest(SOON)).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_good_are_kept_out_and_told_until_they_are() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let good = broker_leaf(&scene.mesh);
    let (certificate, key) = good.pems();
    let (other, expired) = (broker_leaf(&scene.mesh), scene.mesh.issue_expired(&[crate::pki::SERVER]));
    let ca = scene.mesh.pem();
    let bad: [(&str, [FileOf<'_>; 3], &str); 6] = [
        (
            "a key that everybody reads",
            [("tls.crt", certificate, 0o644), ("tls.key", key, 0o644), ("ca.crt", ca, 0o644)],
            "chmod 0640",
        ),
        (
            "another's key",
            [("tls.crt", certificate, 0o644), ("tls.key", other.pems().1, 0o600), ("ca.crt", ca, 0o644)],
            "do not belong together",
        ),
        (
            "no key",
            [("tls.crt", certificate, 0o644), ("tls.key", "secret-words", 0o440), ("ca.crt", ca, 0o644)],
            "holds no private key",
        ),
        (
            "no certificate",
            [("tls.crt", "", 0o644), ("tls.key", key, 0o640), ("ca.crt", ca, 0o644)],
            "holds no certificate",
        ),
        (
            "no authority",
            [("tls.crt", certificate, 0o644), ("tls.key", key, 0o640), ("ca.crt", "secret-words", 0o644)],
            "listen.data_plane.tls.client_ca",
        ),
        (
            "one that has ended",
            [("tls.crt", expired.pems().0, 0o644), ("tls.key", expired.pems().1, 0o640), ("ca.crt", ca, 0o644)],
            "has ended",
        ),
    ];
    let placeholder = scene.stack.placeholder("writer", "github");
    let until = async |state: &str, words: &str| {
        let end = Instant::now() + SOON;
        loop {
            let told = scene.certificates().await;
            if told["state"] == state && told["reason"].as_str().unwrap_or_default().contains(words) {
                return told;
            }
            assert!(Instant::now() < end, "{words}: {told:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until("ok", "").await;
    for (what, files, words) in bad {
        scene.broker.put(&files);
        let told = until("failed", words).await;
        assert!(told["needed"] == false && !told.to_string().contains("secret-words"), "{what}: {told:#}");
        assert_eq!(scene.stack.get(HOST, "/user", &placeholder).await.status, 200, "{what}");
        assert_eq!(scene.caller(SIDECAR).ask("GET", "/healthz", &Value::Null).await.expect("in").status, 200, "{what}");
    }
    let log = std::fs::read_to_string(scene.stack.broker.log_path()).expect("a log");
    assert!(log.contains("those of before stay in use") && !log.contains("secret-words"), "{log}");
    // As a kubelet writes them for a group.
    scene.broker.put(&[("tls.crt", certificate, 0o440), ("tls.key", key, 0o440), ("ca.crt", ca, 0o440)]);
    until("ok", "").await;
    shows(&scene, &good, &scene.mesh, &client_leaf(&scene.mesh, &[SIDECAR])).await;
    scene.stack.reconcile().await;
}
