//! The bootstraps in `envoy/` do what they are there to be copied for: each runs on a real Envoy, as it is but for where
//! things lie on this machine, beside a broker on the example's own config.

use std::net::SocketAddr;
use std::path::PathBuf;

use attache_broker::envoy::{LISTENER, Version};
use attache_tests::envoy::{Options, binary};
use attache_tests::stack::GITHUB;
use attache_tests::{Agent, Attache, Ca, Envoy, Response, Upstream, ca, util};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOST: &str = "api.github.com";
/// Where the example has its state, its filter's module and its authorities.
const STATE: &str = "/var/lib/attache";
const FILTER: &str = "/usr/lib/attache/attache_filter.";
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// One of the files, running.
struct Scene {
    dir: TempDir,
    upstream: Upstream,
    broker: Attache,
    envoy: Envoy,
    proxy: SocketAddr,
}

impl Scene {
    async fn of(file: &str) -> Self {
        let (dir, ca) = (util::temp_dir(), Ca::new());
        let upstream = Upstream::tls(&ca, &[HOST]).start().await;
        let config = dir.path().join("attache.yaml");
        let upstream_at = format!("{{address: '{}', ca_file: {}}}", upstream.addr(), ca.pem_path().display());
        let mut text = shipped("attache.yaml");
        for (here, there) in [
            (STATE, dir.path().join("state").display().to_string()),
            ("proxy: 127.0.0.1:3030", "proxy: 127.0.0.1:0".to_owned()),
            (
                "github: {preset: github}",
                format!("github: {{preset: github, destinations: [{{host: {HOST}, upstream: {upstream_at}}}]}}"),
            ),
        ] {
            assert!(text.contains(here), "the example says nothing of {here}");
            text = text.replace(here, &there);
        }
        std::fs::write(&config, text).expect("a directory of ours");
        let broker = Attache::serve(&config, &[("GITHUB_TOKEN", GITHUB)]).await;

        let mut bootstrap: Value = serde_saphyr::from_str(&shipped(file)).expect("YAML");
        let roots = ca.pem_path().display().to_string();
        moved(&mut bootstrap, &dir.path().join("state").display().to_string(), &roots);
        bootstrap["admin"]["address"] = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
        for listener in bootstrap["static_resources"]["listeners"].as_array_mut().expect("listeners") {
            if let Some(port) = listener.pointer_mut("/address/socket_address/port_value") {
                *port = 0.into();
            }
        }
        for cluster in bootstrap["static_resources"]["clusters"].as_array_mut().expect("clusters") {
            if cluster["name"] == "attache_dst_api.github.com_443" && cluster["type"] != "ORIGINAL_DST" {
                let cluster = cluster.as_object_mut().expect("a cluster");
                cluster.remove("cluster_type").expect("it is looked up");
                cluster.insert("type".into(), "STATIC".into());
                cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
                    upstream.endpoint();
            }
        }
        let envoy = Envoy::start(&bootstrap, Options::default()).await;
        let proxy = envoy.addr(LISTENER).await;
        Self { dir, upstream, broker, envoy, proxy }
    }

    async fn ask(&self, session: &str, method: &str) -> Response {
        let bearer = format!("Bearer {}", self.broker.exported(session, "GITHUB_TOKEN"));
        let path = format!("/{HOST}/user");
        Agent::new().request(self.proxy, method, "127.0.0.1:3030", &path, &[("authorization", &bearer)], b"").await
    }

    /// What came to the upstream is this, and nothing else, with the real credential.
    fn only_reads_have_arrived(&self, reads: usize) {
        let arrived = self.upstream.requests();
        let real = Some(format!("Bearer {GITHUB}"));
        assert_eq!(arrived.len(), reads, "{arrived:#?}");
        assert!(arrived.iter().all(|one| one.path_text() == "/user" && one.header("authorization") == real));
    }

    /// Doctor finds nothing that must not be in what runs.
    fn is_sound(&self) {
        let admin = format!("http://{}", self.envoy.admin());
        let examined = self.broker.cli(&["doctor", "--envoy-admin", &admin]);
        let text = String::from_utf8_lossy(&examined.stdout).into_owned();
        assert!(examined.status.success() && !text.contains("FAIL"), "{text}");
    }
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(util::workspace_root().join("envoy").join(file)).expect("a file that ships")
}

/// What lies elsewhere is here.
fn moved(node: &mut Value, state: &str, roots: &str) {
    match node {
        Value::Object(members) => members.values_mut().for_each(|member| moved(member, state, roots)),
        Value::Array(items) => items.iter_mut().for_each(|item| moved(item, state, roots)),
        Value::String(text) if text == ROOTS => *text = roots.to_owned(),
        Value::String(text) if text.starts_with(FILTER) => *text = util::filter_wasm().display().to_string(),
        Value::String(text) => *text = text.replace(STATE, state),
        _ => {}
    }
}

fn reason(answer: &Response) -> String {
    answer.header("x-attache-reason").unwrap_or_else(|| format!("{}: {}", answer.status, answer.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_injects_and_refuses() {
    let scene = Scene::of("gateway.yaml").await;
    let answer = scene.ask("reviewer", "GET").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(reason(&scene.ask("reviewer", "POST").await), "read_only");
    // The sidecar's session comes in by its sidecar alone.
    assert_eq!(reason(&scene.ask("helper", "GET").await), "evidence_conflict");
    scene.only_reads_have_arrived(1);
    scene.is_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_injects_and_refuses() {
    let scene = Scene::of("sidecar.yaml").await;
    let answer = scene.ask("helper", "GET").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(reason(&scene.ask("helper", "POST").await), "read_only");
    assert!(scene.proxy.ip().is_loopback());
    scene.only_reads_have_arrived(1);
    scene.is_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forward_proxy_injects_and_refuses() {
    let version = attache_broker::envoy::process::version(&binary()).expect("an Envoy");
    if version < Version::FULL {
        return util::skipped(
            "the forward proxy's file is for the default Envoy; one for an older is tested in `proxies`",
        );
    }
    let scene = Scene::of("forward-proxy.yaml").await;
    let exported = scene.broker.cli(&["ca", "export"]);
    let trusted: PathBuf = scene.dir.path().join("trusted.pem");
    std::fs::write(&trusted, exported.stdout).expect("a directory of ours");
    let token = scene.broker.exported("reviewer", "ATTACHE_SESSION_TOKEN");
    let bearer = format!("Bearer {}", scene.broker.exported("reviewer", "GITHUB_TOKEN"));
    let agent = Agent::new();
    let mut client = agent.h1(scene.proxy).await;
    let shown = [("proxy-authorization", basic(&token))];
    let shown: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = client.connect("api.github.com:443", &shown).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let wire = client.into_tls(HOST, ca::client_trusting(&trusted, &["http/1.1"])).await.expect("a handshake");
    let mut inside = agent.h1_over(wire, "in a tunnel".to_owned());
    let shown = [("authorization", bearer.as_str())];
    let answer = inside.request("GET", HOST, "/user", &shown, b"").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = inside.request("POST", HOST, "/user", &shown, b"").await.expect("an answer");
    assert_eq!(reason(&answer), "read_only");
    scene.only_reads_have_arrived(1);
    scene.is_sound();
}

fn basic(token: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("attache:{token}")))
}
