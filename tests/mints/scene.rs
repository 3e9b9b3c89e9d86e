//! A broker, and an Envoy that ends TLS with its certificates. What Envoy is told of them is what the
//! bootstrap of a forward proxy says; behind the handshake there is one answer for all.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attache_broker::cli::envoy_config::MachineArgs;
use attache_broker::config::{Config, Overrides};
use attache_broker::envoy::{self, Shape};
use attache_tests::agent::Wire;
use attache_tests::envoy::Options;
use attache_tests::{Attache, Envoy, ca, util};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a handshake may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);
/// A destination of every scene.
pub const HOST: &str = "api.github.com";
/// Where TLS is ended.
pub const LISTENER: &str = "tls";

/// Both of them.
pub struct Scene {
    dir: TempDir,
    pub broker: Attache,
    pub config: Config,
    pub envoy: Envoy,
    bootstrap: Value,
}

/// What a server says to a client's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes on with the handshake.
    Offers,
    /// It ends it with this alert.
    Alert(u8),
    /// It goes away.
    Closes,
}

impl Scene {
    /// A scene with the usual destinations.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// The same, and more at the top level of the config.
    pub async fn with(extra: &str) -> Self {
        let dir = util::temp_dir();
        write(&dir, extra);
        let (path, config) = load(&dir);
        let broker = Attache::serve(&path, &[]).await;
        let bootstrap = bootstrap(&config);
        let envoy = Envoy::start(&bootstrap, options()).await;
        Self { dir, broker, config, envoy, bootstrap }
    }

    /// Another config, for the next start of the broker.
    pub fn rewrite(&self, extra: &str) {
        write(&self.dir, extra);
    }

    /// Another Envoy in place of this one.
    pub async fn restart_envoy(&mut self) {
        self.envoy = Envoy::start(&self.bootstrap, options()).await;
    }

    /// Where TLS is ended.
    pub async fn addr(&self) -> SocketAddr {
        self.envoy.addr(LISTENER).await
    }

    /// A file in the state directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.config.state_dir.join(name)
    }

    /// What `attache ca export` prints.
    pub fn export(&self) -> String {
        printed(&self.broker, &["ca", "export"])
    }

    /// A whole handshake by a client that trusts these certificates alone; the leaf it was shown, DER.
    pub async fn shake(&self, host: &str, trusted: &str) -> io::Result<Vec<u8>> {
        self.shake_with(host, client(trusted)).await
    }

    /// The same, set up otherwise.
    pub async fn shake_with(&self, host: &str, tls: Arc<ClientConfig>) -> io::Result<Vec<u8>> {
        shake(self.addr().await, host, tls).await
    }

    /// Where the config lies.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("attache.yaml")
    }

    /// Waits until a client that trusts these certificates alone gets through.
    pub async fn answers_to(&self, host: &str, trusted: &str) {
        let (tls, end) = (client(trusted), Instant::now() + SOON);
        while let Err(why) = self.shake_with(host, tls.clone()).await {
            assert!(Instant::now() < end, "{host}: {why}");
        }
    }

    /// Waits until Envoy says this to a client that asks for a name.
    pub async fn answers(&self, spelled: Option<&[u8]>, wanted: Answer) {
        let end = Instant::now() + SOON;
        loop {
            let answer = self.hello(spelled).await;
            if answer == wanted {
                return;
            }
            assert!(Instant::now() < end, "{answer:?}");
        }
    }

    /// Waits until Envoy ends the handshakes of clients that ask for a name.
    pub async fn denies(&self, spelled: Option<&[u8]>) {
        let end = Instant::now() + SOON;
        while !matches!(self.hello(spelled).await, Answer::Alert(_)) {
            assert!(Instant::now() < end, "still offered");
        }
    }

    /// What Envoy says to a client that asks for a name in this spelling, or for none.
    pub async fn hello(&self, spelled: Option<&[u8]>) -> Answer {
        hello(self.addr().await, spelled).await
    }
}

/// A whole handshake, a request and its answer; the leaf that the client was shown, DER.
pub async fn shake(addr: SocketAddr, host: &str, tls: Arc<ClientConfig>) -> io::Result<Vec<u8>> {
    let done = async {
        let mut wire = Wire::plain(addr).await.secured(host, tls).await?;
        let leaf = wire.peer_certificate().expect("a certificate");
        // With TLS 1.3 the client is done before the server has said its last word.
        wire.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        wire.read_to_string(&mut answer).await?;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        Ok(leaf)
    };
    util::within(SOON, done).await
}

/// What a server says to a client that asks for a name in this spelling, or for none.
pub async fn hello(addr: SocketAddr, spelled: Option<&[u8]>) -> Answer {
    let said = async {
        let Wire::Plain(mut tcp) = Wire::plain(addr).await else { unreachable!("plain") };
        tcp.write_all(&client_hello(spelled)).await.expect("written");
        let mut record = [0; 7];
        match tcp.read_exact(&mut record).await {
            Ok(_) if record[0] == 22 => Answer::Offers,
            Ok(_) if record[0] == 21 => Answer::Alert(record[6]),
            Ok(_) => panic!("no TLS: {record:?}"),
            Err(_) => Answer::Closes,
        }
    };
    util::within(SOON, said).await
}

/// Asks for a name, and goes away.
pub async fn break_off(addr: SocketAddr, spelled: &[u8]) {
    let Wire::Plain(mut tcp) = Wire::plain(addr).await else { unreachable!("plain") };
    tcp.write_all(&client_hello(Some(spelled))).await.expect("written");
}

/// A client's first words. Clients do not spell names in every way: one of the same length makes way.
fn client_hello(spelled: Option<&[u8]>) -> Vec<u8> {
    let length = spelled.map_or(9, <[u8]>::len).max(3);
    let stand_in = format!("{}.b", "a".repeat(length - 2));
    // Labels are at most 63 long; a dot is as good as a letter here.
    let stand_in: Vec<u8> = stand_in
        .bytes()
        .enumerate()
        .map(|(at, byte)| if at % 50 == 49 && at + 2 < length { b'.' } else { byte })
        .collect();
    let stand_in = String::from_utf8(stand_in).expect("ASCII");
    let mut config = ClientConfig::clone(&ca::client_of(RootCertStore::empty(), &["http/1.1"]));
    config.enable_sni = spelled.is_some();
    let name = ServerName::try_from(stand_in.clone()).expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut words = Vec::new();
    client.write_tls(&mut words).expect("written");
    if let Some(spelled) = spelled {
        let at = words.windows(stand_in.len()).position(|window| window == stand_in.as_bytes()).expect("the name");
        words[at..at + spelled.len()].copy_from_slice(spelled);
    }
    words
}

/// A client that trusts these certificates (PEM) alone.
pub fn client(trusted: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(trusted.as_bytes()).filter_map(Result::ok));
    assert!(!roots.is_empty(), "no certificate in {trusted:?}");
    ca::client_of(roots, &["http/1.1"])
}

/// What a command prints; it succeeds.
pub fn printed(broker: &Attache, args: &[&str]) -> String {
    let done = broker.cli(args);
    assert!(done.status.success(), "attache {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

/// The records of one kind in the audit log.
pub fn records(config: &Config, kind: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(&config.audit.path).expect("the audit log");
    let all = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|record| record["kind"] == kind).collect()
}

pub fn write(dir: &TempDir, extra: &str) {
    let hosts =
        if extra.contains("# no other host") { "" } else { ", {host: api.other.test}, {host: co.uk}, {host: unifi}" };
    let text = format!(
        "state_dir: state\n{extra}\ncredentials:\n  github:\n    source: {{env: GITHUB_TOKEN}}\n    inject: bearer\n    \
         agent_env: {{GITHUB_TOKEN: placeholder}}\n    destinations: [{{host: {HOST}}}, {{host: plain.test, plaintext: true}}{hosts}]\n"
    );
    std::fs::write(dir.path().join("attache.yaml"), text).expect("the config");
}

pub fn load(dir: &TempDir) -> (PathBuf, Config) {
    let path = dir.path().join("attache.yaml");
    let config = Config::load(Some(&path), &Overrides::default(), &|_| None);
    (path, config.unwrap_or_else(|errors| panic!("the test's config is wrong:\n{errors}")))
}

pub fn options() -> Options {
    Options { component_log_level: "config:info".into(), ..Options::default() }
}

/// The bootstrap of a forward proxy, cut down to what ends TLS, on a port of its own.
pub fn bootstrap(config: &Config) -> Value {
    let machine = MachineArgs {
        filter: Some(util::filter_wasm()),
        filter_sha256: None,
        system_roots: None,
        admin: Some("127.0.0.1:0".parse().expect("an address")),
    };
    let version = envoy::TESTED_VERSION.parse().expect("a version");
    let machine = machine.on_this_machine(config, version).expect("the parts of this machine");
    let mut bootstrap = envoy::bootstrap(Shape::ForwardProxy, config, &config.policy(), &machine);
    let parts = &mut bootstrap["static_resources"];
    let listeners = parts["listeners"].as_array().expect("listeners");
    let ends_tls = |listener: &&Value| listener["filter_chains"][0]["transport_socket"].is_object();
    let mut listener = listeners.iter().find(ends_tls).expect("a listener that ends TLS").clone();
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
        ]}]},
    });
    let fields = listener.as_object_mut().expect("a listener");
    fields.retain(|name, _| ["listener_filters", "filter_chains", "filter_chain_matcher"].contains(&name.as_str()));
    listener["name"] = LISTENER.into();
    listener["address"] = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    for chain in listener["filter_chains"].as_array_mut().expect("chains") {
        chain["filters"] = json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    }
    parts["listeners"] = json!([listener]);
    let clusters = parts["clusters"].as_array_mut().expect("clusters");
    clusters.retain(|cluster| cluster["name"] == "attache_ads");
    assert_eq!(clusters.len(), 1, "one cluster leads to the certificates");
    bootstrap
}
