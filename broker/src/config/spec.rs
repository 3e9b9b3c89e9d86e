//! What is written: `attache.yaml`, field by field. Unknown fields are refused at every level.
//!
//! The JSON schema is generated from these types, and a preset is written in them too: a preset
//! can be copied into a config and changed.

use super::access::AccessSpec;
use super::bundle::BundleSpec;
use super::data_plane::DataPlaneSpec;
use super::github_app::GitHubAppSpec;
use super::infisical::{InfisicalSecretSpec, InfisicalSpec};
use super::kubernetes::{KubernetesSecretSpec, KubernetesSourceSpec, MountedSpec};
use super::oidc::ProviderSpec;
use super::onepassword::OnePasswordSpec;
use super::openbao::{ArtifactRef, OpenBaoSecretSpec, OpenBaoSpec};
use super::peers::PeerRule;
use super::rotation::RotationSpec;
use super::seal::StateSpec;
use super::values::{
    ClusterName, DialAddress, DnsServer, FileName, Host, Label, ListenAddress, OpReference, PathPrefix, Period, Pin,
    Size, Socket, SyslogTo, Url, Variable, Word,
};
use super::{AuditMode, Bind, Mesh, SourceKind, TokenScope};
use attache_core::injection::Injection;
use attache_core::names::Name;
use attache_core::object::members_once;
use attache_core::placeholder::Shape;
use attache_core::policy::{AccessMode, CompanionSpec, MissingPlaceholder, StripSpec, Unmatched};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

/// Attaché's config: who may use which credential where. It names secrets and never holds one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "attache.yaml")]
pub struct Spec {
    /// The instance's name: one isolated tenant (default `default`).
    pub instance: Option<Name>,
    /// The directory that holds one sub-directory per instance (default `~/.attache`). A relative
    /// path is read from the directory of this file.
    pub state_dir: Option<String>,
    /// How what is in it is kept.
    pub state: StateSpec,
    /// Where it listens.
    pub listen: ListenSpec,
    /// The audit log.
    pub audit: AuditSpec,
    /// Where secrets come from.
    pub sources: SourcesSpec,
    /// The credentials, by name.
    pub credentials: BTreeMap<Name, CredentialSpec>,
    /// Whose Envoys run the filter: their clusters are then named as that mesh names them (default: Envoys whose
    /// bootstrap `attache envoy-config` prints).
    pub mesh: Option<Mesh>,
    /// What happens to hosts that no destination names (default `deny`).
    pub unmatched: Unmatched,
    /// Whether a forward proxy decrypts traffic to them, where they pass (default: no, it tunnels).
    pub intercept_unmatched: bool,
    /// Hosts that a forward proxy lets through undecrypted: no credential is bound to them.
    pub hosts: Vec<HostSpec>,
    /// How the names of hosts are resolved for a forward proxy.
    pub dns: DnsSpec,
    /// The certificate authority of a forward proxy.
    pub ca: CaSpec,
    /// Sessions that exist as long as this file names them.
    pub sessions: Vec<SessionSpec>,
    /// Providers of identities (OpenID Connect) whose JWTs name a session.
    pub oidc: Vec<ProviderSpec>,
    /// Which session a workload is, by the SPIFFE ID in its certificate, which Envoy verifies: the first rule
    /// that fits.
    pub peers: Vec<PeerRule>,
    /// Bounds of time and space.
    pub limits: LimitsSpec,
    /// What others are told of what the broker does.
    pub telemetry: TelemetrySpec,
}

/// What others are told of what the broker does.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySpec {
    /// The OpenTelemetry collector that takes spans (OTLP/HTTP; default: none does).
    pub otlp: Option<SpansSpec>,
}

/// An OpenTelemetry collector for spans.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpansSpec {
    /// The URL that takes traces, as a rule `http://HOST:4318/v1/traces`. It names no user and no password.
    pub endpoint: Url,
}

/// The certificate authority of a forward proxy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CaSpec {
    /// Whether it can sign for the hosts of this config alone (default: no). Another host then takes
    /// `attache ca rotate`.
    pub constrained: bool,
}

/// Where an instance listens.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSpec {
    /// Envoy's listener, where agents call (default `127.0.0.1:3030`).
    pub proxy: Option<ListenAddress>,
    /// A UNIX socket beside it, for clients that speak plain HTTP on a socket alone: `unix:PATH` (default: none).
    pub proxy_socket: Option<Socket>,
    /// The broker's listener for filters: `unix:PATH`, loopback, or mutual TLS (default `unix:data-plane.sock`).
    pub data_plane: Option<DataPlaneSpec>,
    /// The operator's socket (default `unix:control.sock`, in the instance's directory).
    pub control: Option<Socket>,
    /// Plain HTTP for probes and Prometheus, without a token and without a secret: `/healthz`, `/readyz`, `/metrics`
    /// and nothing else; `IP:PORT` (default: none).
    pub health: Option<ListenAddress>,
}

/// A host that no credential is bound to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// The host's name: exactly this one, without wildcards.
    pub host: Host,
    /// The port (default 443).
    pub port: Option<NonZeroU16>,
    /// What happens to its TLS.
    pub tls: TlsSpec,
    /// Whether it may be at an address that is not public.
    #[serde(default)]
    pub private: bool,
}

/// What a forward proxy does with TLS.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsSpec {
    /// Never decrypted: the handshake must name the host, and that is all that is looked at.
    Passthrough,
}

/// How the names of hosts are resolved.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DnsSpec {
    /// The servers that are asked, `IP:PORT` (default: those of the system).
    pub servers: Vec<DnsServer>,
}

/// The audit log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSpec {
    /// The file, in the instance's directory (default `audit.jsonl`).
    pub path: Option<String>,
    /// The size at which a new file is begun (default `100MB`).
    pub rotate: Option<Size>,
    /// How often the log is signed.
    pub checkpoints: CheckpointsSpec,
    /// Where copies of its records go.
    pub export: Vec<ExportSpec>,
}

/// One place where copies of records go: `{stdout: json}`, `{syslog: {to: ADDRESS}}`,
/// `{journald: {}}` or `{otlp: {endpoint: URL}}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportSpec {
    /// The broker's standard output.
    Stdout(StdoutForm),
    /// A syslog server (RFC 5424).
    Syslog(SyslogSpec),
    /// The systemd journal.
    Journald(JournaldSpec),
    /// An OpenTelemetry collector (OTLP/HTTP).
    Otlp(OtlpSpec),
}

/// How records look on standard output.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StdoutForm {
    /// The lines of the log as they are.
    Json,
}

/// A syslog server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogSpec {
    /// `unix:PATH`, `udp:HOST:PORT` or `tcp:HOST:PORT`.
    pub to: SyslogTo,
}

/// The systemd journal.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournaldSpec {
    /// Its socket (default `/run/systemd/journal/socket`).
    pub socket: Option<String>,
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpSpec {
    /// The URL that takes logs, as a rule `http://HOST:4318/v1/logs`. It names no user and no password.
    pub endpoint: Url,
}

/// How often the audit log is signed: whichever comes first, and whenever a file or the broker ends.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointsSpec {
    /// After this many records (default 1000).
    pub records: Option<u32>,
    /// After this time, where there is a new record (default `1m`).
    pub every: Option<Period>,
}

/// Where secrets come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourcesSpec {
    /// Which kind is asked first; one that has nothing falls through to the next (default
    /// `[env, onepassword, openbao, infisical, github_app, mounted, kubernetes, file]`).
    pub order: Option<Vec<SourceKind>>,
    /// Files.
    pub file: FileSourceSpec,
    /// 1Password.
    pub onepassword: OnePasswordSpec,
    /// OpenBao, or HashiCorp Vault.
    pub openbao: OpenBaoSpec,
    /// Infisical.
    pub infisical: InfisicalSpec,
    /// A GitHub App.
    pub github_app: GitHubAppSpec,
    /// Kubernetes, by its API.
    pub kubernetes: KubernetesSourceSpec,
}

/// Secrets in files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileSourceSpec {
    /// Their directory, in the instance's directory (default `secrets`). It is 0700, each file 0600.
    pub dir: Option<String>,
}

/// A credential: a preset, or everything spelled out, or a preset with changes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialSpec {
    /// The preset to begin with.
    #[schemars(extend("enum" = super::presets::NAMES))]
    pub preset: Option<String>,
    /// The `service` of audit records (default: the preset's, or the credential's name).
    pub service: Option<Label>,
    /// Where the secret is.
    pub source: Option<SourceSpec>,
    /// That it is a JSON object of several fields, and what becomes of each.
    pub bundle: Option<BundleSpec>,
    /// How it enters a request, for every destination that does not say otherwise.
    pub inject: Option<InjectSpec>,
    /// Operations that their method alone would judge wrongly, for every destination that does not
    /// say otherwise.
    pub access: Option<AccessSpec>,
    /// What the service wants beside it, for every destination; one that names the same header
    /// itself goes first.
    pub with: Vec<CompanionSpec>,
    /// Where its destinations take a credential besides: what agents write there is taken out, at
    /// every one of them.
    pub strip: StripSpec,
    /// Answer a request without identity with a Basic challenge, at every destination that does not
    /// say otherwise.
    pub basic_challenge: Option<bool>,
    /// Where it may go. Beside a preset, an entry with a host of the preset changes that one, and
    /// any other entry adds one, injected as the preset's own.
    pub destinations: Vec<DestinationSpec>,
    /// What any session may do with it, at most (default `read-write`).
    pub access_mode: Option<AccessMode>,
    /// Whether answers are searched for the credential, which is then masked (default `true`).
    pub mask: Option<bool>,
    /// When its uses are on record (default `batched`).
    pub audit: Option<AuditMode>,
    /// What its placeholders look like (default: no prefix, 40 characters).
    pub placeholder: Option<Shape>,
    /// What a request without a placeholder gets (default `deny`).
    pub missing_placeholder: Option<MissingPlaceholder>,
    /// What `attache session env` exports (default: the placeholder, under the name the secret has
    /// in the broker's environment).
    pub agent_env: Option<BTreeMap<Variable, AgentValueSpec>>,
    /// How its secret is replaced by another (default: by whoever writes its source).
    pub rotation: Option<RotationSpec>,
}

/// Where a secret is: with more than one, `sources.order` says which is asked first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSpec {
    /// An environment variable of the broker, read once at start.
    pub env: Option<Variable>,
    /// A secret in 1Password; `sources.onepassword.references` may name it instead.
    pub onepassword: Option<OpReference>,
    /// A secret in OpenBao, or HashiCorp Vault.
    pub openbao: Option<OpenBaoSecretSpec>,
    /// A secret in Infisical.
    pub infisical: Option<InfisicalSecretSpec>,
    /// A token of the GitHub App, for each session one of its own: what it may reach at most. Stands alone.
    pub github_app: Option<TokenScope>,
    /// The same, named by what it is for: `SCOPE/PROVIDER:KEY`, which `sources.openbao.references` explains.
    #[serde(rename = "ref")]
    pub reference: Option<ArtifactRef>,
    /// A file of a volume that a kubelet has mounted.
    pub mounted: Option<MountedSpec>,
    /// A Secret of Kubernetes, read by its API.
    pub kubernetes: Option<KubernetesSecretSpec>,
    /// A file below `sources.file.dir`.
    pub file: Option<FileName>,
}

/// One place a credential may go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationSpec {
    /// The host: exactly this one.
    pub host: Host,
    /// The port (default 443, or 80 with `plaintext: true`).
    pub port: Option<NonZeroU16>,
    /// Path prefixes, each ending at a segment (default: every path).
    #[serde(default)]
    pub paths: Vec<PathPrefix>,
    /// `true` sends the credential without TLS. Nothing else does.
    #[serde(default)]
    pub plaintext: bool,
    /// The SHA-256 of the server's public key, base64: for a certificate that no authority signed.
    pub spki_sha256: Option<Pin>,
    /// Where Envoy dials instead of `host:port`. The name it verifies stays `host`.
    pub upstream: Option<UpstreamSpec>,
    /// Whether the host may be at an address that is not public, for a forward proxy. An
    /// `upstream.address`, or a host that is an address, says so already.
    #[serde(default)]
    pub private: bool,
    /// How the credential enters a request here.
    pub inject: Option<InjectSpec>,
    /// Operations that their method alone would judge wrongly.
    pub access: Option<AccessSpec>,
    /// What the service wants beside the credential: headers without a secret.
    #[serde(default)]
    pub with: Vec<CompanionSpec>,
    /// Where the service takes a credential besides: what agents write there is taken out.
    #[serde(default)]
    pub strip: StripSpec,
    /// What any session may do with it here, at most (default: what the credential may).
    pub access_mode: Option<AccessMode>,
    /// Whether answers from here are searched for the credential (default: as the credential says).
    pub mask: Option<bool>,
    /// Answer a request without identity with a Basic challenge, as git needs.
    pub basic_challenge: Option<bool>,
    /// Whether sessions that may write may open a WebSocket (default `false`). The host is then reached
    /// over HTTP/1.1 alone.
    pub websocket: Option<bool>,
}

/// Where Envoy dials, and whom it trusts there; or the cluster in which somebody else has said so.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpec {
    /// `HOST:PORT` (default: the destination's own).
    pub address: Option<DialAddress>,
    /// PEM file of the authorities to trust instead of the system's, read from this file's directory.
    pub ca_file: Option<String>,
    /// The cluster that leads there in an Envoy that somebody else configures, e.g. `outbound|443||api.github.com`.
    /// Stands alone.
    pub cluster: Option<ClusterName>,
}

/// What a variable of an agent's environment holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentValueSpec {
    /// The placeholder.
    Placeholder,
    /// The gateway's base URL for a destination.
    Gateway(GatewayUrlSpec),
    /// A field of the credential's `bundle` that is no secret: one that its `fields` name.
    Field(Word),
}

/// A base URL on the gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayUrlSpec {
    /// A host of one of the credential's destinations (default: the first).
    pub host: Option<Host>,
    /// What follows it, e.g. `/v1`.
    pub path: Option<PathPrefix>,
}

/// A session: which credentials, for what, how long.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// Its name.
    pub name: Name,
    /// The credentials it may use.
    #[serde(default)]
    pub credentials: Vec<Name>,
    /// What it may do with them (default `read-write`).
    #[serde(default)]
    pub access_mode: AccessMode,
    /// How long it lives, from its creation (default: as long as this file names it).
    pub ttl: Option<Period>,
    /// What it demands besides its placeholder (default: nothing).
    #[serde(default)]
    pub bind: Bind,
    /// By credential: what this session's own token may reach (default: all that the credential's may).
    #[serde(default, deserialize_with = "members_once")]
    pub scopes: BTreeMap<Name, TokenScope>,
}

/// Bounds of time and space.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSpec {
    /// A filter without contact to the broker for this long injects nothing (default `10s`).
    pub stale_after: Option<Period>,
    /// How long a filter waits for an answer of the broker (default `2s`).
    pub callout_timeout: Option<Period>,
    /// How long a grant may be used (default `5m`).
    pub grant_ttl: Option<Period>,
    /// A worker with this many unacknowledged uses of a grant refuses more (default 8192).
    pub max_unacked_uses: Option<u32>,
    /// The longest body that is read before a decision (default `64KiB`).
    pub body_limit: Option<Size>,
}

/// How a credential enters a request: `bearer`, `token`, `{basic: USERNAME}`,
/// `{header: NAME, format: "… {} …"}` or `{query: NAME}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectSpec(pub Injection);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectFields {
    basic: Option<String>,
    header: Option<String>,
    format: Option<String>,
    query: Option<String>,
}

const INJECT: &str =
    "bearer, token, {basic: USERNAME}, {header: NAME}, {header: NAME, format: \"… {} …\"} or {query: NAME}";

impl<'de> Deserialize<'de> for InjectSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let injection = deserializer.deserialize_any(InjectVisitor)?;
        injection.check().map_err(D::Error::custom)?;
        Ok(InjectSpec(injection))
    }
}

struct InjectVisitor;

impl<'de> Visitor<'de> for InjectVisitor {
    type Value = Injection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(INJECT)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Injection, E> {
        match word {
            "bearer" => Ok(Injection::Bearer),
            "token" => Ok(Injection::Token),
            _ => Err(E::custom(format_args!("expected {INJECT}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Injection, A::Error> {
        let fields = InjectFields::deserialize(MapAccessDeserializer::new(map))?;
        match (fields.basic, fields.header, fields.query, fields.format) {
            (Some(username), None, None, None) => Ok(Injection::Basic { username }),
            (None, Some(name), None, format) => {
                Ok(Injection::Header { name, format: format.unwrap_or_else(|| "{}".to_owned()) })
            }
            (None, None, Some(name), None) => Ok(Injection::Query { name }),
            _ => Err(A::Error::custom(format_args!("expected {INJECT}"))),
        }
    }
}

impl JsonSchema for InjectSpec {
    fn schema_name() -> Cow<'static, str> {
        "InjectSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = || serde_json::json!({"type": "string"});
        let object = |required: &str, properties: serde_json::Value| {
            serde_json::json!({
                "type": "object",
                "properties": properties,
                "required": [required],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": format!("How a credential enters a request: {INJECT}."),
            "oneOf": [
                {"enum": ["bearer", "token"]},
                object("basic", serde_json::json!({"basic": text()})),
                object("header", serde_json::json!({"header": text(), "format": text()})),
                object("query", serde_json::json!({"query": text()})),
            ],
        })
    }
}
