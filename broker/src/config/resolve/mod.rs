//! From what was written to what runs: defaults, presets, and every check that needs more than one
//! field. Finds all problems; the config is only worth something when there are none.

mod agent_env;
mod bundle;
mod credential;
mod data_plane;
mod destination;
mod export;
mod github_app;
mod hosts;
mod infisical;
mod kubernetes;
mod oidc;
mod onepassword;
mod openbao;
mod peers;
mod rotation;
mod seal;
mod sessions;
mod sources;

use super::error::Problem;
use super::load::Overrides;
use super::reader::is_below;
use super::spec::{LimitsSpec, ListenSpec, Spec};
use super::values::Period;
use super::{AuditConfig, CaConfig, Checkpoints, Config, Endpoint, Limits, Listen, Mesh};
use attache_core::names::Name;
use attache_core::policy::Unmatched;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3030);
/// In the instance's own directory, where nobody else can bind it while the broker is away.
const DATA_PLANE: &str = "data-plane.sock";
/// `sun_path` of unix(7) without its final NUL, in bytes.
const LONGEST_SOCKET: usize = 107;
const KIB: u64 = 1 << 10;

/// What a config is resolved against.
pub(super) struct Around<'a> {
    /// The directory that relative paths are read from.
    pub dir: &'a Path,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub overrides: &'a Overrides,
    /// Whose Envoys run the filter, where that is a mesh.
    pub mesh: Option<Mesh>,
    /// Parts of the document that could not be read, and are already reported.
    pub left_out: &'a BTreeSet<String>,
}

/// Problems found so far, each with its config path.
#[derive(Default)]
struct Problems(Vec<(String, Problem)>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, problem: Problem) {
        self.0.push((path.into(), problem));
    }
}

/// Turns a spec into a config. With problems, parts of the config are missing or default.
pub(super) fn resolve(spec: &Spec, around: &Around<'_>) -> (Config, Vec<(String, Problem)>) {
    let mut problems = Problems::default();
    let instance = instance(spec, around);
    let state_dir = state_dir(spec, around, &mut problems).join(instance.as_str());
    let sources = sources::resolve(spec, &state_dir, around, &mut problems);
    let credentials = credential::resolve_all(spec, &sources, around, &mut problems);
    let config = Config {
        listen: listen(&spec.listen, &state_dir, around, &mut problems),
        audit: audit(spec, &state_dir, &mut problems),
        mesh: spec.mesh,
        unmatched: spec.unmatched,
        hosts: hosts::resolve_all(spec, &credentials, around, &mut problems),
        dns_servers: spec.dns.servers.iter().map(|server| server.0).collect(),
        intercept_unmatched: spec.intercept_unmatched,
        ca: ca(spec, &mut problems),
        sessions: sessions::resolve_all(spec, &credentials, around, &mut problems),
        oidc: oidc::resolve_all(spec, around, &mut problems),
        peers: peers::resolve_all(spec, around, &mut problems),
        limits: limits(&spec.limits, &mut problems),
        spans: spec.telemetry.otlp.as_ref().map(|otlp| otlp.endpoint.0.clone()),
        seal: seal::resolve(spec, &sources, around, &mut problems),
        instance,
        state_dir,
        sources,
        credentials,
    };
    (config, problems.0)
}

impl Around<'_> {
    /// Whether part of what a path names is missing because it could not be read.
    fn is_incomplete(&self, path: &str) -> bool {
        self.left_out.iter().any(|out| out == path || is_below(out, path))
    }

    /// A path as written: `~` is the home, anything relative begins at the config's directory.
    fn path(&self, text: &str, at: &str, problems: &mut Problems) -> PathBuf {
        let tail = match text.strip_prefix('~') {
            Some(tail) if tail.is_empty() || tail.starts_with('/') => tail.trim_start_matches('/'),
            _ => return absolute(&self.dir.join(text)),
        };
        match (self.env)("HOME").filter(|home| !home.is_empty()) {
            Some(home) => absolute(&Path::new(&home).join(tail)),
            None => {
                problems.add(at, Problem::NoHome);
                PathBuf::from("/")
            }
        }
    }
}

/// Absolute, without `.`; `..` stays, for only the file system knows where it leads.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn instance(spec: &Spec, around: &Around<'_>) -> Name {
    let named = around.overrides.instance.clone().or_else(|| spec.instance.clone());
    #[expect(clippy::expect_used, reason = "a constant; a test loads a config that names no instance")]
    named.unwrap_or_else(|| Name::parse("default").expect("a name"))
}

fn state_dir(spec: &Spec, around: &Around<'_>, problems: &mut Problems) -> PathBuf {
    match (&around.overrides.state_dir, &spec.state_dir) {
        (Some(dir), _) => absolute(dir),
        (None, written) => around.path(written.as_deref().unwrap_or("~/.attache"), "state_dir", problems),
    }
}

fn listen(spec: &ListenSpec, state_dir: &Path, around: &Around<'_>, problems: &mut Problems) -> Listen {
    let data_plane = data_plane::resolve(spec.data_plane.as_ref(), state_dir, around, problems);
    let control = spec.control.as_ref().map_or(Path::new("control.sock"), |socket| &socket.0);
    let control = socket(control, state_dir, "listen.control", problems);
    let proxy_socket = spec.proxy_socket.as_ref();
    let proxy_socket = proxy_socket.map(|path| socket(&path.0, state_dir, "listen.proxy_socket", problems));
    // Envoy removes what lies where it is to listen.
    let is_brokers = |path: &PathBuf| *path == control || data_plane == Endpoint::Unix(path.clone());
    if proxy_socket.as_ref().is_some_and(is_brokers) {
        problems.add("listen.proxy_socket", Problem::SocketTaken);
    }
    let proxy = spec.proxy.as_ref().map_or(PROXY, |address| address.0);
    let health = spec.health.as_ref().map(|address| address.0);
    let taken = health.filter(|health| health.port() != 0).and_then(|health| {
        let listeners = [("listen.proxy", Some(proxy)), ("listen.data_plane", data_plane.tcp())];
        listeners.into_iter().find(|(_, other)| other.is_some_and(|other| shares_port(other, health)))
    });
    if let Some((other, _)) = taken {
        problems.add("listen.health", Problem::PortTaken(other));
    }
    Listen { proxy, proxy_socket, data_plane, control, health, admin: None, shape: None }
}

/// Whether two listeners cannot be bound at once.
fn shares_port(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn socket(path: &Path, state_dir: &Path, at: &str, problems: &mut Problems) -> PathBuf {
    let path = state_dir.join(path);
    if path.as_os_str().len() > LONGEST_SOCKET {
        problems.add(at, Problem::SocketTooLong);
    }
    path
}

fn audit(spec: &Spec, state_dir: &Path, problems: &mut Problems) -> AuditConfig {
    let rotate_bytes = spec.audit.rotate.as_ref().map_or(100_000_000, |size| size.0);
    if !(64 * KIB..=1 << 40).contains(&rotate_bytes) {
        problems.add("audit.rotate", Problem::OutOfBounds("a size from 64KiB to 1TiB"));
    }
    let records = spec.audit.checkpoints.records.unwrap_or(1000);
    if !(1..=10_000).contains(&records) {
        problems.add("audit.checkpoints.records", Problem::OutOfBounds("a number from 1 to 10000"));
    }
    let second = Duration::from_secs(1);
    let every = period(
        &spec.audit.checkpoints.every,
        60 * second,
        second..=3600 * second,
        ("audit.checkpoints.every", "a length of time from 1s to 1h"),
        problems,
    );
    AuditConfig {
        path: state_dir.join(spec.audit.path.as_deref().unwrap_or("audit.jsonl")),
        rotate_bytes,
        checkpoints: Checkpoints { records: records.into(), every },
        export: export::resolve_all(&spec.audit.export),
    }
}

fn ca(spec: &Spec, problems: &mut Problems) -> CaConfig {
    if spec.intercept_unmatched && spec.unmatched == Unmatched::Deny {
        problems.add("intercept_unmatched", Problem::NothingToIntercept);
    } else if spec.intercept_unmatched && spec.ca.constrained {
        problems.add("ca.constrained", Problem::ConstrainedForAll);
    }
    CaConfig { constrained: spec.ca.constrained }
}

fn limits(spec: &LimitsSpec, problems: &mut Problems) -> Limits {
    let second = Duration::from_secs(1);
    let stale_after = period(
        &spec.stale_after,
        10 * second,
        second..=300 * second,
        ("limits.stale_after", "a length of time from 1s to 5m"),
        problems,
    );
    let callout_timeout = period(
        &spec.callout_timeout,
        2 * second,
        second / 20..=10 * second,
        ("limits.callout_timeout", "a length of time from 50ms to 10s"),
        problems,
    );
    let grant_ttl = period(
        &spec.grant_ttl,
        300 * second,
        second..=3600 * second,
        ("limits.grant_ttl", "a length of time from 1s to 1h"),
        problems,
    );
    let max_unacked_uses = spec.max_unacked_uses.unwrap_or(8192);
    if !(1..=1_000_000).contains(&max_unacked_uses) {
        problems.add("limits.max_unacked_uses", Problem::OutOfBounds("a number from 1 to 1000000"));
    }
    let body_limit = spec.body_limit.as_ref().map_or(64 * KIB, |size| size.0);
    // Envoy holds 256 KiB of an HTTP/2 request, and must still take a frame or two before the judge
    // has seen that the body is too long for it.
    if !(KIB..=128 * KIB).contains(&body_limit) {
        problems.add("limits.body_limit", Problem::OutOfBounds("a size from 1KiB to 128KiB"));
    }
    let body_limit = u32::try_from(body_limit).unwrap_or(u32::MAX);
    Limits { stale_after, callout_timeout, grant_ttl, max_unacked_uses, body_limit }
}

fn period(
    written: &Option<Period>,
    default: Duration,
    bounds: RangeInclusive<Duration>,
    (at, expected): (&str, &'static str),
    problems: &mut Problems,
) -> Duration {
    let value = written.as_ref().map_or(default, |period| period.0);
    if !bounds.contains(&value) {
        problems.add(at, Problem::OutOfBounds(expected));
    }
    value
}
