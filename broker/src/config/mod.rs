//! What runs: the config, every value parsed into a form that cannot be wrong.
//!
//! What was written is [`spec`]; [`Config::load`] turns one into the other and reports all errors
//! at once. No secret is ever part of a config: it names where secrets are, and nothing else.

pub mod access;
mod bind;
pub mod bundle;
mod caps;
mod caution;
pub mod data_plane;
pub mod error;
pub mod github_app;
pub mod handed;
pub mod infisical;
pub mod kubernetes;
mod load;
mod lookup;
pub mod oidc;
pub mod onepassword;
pub mod openbao;
mod out_of_reach;
mod own_secrets;
pub mod peers;
mod policy;
pub mod presets;
mod reader;
mod resolve;
pub mod rotation;
mod scope;
pub mod seal;
pub mod spec;
mod tree;
pub mod values;

pub use bind::{Bind, Network, PeerId, Required};
pub use bundle::{Bundle, FieldPath};
pub use caps::Caps;
pub use data_plane::MutualTls;
pub use error::{ConfigError, ConfigErrors, Problem};
pub use github_app::{GitHubApp, GitHubAppToken};
pub use infisical::{Infisical, InfisicalSecret};
pub use kubernetes::{Cluster, KubernetesSecret, Mounted};
pub use load::Overrides;
pub use lookup::{KINDS, Kind, Lookup, OnePassword, SourceKind};
pub use onepassword::Connect;
pub use openbao::{OpenBao, OpenBaoSecret};
pub use out_of_reach::OutOfReach;
pub(crate) use policy::{id as destination_id, named, written};
pub use rotation::{Rotation, Rotator};
pub use scope::{Level, NotWithin, TokenScope};
pub use seal::SealedBy;
pub use tree::Place;

use crate::envoy::Shape as Proxy;
use attache_core::injection::Injection;
use attache_core::matching::host::Host;
use attache_core::names::Name;
use attache_core::placeholder::Shape;
use attache_core::policy::{AccessMode, AccessSpec, CompanionSpec, MissingPlaceholder, StripSpec, Unmatched};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One instance, ready to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The instance's name.
    pub instance: Name,
    /// The instance's own directory, absolute: `<state_dir>/<instance>`.
    pub state_dir: PathBuf,
    /// By what is sealed what is secret in it; `None`: its files are plain.
    pub seal: Option<SealedBy>,
    /// Where it listens.
    pub listen: Listen,
    /// The audit log.
    pub audit: AuditConfig,
    /// Where secrets come from.
    pub sources: SourcesConfig,
    /// All credentials, by name in order.
    pub credentials: Vec<Credential>,
    /// Whose Envoys run the filter, where that is a mesh.
    pub mesh: Option<Mesh>,
    /// What happens to hosts that no destination names.
    pub unmatched: Unmatched,
    /// Whether a forward proxy decrypts traffic to them, where they pass.
    pub intercept_unmatched: bool,
    /// Hosts that a forward proxy lets through undecrypted, in order.
    pub hosts: Vec<PassThrough>,
    /// The DNS servers that are asked for addresses; with none, those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// The authority that signs for decrypted hosts.
    pub ca: CaConfig,
    /// The sessions that the config declares.
    pub sessions: Vec<DeclaredSession>,
    /// Whose JWTs name a session.
    pub oidc: Vec<oidc::Provider>,
    /// Which workload is which session: the first rule that fits.
    pub peers: Vec<peers::PeerRule>,
    /// Bounds of time and space.
    pub limits: Limits,
    /// The URL that takes spans, if one does.
    pub spans: Option<String>,
}

/// A mesh whose Envoys run the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mesh {
    /// Istio: `outbound|PORT||HOST` leads to a host, and agents call `http://HOST`.
    Istio,
}

/// Where the instance listens. A TCP port may be 0: the system chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Envoy's listener, where agents call.
    pub proxy: SocketAddr,
    /// A UNIX socket of that listener, absolute.
    pub proxy_socket: Option<PathBuf>,
    /// The broker's listener for filters.
    pub data_plane: Endpoint,
    /// The operator's UNIX socket, absolute.
    pub control: PathBuf,
    /// The broker's listener for probes and Prometheus, if it has one.
    pub health: Option<SocketAddr>,
    /// Where the admin of a local Envoy listens, if that is a TCP address. No file says so: whoever starts
    /// Envoy does.
    pub admin: Option<SocketAddr>,
    /// What listens at `proxy`. No file says so: whoever starts Envoy does.
    pub shape: Option<Proxy>,
}

/// Where filters reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// Mutual TLS: the one that other machines may reach.
    Tls(Arc<MutualTls>),
    /// The socket's path, absolute.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    /// As a config writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Tls(door) => write!(f, "tls:{}", door.address),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file, absolute.
    pub path: PathBuf,
    /// The size in bytes at which a new file is begun.
    pub rotate_bytes: u64,
    /// How often it is signed.
    pub checkpoints: Checkpoints,
    /// Where copies of its records go.
    pub export: Vec<Export>,
}

/// One place where copies of records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// What it is remembered by: its kind, and which of that kind it is: `syslog-1`.
    pub name: String,
    /// What it is.
    pub kind: ExportKind,
}

/// What takes copies of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// The broker's standard output.
    Stdout,
    /// A syslog server.
    Syslog(SyslogAddress),
    /// The systemd journal.
    Journald {
        /// Its socket.
        socket: PathBuf,
    },
    /// An OpenTelemetry collector.
    Otlp {
        /// The URL that takes logs.
        endpoint: String,
    },
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyslogAddress {
    /// A datagram socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Udp(String),
    /// `HOST:PORT`.
    Tcp(String),
}

/// The authority that signs for the hosts that a forward proxy decrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaConfig {
    /// Whether it can sign for the hosts of this config alone.
    pub constrained: bool,
}

/// How often the audit log is signed: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// After this many records.
    pub records: u64,
    /// After this time, where there is a new record.
    pub every: Duration,
}

/// Where secrets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcesConfig {
    /// Which kind is asked first.
    pub order: Vec<SourceKind>,
    /// The directory of secret files, absolute.
    pub file_dir: PathBuf,
    /// How 1Password is asked, where that is enabled.
    pub onepassword: Option<OnePasswordConfig>,
    /// How OpenBao is asked, where the config names one.
    pub openbao: Option<Arc<OpenBao>>,
    /// How Infisical is asked, where the config names one.
    pub infisical: Option<Arc<Infisical>>,
    /// Who asks GitHub, where the config names an App.
    pub github_app: Option<Arc<GitHubApp>>,
    /// How Kubernetes is asked, where the config has use for it.
    pub kubernetes: Option<Arc<Cluster>>,
}

/// How 1Password is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnePasswordConfig {
    /// As in [`OnePassword`].
    pub op: PathBuf,
    /// As in [`OnePassword`].
    pub connect: Option<Arc<Connect>>,
    /// As in [`OnePassword`].
    pub refresh: Duration,
}

/// A named secret: where it is found, where it may go and how it gets there.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// Its name.
    pub name: Name,
    /// The `service` of its audit records.
    pub service: String,
    /// Where the secret is looked for, in this order: what is absent falls through to the next.
    pub lookup: Vec<Lookup>,
    /// Which fields it has, where it is a unit of several.
    pub bundle: Option<Bundle>,
    /// Where it may go; never empty.
    pub destinations: Vec<Destination>,
    /// When its uses are on record.
    pub audit: AuditMode,
    /// What its placeholders look like; always passes [`Shape::check`].
    pub placeholder: Shape,
    /// What a request without a placeholder gets.
    pub missing_placeholder: MissingPlaceholder,
    /// What an agent's environment needs, in order.
    pub agent_env: Vec<AgentEnv>,
    /// How its secret is replaced, if it is.
    pub rotation: Option<Rotation>,
}

impl Credential {
    /// What its tokens may reach at most, where each session has one of its own.
    pub fn scope(&self) -> Option<&TokenScope> {
        self.lookup.iter().find_map(Lookup::scope)
    }
}

/// When the uses of a credential are on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditMode {
    /// Soon after they are over, in batches; how many may be without a record is bounded.
    #[default]
    Batched,
    /// Each one also before it begins: a request waits until the log has its intent.
    Strict,
}

/// One place a credential may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The host, exactly this one.
    pub host: Host,
    /// The port; never 0.
    pub port: u16,
    /// Path prefixes, each beginning with `/`; none means every path.
    pub paths: Vec<String>,
    /// Whether it is reached without TLS.
    pub plaintext: bool,
    /// How the credential enters a request; always passes [`Injection::check`].
    pub injection: Injection,
    /// Which operations read or write in spite of their method.
    pub access: AccessSpec,
    /// What the service wants beside the credential.
    pub with: Vec<CompanionSpec>,
    /// Where the service takes a credential besides: what agents write there is taken out.
    pub strip: StripSpec,
    /// What any session may do with the credential here, at most.
    pub access_mode: AccessMode,
    /// Whether answers are searched for the credential, which is then masked.
    pub mask: bool,
    /// Where Envoy dials instead of `host:port`.
    pub upstream: Option<Upstream>,
    /// Whether it may be at an address that is not public.
    pub private: bool,
    /// The SHA-256 of the server's public key, base64, for a certificate no authority signed.
    pub spki_sha256: Option<String>,
    /// Whether a request without identity is answered with a Basic challenge (git needs one).
    pub basic_challenge: bool,
    /// Whether sessions that may write may open a WebSocket.
    pub websocket: bool,
}

/// A host that no credential is bound to, and that is never decrypted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassThrough {
    /// Its name; never an address, which no TLS handshake names.
    pub host: Host,
    /// The port; never 0.
    pub port: u16,
    /// Whether it may be at an address that is not public.
    pub private: bool,
}

impl PassThrough {
    /// `host:port`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Where Envoy dials, and whom it trusts there. The name it verifies stays the destination's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `host:port`; `None` for the destination's own.
    pub address: Option<String>,
    /// Certificates to trust instead of the system's, absolute.
    pub ca_file: Option<PathBuf>,
    /// The cluster that leads there in an Envoy of somebody else's; then there is nothing else here.
    pub cluster: Option<String>,
}

/// One variable of an agent's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEnv {
    /// The variable's name.
    pub name: String,
    /// What it holds.
    pub value: AgentValue,
}

/// What a variable of an agent's environment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentValue {
    /// The placeholder of this session for this credential.
    Placeholder,
    /// The gateway's URL for a host: `http://<proxy><route prefix><suffix>`; in a mesh `http://<host><suffix>`.
    GatewayUrl {
        /// The host itself, where a mesh leads there.
        host: Option<String>,
        /// [`attache_core::policy::DestinationSpec::route_prefix`] of one of the credential's destinations.
        route_prefix: String,
        /// What follows it, e.g. `/v1`; may be empty.
        suffix: String,
    },
    /// A public field of the credential's bundle, by its name there.
    Field(String),
}

/// A session that the config declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredSession {
    /// Its name.
    pub name: Name,
    /// The credentials it may use; each one exists.
    pub credentials: Vec<Name>,
    /// What it may do with them.
    pub access_mode: AccessMode,
    /// How long it lives, from its creation; `None` for as long as the config names it.
    pub ttl: Option<Duration>,
    /// What it demands besides its placeholder.
    pub bind: Bind,
    /// What its tokens may reach, where that is less than the credential's may.
    pub scopes: BTreeMap<Name, TokenScope>,
}

/// Bounds of time and space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After this long without contact to the broker a filter injects nothing (default 10 s).
    pub stale_after: Duration,
    /// How long a filter waits for an answer of the broker (default 2 s).
    pub callout_timeout: Duration,
    /// How long a grant may be used (default 5 min).
    pub grant_ttl: Duration,
    /// A worker with this many unacknowledged uses of a grant refuses more (default 8192).
    pub max_unacked_uses: u32,
    /// Longest body, in bytes, that is read before a decision (default 64 KiB).
    pub body_limit: u32,
}

#[cfg(test)]
mod tests;
