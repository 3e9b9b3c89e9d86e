//! A whole Attaché: upstream, broker (real or fake), a real Envoy with the compiled filter, and the
//! oracle that watches all of them. The bootstrap is the one that `attache envoy-config` prints.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attache_broker::cli::common::Common;
use attache_broker::cli::envoy_config::MachineArgs;
use attache_broker::config::{Config, Overrides};
use attache_broker::envoy::{self, LISTENER, Shape};
use attache_core::placeholder::Shape as Placeholder;
use attache_core::policy::Spec;
use serde_json::Value;
use tempfile::TempDir;

use crate::attache::Attache;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::envoy::{Envoy, Options};
use crate::fake_broker::{FakeBroker, Grant};
use crate::oracle::Evidence;
use crate::{Agent, Ca, Oracle, Response, Secrets, Upstream, util};

/// The GitHub token of every stack.
pub const GITHUB: &str = "ghp_TheRealTokenOfTheUser0123456789abcd";
/// The custom credential's secret: full of characters that mean something somewhere.
pub const CUSTOM: &str = "cu$tom&secret#with:odd=bytes+inside/it?";
/// The query credential's secret, likewise.
pub const QUERY: &str = "qu%41ry&key=1+2/3;~\"x\" #?";
/// How long a test waits for what must come.
pub const SOON: Duration = Duration::from_secs(10);

/// The standard config's credentials and where each is bound: all of them served by the one upstream,
/// each host at a door of its own.
const BOUND: [(&str, &str); 5] = [
    ("github", "api.github.com"),
    ("github", "uploads.github.com"),
    ("github", "github.com"),
    ("custom", "api.custom.test"),
    ("query", "query.custom.test"),
];
/// Where agents have the placeholders of the standard config's credentials.
const EXPORTED: [(&str, &str); 4] =
    [("github", "GITHUB_TOKEN"), ("github", "GH_TOKEN"), ("custom", "CUSTOM_KEY"), ("query", "QUERY_KEY")];

/// What is written before a stack starts.
pub struct Plan {
    sessions: String,
    limits: String,
    extra: String,
    missing: String,
    credentials: Vec<Extra>,
    env: Vec<(String, String)>,
    envoy_env: Vec<(String, String)>,
    under: Vec<String>,
    disk: Option<u64>,
    /// Envoy's worker threads.
    pub concurrency: u32,
    data_plane: Option<SocketAddr>,
    door: Option<String>,
    proxy_socket: bool,
    health: bool,
    shape: Shape,
    envoy: PathBuf,
    /// The filter's module.
    pub filter: PathBuf,
    edit: Box<dyn FnOnce(&mut Value) + Send>,
    policy: Box<dyn Fn(&mut Spec) + Send>,
    trusts_own: bool,
}

/// A credential beside the standard ones.
struct Extra {
    name: String,
    secret: String,
    yaml: String,
}

impl Extra {
    /// The hosts that lead to the one upstream, in the order of their `DIAL`s.
    fn dialled(&self) -> Vec<String> {
        let mut before: Vec<&str> = self.yaml.split("DIAL").collect();
        before.pop();
        let host = |text: &&str| {
            let (_, rest) = text.rsplit_once("{host: ").expect("what is dialled has a host");
            rest.split([',', '}', ' ']).next().unwrap_or_default().to_owned()
        };
        before.iter().map(host).collect()
    }

    /// What stands in the config.
    fn written(&self, dial: impl Fn(&str) -> String) -> String {
        self.dialled().iter().fold(self.yaml.clone(), |yaml, host| yaml.replacen("DIAL", &dial(host), 1))
    }

    /// The variables that may hold its placeholder: those it names, and the source's.
    fn variables(&self) -> Vec<&str> {
        let words = self.yaml.split(|c| "{}[], ".contains(c)).filter(|word| !word.is_empty());
        let words: Vec<&str> = words.collect();
        let variable = |pair: &[&'_ str]| match *pair {
            [_, "placeholder"] => Some(0),
            ["env:", _] => Some(1),
            _ => None,
        };
        let named = words.windows(2).filter_map(|pair| Some(pair[variable(pair)?].trim_end_matches(':')));
        named.collect()
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            sessions: "  - {name: writer, credentials: [github, custom, query]}\n  \
                         - {name: reader, credentials: [github, custom, query], access_mode: read-only}\n"
                .into(),
            limits: String::new(),
            extra: String::new(),
            missing: "deny".into(),
            credentials: Vec::new(),
            env: vec![("QUERY_KEY".into(), QUERY.into())],
            envoy_env: Vec::new(),
            under: Vec::new(),
            disk: None,
            concurrency: 1,
            data_plane: None,
            door: None,
            proxy_socket: false,
            health: false,
            shape: Shape::Gateway,
            envoy: crate::envoy::binary(),
            filter: util::filter_wasm(),
            edit: Box::new(|_| ()),
            policy: Box::new(|_| ()),
            trusts_own: false,
        }
    }
}

impl Plan {
    /// One line of `limits:`.
    pub fn limit(mut self, line: &str) -> Self {
        self.limits += &format!("  {line}\n");
        self
    }

    /// YAML at the top level.
    pub fn extra(mut self, yaml: &str) -> Self {
        self.extra += yaml;
        self
    }

    /// One more session, as a config writes it: `{name: …}`.
    pub fn session(mut self, yaml: &str) -> Self {
        self.sessions += &format!("  - {yaml}\n");
        self
    }

    /// One more credential, as a config writes it: `{source: {file: NAME}, …}`. Its secret is kept
    /// in a file of its name. `DIAL` stands for the way to the one upstream, which shows a
    /// certificate for `*.extra.test`, too, and has a door for each of these.
    pub fn credential(mut self, name: &str, secret: &str, yaml: &str) -> Self {
        self.credentials.push(Extra { name: name.into(), secret: secret.into(), yaml: yaml.into() });
        self
    }

    /// A variable of the broker's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A program that begins the broker, and becomes it.
    pub fn under<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.under.extend(words.into_iter().map(str::to_owned));
        self
    }

    /// Broker and Envoy live by this wall clock.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.env.extend(clock.env());
        self.envoy_env.extend(clock.env());
        self
    }

    /// The state directory on a disk of its own, of so many bytes: for root alone.
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// `missing_placeholder` of the custom credential.
    pub fn missing_placeholder(mut self, what: &str) -> Self {
        self.missing = what.into();
        self
    }

    /// Envoy's worker threads.
    pub fn workers(mut self, n: u32) -> Self {
        self.concurrency = n;
        self
    }

    /// A TCP port for the filters' door, in place of the socket in the state directory.
    pub fn data_plane(mut self, address: SocketAddr) -> Self {
        self.data_plane = Some(address);
        self
    }

    /// The filters' door as a config writes it: mutual TLS, `{address: …, tls: …, peers: …, envoy: …}`.
    pub fn door(mut self, yaml: &str) -> Self {
        self.door = Some(yaml.into());
        self
    }

    /// A socket for agents beside the port: the config's `listen.proxy_socket`.
    pub fn proxy_socket(mut self) -> Self {
        self.proxy_socket = true;
        self
    }

    /// A door for probes and Prometheus: the config's `listen.health`.
    pub fn health(mut self) -> Self {
        self.health = true;
        self
    }

    /// Envoy is a forward proxy.
    pub fn forward_proxy(mut self) -> Self {
        self.shape = Shape::ForwardProxy;
        self
    }

    /// Another Envoy than the one in `.venv`.
    pub fn on(mut self, envoy: PathBuf) -> Self {
        self.envoy = envoy;
        self
    }

    /// The build of the filter that a request can make trap.
    pub fn with_traps(mut self) -> Self {
        self.filter = util::filter_trap_wasm();
        self
    }

    /// Changes the bootstrap before Envoy reads it.
    pub fn edit(mut self, edit: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        self.edit = Box::new(edit);
        self
    }

    /// Changes the policy that the bootstrap is made from, and that a fake broker publishes.
    pub fn policy(mut self, edit: impl Fn(&mut Spec) + Send + 'static) -> Self {
        self.policy = Box::new(edit);
        self
    }

    /// The authority of this test's upstream is one of the system's.
    pub fn trusting_own(mut self) -> Self {
        self.trusts_own = true;
        self
    }

    /// Starts everything, with the real broker.
    pub async fn start(self) -> Stack<Attache> {
        let site = Site::new(None, &self.credentials, self.disk).await;
        let config = self.write(&site, self.data_plane);
        let env: Vec<_> = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let broker = Attache::serve_under(&self.under, &site.config_path(), &env).await;
        site.oracle.evidence(broker.evidence());
        self.finish(site, broker, config).await
    }

    /// Starts everything, with a broker that misbehaves on demand. Its only session is granted
    /// the GitHub token everywhere.
    pub async fn start_with_fake(self) -> Stack<FakeBroker> {
        self.start_with_fake_after(|_| ()).await
    }

    /// As [`Self::start_with_fake`], once the broker, with its policy and its grant in hand, was
    /// told how to behave.
    pub async fn start_with_fake_after(self, tell: impl FnOnce(&FakeBroker)) -> Stack<FakeBroker> {
        let fake = FakeBroker::start().await;
        let site = Site::new(Some(fake.audit_path()), &self.credentials, self.disk).await;
        // Its records say for which evidence it granted; nothing else is known.
        site.oracle.evidence(&Evidence::default());
        let config = self.write(&site, Some(fake.addr()));
        fake.policy(serde_json::to_value(self.policed(&config)).expect("a policy is JSON"));
        fake.grant(Grant::header("github", "authorization", &format!("Bearer {GITHUB}")));
        tell(&fake);
        let token = config.state_dir.join(envoy::TOKEN_FILE);
        std::fs::create_dir_all(&config.state_dir).expect("the state directory");
        std::fs::write(token, SDS).expect("the token");
        self.finish(site, fake, config).await
    }

    fn write(&self, site: &Site, data_plane: Option<SocketAddr>) -> Config {
        let Self { sessions, limits, extra, missing, credentials, .. } = self;
        let ca = site.ca.pem_path().display().to_string();
        let dial = |host: &str| format!("{{address: '{}', ca_file: {ca}}}", site.upstream.door(host));
        let more = credentials.iter().map(|extra| format!("  {}: {}\n", extra.name, extra.written(dial)));
        let more: String = more.collect();
        let [api, uploads, git, custom, query] = BOUND.map(|(_, host)| dial(host));
        let address = data_plane.map(|at| format!("'{at}'"));
        let door = self.door.clone().or(address);
        let mut more_ways = door.map(|door| format!(", data_plane: {door}")).unwrap_or_default();
        if self.proxy_socket {
            let path = site.dir.path().join("proxy.sock");
            more_ways += &format!(", proxy_socket: 'unix:{}'", path.display());
        }
        if self.health {
            more_ways += ", health: '127.0.0.1:0'";
        }
        let limits = if limits.is_empty() { String::new() } else { format!("limits:\n{limits}") };
        let yaml = format!(
            "state_dir: state\n\
             listen: {{proxy: '127.0.0.1:0'{more_ways}}}\n\
             credentials:\n\
             \x20 github:\n    preset: github\n    destinations:\n\
             \x20     - {{host: api.github.com, upstream: {api}}}\n\
             \x20     - {{host: uploads.github.com, upstream: {uploads}}}\n\
             \x20     - {{host: github.com, upstream: {git}}}\n\
             \x20 custom:\n    source: {{file: custom_key}}\n    inject: {{header: X-Custom-Key, format: 'Key {{}}'}}\n\
             \x20   missing_placeholder: {missing}\n    agent_env: {{CUSTOM_KEY: placeholder}}\n\
             \x20   destinations: [{{host: api.custom.test, paths: [/v1/], upstream: {custom}}}]\n\
             \x20 query:\n    source: {{env: QUERY_KEY}}\n    inject: {{query: key}}\n\
             \x20   destinations: [{{host: query.custom.test, upstream: {query}}}]\n\
             {more}sessions:\n{sessions}{limits}{extra}"
        );
        std::fs::write(site.config_path(), yaml).expect("the config");
        site.keep("github_token", GITHUB);
        site.keep("custom_key", CUSTOM);
        credentials.iter().for_each(|extra| site.keep(&extra.name, &extra.secret));
        let config = Config::load(Some(&site.config_path()), &Overrides::default(), &|_| None);
        config.unwrap_or_else(|errors| panic!("the test's config is wrong:\n{errors}"))
    }

    fn policed(&self, config: &Config) -> Spec {
        let mut policy = config.policy();
        (self.policy)(&mut policy);
        policy
    }

    async fn finish<B>(self, site: Site, broker: B, config: Config) -> Stack<B> {
        let policy = self.policed(&config);
        let machine = MachineArgs {
            filter: Some(self.filter),
            filter_sha256: None,
            system_roots: self.trusts_own.then(|| site.ca.pem_path()),
            admin: Some("127.0.0.1:0".parse().expect("an address")),
        };
        let version = envoy::process::version(&self.envoy).expect("an Envoy");
        let machine = machine.on_this_machine(&config, version).expect("the parts of this machine");
        let mut bootstrap = envoy::bootstrap(self.shape, &config, &policy, &machine);
        (self.edit)(&mut bootstrap);
        let options =
            Options { concurrency: self.concurrency, env: self.envoy_env, binary: self.envoy, ..Options::default() };
        let envoy = Envoy::start(&bootstrap, options).await;
        let proxy = envoy.addr(LISTENER).await;
        site.oracle.log("envoy", envoy.log_path());
        Stack { proxy, envoy, broker, config, site }
    }
}

/// An SDS file with a token that no broker knows.
const SDS: &str = r#"{"resources":[{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret","name":"attache_data_plane","generic_secret":{"secret":{"inline_string":"Bearer none"}}}]}"#;

/// The upstream, its CA, the directory and the oracle.
pub struct Site {
    // Before the directory: it is unmounted first.
    _disk: Option<Disk>,
    /// Everything written for this stack.
    pub dir: TempDir,
    /// Who signs the upstream's certificate.
    pub ca: Ca,
    /// The one upstream behind all hosts.
    pub upstream: Upstream,
    /// What no agent may see.
    pub secrets: Secrets,
    /// Watches everything.
    pub oracle: Oracle,
}

impl Site {
    async fn new(audit: Option<PathBuf>, credentials: &[Extra], disk: Option<u64>) -> Self {
        let dir = util::temp_dir();
        let _disk = disk.map(|bytes| Disk::at(&dir.path().join("state"), bytes));
        let ca = Ca::new();
        let mut known = vec![("github", GITHUB), ("custom", CUSTOM), ("query", QUERY)];
        known.extend(credentials.iter().map(|extra| (extra.name.as_str(), extra.secret.as_str())));
        let secrets = Secrets::new(known);
        let mut bound: Vec<(&str, String)> = BOUND.map(|(name, host)| (name, host.to_owned())).into();
        for extra in credentials {
            bound.extend(extra.dialled().into_iter().map(|host| (extra.name.as_str(), host)));
        }
        let names: Vec<&str> = bound.iter().map(|(_, host)| host.as_str()).chain(["*.extra.test"]).collect();
        let doors = bound.iter().map(|(_, host)| host.as_str());
        let upstream = Upstream::tls(&ca, &names).doors(doors).start().await;
        let oracle = Oracle::new(&secrets);
        oracle.audit(audit.unwrap_or_else(|| dir.path().join("state/default/audit.jsonl")));
        let places: Vec<_> = bound.iter().map(|(name, host)| (*name, format!("{host}:443"))).collect();
        let places: Vec<_> = places.iter().map(|(name, place)| (*name, place.as_str())).collect();
        oracle.upstream("upstream", &upstream, &places);
        EXPORTED.iter().for_each(|(credential, variable)| oracle.exports(credential, variable));
        for extra in credentials {
            extra.variables().into_iter().for_each(|variable| oracle.exports(&extra.name, variable));
        }
        Self { _disk, dir, ca, upstream, secrets, oracle }
    }

    /// The config file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("attache.yaml")
    }

    /// Writes a secret where the file source looks for it.
    pub fn keep(&self, file: &str, secret: &str) {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let dir = self.dir.path().join("state/default/secrets");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).expect("the secrets' directory");
        for dir in dir.ancestors().take(3) {
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(dir, private).expect("private directories");
        }
        // Beside and moved: a reader never sees half a secret.
        let (path, beside) = (dir.join(file), dir.join(format!(".{file}.new")));
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&beside).expect("a secret");
        std::io::Write::write_all(&mut out, secret.as_bytes()).expect("a secret");
        std::fs::rename(beside, path).expect("a secret in place");
    }
}

/// A running Attaché.
pub struct Stack<B> {
    /// Where agents call.
    pub proxy: SocketAddr,
    /// The real Envoy.
    pub envoy: Envoy,
    /// The broker.
    pub broker: B,
    /// The config in force.
    pub config: Config,
    /// Everything around.
    pub site: Site,
}

impl<B> Stack<B> {
    /// An agent whose every byte the oracle sees.
    pub fn agent(&self) -> Agent {
        self.site.oracle.agent()
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.site.upstream
    }

    /// The directory of the config.
    pub fn dir(&self) -> &Path {
        self.site.dir.path()
    }

    /// One GET with a bearer placeholder.
    pub async fn get(&self, host: &str, path: &str, placeholder: &str) -> Response {
        self.send("GET", host, path, placeholder, b"").await
    }

    /// One request with a bearer placeholder.
    pub async fn send(&self, method: &str, host: &str, path: &str, placeholder: &str, body: &[u8]) -> Response {
        let bearer = format!("Bearer {placeholder}");
        self.agent().request(self.proxy, method, host, path, &[("authorization", &bearer)], body).await
    }

    /// How many VMs Envoy has made for the filter so far.
    pub async fn vms(&self) -> u64 {
        self.envoy.wait_stat("wasm.envoy.wasm.runtime.v8.created", |_| true, SOON).await
    }

    /// Reconciles everything that was seen; panics with an account of what does not fit.
    pub async fn reconcile(&self) {
        self.site.oracle.text("config_dump", self.envoy.config_dump().await);
        self.site.oracle.reconcile().await;
    }
}

impl Stack<FakeBroker> {
    /// A placeholder of the right shape; the fake broker grants whatever it is shown.
    pub fn placeholder(&self) -> String {
        Placeholder::new("ghp_", 40).mint(&[7; 32], "writer", "github")
    }
}

impl Stack<Attache> {
    /// The placeholder of a session's credential (`github`, `custom`, `query`), as `attache session
    /// env` exports it.
    pub fn placeholder(&self, session: &str, credential: &str) -> String {
        let variable = match credential {
            "github" => "GITHUB_TOKEN",
            "custom" => "CUSTOM_KEY",
            _ => "QUERY_KEY",
        };
        self.broker.exported(session, variable)
    }

    /// Common flags that lead to this stack's config.
    pub fn common(&self) -> Common {
        Common { config: Some(self.site.config_path()), ..Common::default() }
    }
}
