//! The shipped config, its upstream and its broker, and an Envoy that runs what the manifests come to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use attache_broker::cli::envoy_config::MachineArgs;
use attache_broker::config::{Config, Overrides};
use attache_broker::envoy::istio::{self, Module, Part, Topology};
use attache_broker::envoy::{self, Shape, find};
use attache_tests::attache::Attache;
use attache_tests::envoy::{Envoy, Options};
use attache_tests::{Agent, Ca, Oracle, Response, Secrets, Upstream, util};
use serde_json::Value;
use tempfile::TempDir;

use crate::istiod::{self, Surroundings};

pub const GITHUB: &str = "ghp_TheRealTokenInTheMesh0123456789abcde";
const OPENAI: &str = "sk-the-real-key-in-the-mesh-0123456789";
const SENTRY: &str = "the-real-token-of-sentry-in-the-mesh-012";
/// Which credential goes where, as the shipped config says.
const BOUND: [(&str, &str); 5] = [
    ("github", "api.github.com"),
    ("github", "uploads.github.com"),
    ("github", "github.com"),
    ("openai", "api.openai.com"),
    ("sentry", "sentry.io"),
];
const EXPORTED: [(&str, &str); 4] =
    [("github", "GITHUB_TOKEN"), ("github", "GH_TOKEN"), ("openai", "OPENAI_API_KEY"), ("sentry", "SENTRY")];

/// The shipped config, whose state is elsewhere.
pub fn shipped() -> PathBuf {
    util::workspace_root().join("envoy/istio/attache.yaml")
}

/// The module that is built here, where the shipped manifests have it.
pub fn module() -> Module {
    let digest = find::sha256(&std::fs::read(util::filter_wasm()).expect("the module"));
    Module { url: "https://modules.example/attache_filter.wasm".to_owned(), sha256: digest }
}

/// Everything of a mesh that concerns us, running.
pub struct World {
    pub envoy: Envoy,
    pub agents: SocketAddr,
    pub broker: Attache,
    pub upstream: Upstream,
    pub oracle: Oracle,
    _ca: Ca,
    dir: TempDir,
}

/// A change to something before it is read.
pub type Change<'a, T> = Option<&'a dyn Fn(&mut T)>;

/// What is changed before anything runs.
#[derive(Default)]
pub struct Changes<'a> {
    /// To the manifests.
    pub manifests: Change<'a, Vec<Value>>,
    /// To what Envoy reads.
    pub bootstrap: Change<'a, Value>,
    /// To the text of the config.
    pub config: Option<&'a dyn Fn(String) -> String>,
    /// Whether the broker is reached by mutual TLS, as the manifests say, in place of its socket.
    pub mutual: bool,
    /// Whether the authority of the upstream is none that the system trusts.
    pub distrusted: bool,
}

impl World {
    pub async fn start(topology: Topology, part: Part) -> Self {
        Self::changed(topology, part, Changes::default()).await
    }

    pub async fn changed(topology: Topology, part: Part, changes: Changes<'_>) -> Self {
        let dir = util::temp_dir();
        let written = std::fs::read_to_string(shipped()).expect("the shipped config");
        let mesh = changes.mutual.then(|| Mesh::write(topology, dir.path()));
        let text = written.replace("/var/lib/attache", "state");
        let text = listening(&text, mesh.as_ref(), dir.path());
        let text = changes.config.map_or(text.clone(), |change| change(text));
        let path = dir.path().join("attache.yaml");
        std::fs::write(&path, text).expect("the config");
        for (file, secret) in [("github_token", GITHUB), ("openai_api_key", OPENAI), ("sentry_token", SENTRY)] {
            keep(dir.path(), file, secret);
        }
        let config = Config::load(Some(&path), &Overrides::default(), &|_| None);
        let config = config.unwrap_or_else(|errors| panic!("the shipped config is wrong:\n{errors}"));

        let ca = Ca::new();
        let secrets = Secrets::new([("github", GITHUB), ("openai", OPENAI), ("sentry", SENTRY)]);
        let names = BOUND.map(|(_, host)| host);
        let upstream = Upstream::tls(&ca, &names).doors(names).start().await;
        let oracle = Oracle::new(&secrets);
        oracle.audit(dir.path().join("state/default/audit.jsonl"));
        let places = BOUND.map(|(name, host)| (name, format!("{host}:443")));
        oracle.upstream("upstream", &upstream, &places.each_ref().map(|(name, place)| (*name, place.as_str())));
        EXPORTED.iter().for_each(|(credential, variable)| oracle.exports(credential, variable));
        let broker = Attache::serve(&path, &[]).await;
        oracle.evidence(broker.evidence());

        let bootstrap = simulated(topology, part, &config, &changes, (&ca, &upstream, dir.path(), mesh));
        let envoy = Envoy::start(&bootstrap, Options::default()).await;
        oracle.log("envoy", envoy.log_path());
        let agents = envoy.listeners().await[0].1;
        Self { envoy, agents, broker, upstream, oracle, _ca: ca, dir }
    }

    /// An agent that asks for `http://HOST/PATH`.
    pub async fn send(&self, method: &str, url: (&str, &str), fields: &[(&str, &str)], body: &[u8]) -> Response {
        let agent: Agent = self.oracle.agent();
        agent.request(self.agents, method, url.0, url.1, fields, body).await
    }

    pub async fn get(&self, url: (&str, &str), placeholder: &str) -> Response {
        self.send("GET", url, &[("authorization", &format!("Bearer {placeholder}"))], b"").await
    }

    pub fn placeholder(&self, session: &str, variable: &str) -> String {
        self.broker.exported(session, variable)
    }

    /// The audit log so far.
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("state/default/audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Everything that was seen adds up.
    pub async fn reconcile(&self) {
        self.oracle.text("config_dump", self.envoy.config_dump().await);
        self.oracle.reconcile().await;
    }
}

fn simulated(
    topology: Topology,
    part: Part,
    config: &Config,
    changes: &Changes<'_>,
    (ca, upstream, dir, mesh): (&Ca, &Upstream, &Path, Option<Mesh>),
) -> Value {
    let policy = config.policy();
    let of = |part| istio::manifests(topology, part, config, &policy, &module()).expect("manifests");
    let mut manifests = of(Part::Mesh);
    manifests.extend(of(part));
    if let Some(change) = changes.manifests {
        change(&mut manifests);
    }
    let system = find::system_roots().expect("the system's authorities");
    let roots = if changes.distrusted { system } else { ca.pem_path() };
    let around = Surroundings {
        door: &|host| upstream.door(host),
        roots: &roots,
        broker: broker_cluster(config, mesh.is_some()),
        mesh,
        module: &util::filter_wasm(),
        dir,
    };
    let mut bootstrap = istiod::bootstrap(topology, &manifests, &around);
    if let Some(change) = changes.bootstrap {
        change(&mut bootstrap);
    }
    bootstrap
}

/// The config's `listen`: by mutual TLS where this test has certificates for it, else by a socket and a token.
fn listening(text: &str, mesh: Option<&Mesh>, dir: &Path) -> String {
    let (before, rest) = text.split_once("# Envoys of the mesh ask").expect("where `listen` begins");
    let (listen, after) = rest.split_once("\n\n").expect("where it ends");
    let Some(mesh) = mesh else { return format!("{before}{after}") };
    let listen = listen.replace("/etc/attache/tls", &dir.join("broker").display().to_string());
    let listen = listen.replace("0.0.0.0:3031", &format!("127.0.0.1:{}", mesh.port));
    format!("{before}#{}\n\n{after}", listen.replace("  health: 0.0.0.0:3033\n", ""))
}

/// What the mesh's authority gives a workload, in files: those of the broker, and those that stand for what Istio's agent
/// serves by SDS.
pub struct Mesh {
    /// Where the broker listens.
    pub port: u16,
    /// `tls.crt`, `tls.key` and `ca.crt` of the proxy.
    pub proxy: PathBuf,
}

impl Mesh {
    fn write(topology: Topology, dir: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let authority = Ca::new();
        let workload = |name: &str, id: &str| {
            let leaf = authority.issue_with(&[], |params| {
                params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().expect("a URI"))];
                // As Istio's own authority signs them.
                params.extended_key_usages =
                    vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            });
            let at = dir.join(name);
            std::fs::create_dir(&at).expect("a directory");
            let (certificate, key) = leaf.pems();
            for (file, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.pem())] {
                std::fs::write(at.join(file), text).expect("a file");
                std::fs::set_permissions(at.join(file), PermissionsExt::from_mode(0o600)).expect("private");
            }
            at
        };
        workload("broker", istio::BROKER_ID);
        let id = match topology {
            Topology::EgressGateway => "spiffe://cluster.local/ns/attache-egress/sa/attache-egress",
            Topology::Sidecar => "spiffe://cluster.local/ns/agents/sa/builder",
        };
        Self { port: util::free_port(), proxy: workload("proxy", id) }
    }
}

/// The way to the broker of this test, as a bootstrap of our own has it: its UNIX socket, and its token. By mutual TLS
/// none is needed: the manifests have it.
fn broker_cluster(config: &Config, mutual: bool) -> Value {
    if mutual {
        return Value::Null;
    }
    let machine =
        MachineArgs { filter: Some(util::filter_wasm()), filter_sha256: None, system_roots: None, admin: None };
    let version = envoy::TESTED_VERSION.parse().expect("a version");
    let machine = machine.on_this_machine(config, version).expect("a machine");
    let bootstrap = envoy::bootstrap(Shape::Gateway, config, &config.policy(), &machine);
    let clusters = bootstrap["static_resources"]["clusters"].as_array().expect("clusters");
    clusters.iter().find(|cluster| cluster["name"] == envoy::BROKER_CLUSTER).expect("the broker's").clone()
}

fn keep(dir: &Path, file: &str, secret: &str) {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
    let secrets = dir.join("state/default/secrets");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets).expect("a directory");
    for dir in secrets.ancestors().take(3) {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).expect("private");
    }
    let path = secrets.join(file);
    std::fs::write(&path, secret).expect("a secret");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("private");
}
