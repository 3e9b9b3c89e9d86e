//! From a config to the policy that filters run: who is reached under which name, by which cluster.
//!
//! The Envoy bootstrap is generated from the same policy, so the two cannot differ.

use super::{AuditMode, Config, Credential, Destination, Mesh, PassThrough};
use attache_core::digest::Digest;
use attache_core::matching::host::Host;
use attache_core::names::Name;
use attache_core::policy::{BindingSpec, DestinationSpec, EvidenceSpec, Spec, StripSpec};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Hex digits of a policy's version: enough that two never meet by chance.
const VERSION_DIGITS: usize = 16;

impl Config {
    /// The credentials whose audit is strict.
    pub fn strict(&self) -> HashSet<Name> {
        let strict = self.credentials.iter().filter(|credential| credential.audit == AuditMode::Strict);
        strict.map(|credential| credential.name.clone()).collect()
    }

    /// The policy of this config. Its version is the digest of everything else in it.
    pub fn policy(&self) -> Spec {
        let routes = Routes::of(&self.credentials, self.mesh);
        let mut destinations: BTreeMap<(Host, u16), DestinationSpec> = BTreeMap::new();
        for credential in &self.credentials {
            for destination in &credential.destinations {
                let key = (destination.host.clone(), destination.port);
                let spec = destinations.entry(key).or_insert_with(|| unbound(destination, &routes));
                spec.strip.add(&destination.strip);
                spec.bindings.push(binding(credential, destination));
            }
        }
        let mut spec = Spec {
            version: String::new(),
            instance: self.instance.clone(),
            unmatched: self.unmatched,
            passthrough: self.hosts.iter().map(PassThrough::id).collect(),
            intercept_unmatched: self.intercept_unmatched,
            evidence: EvidenceSpec::default(),
            destinations: destinations.into_values().collect(),
        };
        spec.passthrough.sort();
        let headers: BTreeSet<_> = self.oidc.iter().map(|provider| provider.header.clone()).collect();
        spec.evidence.identity_headers = headers.into_iter().collect();
        self.sessions.iter().for_each(|session| session.bind.demand(&mut spec.evidence));
        spec.evidence.peer |= !self.peers.is_empty();
        named(spec)
    }
}

/// A policy whose version is the digest of everything else in it.
pub(crate) fn named(mut spec: Spec) -> Spec {
    spec.version.clear();
    spec.version = Digest::of(&written(&spec)).to_hex();
    spec.version.truncate(VERSION_DIGITS);
    spec
}

/// A policy as filters read it: JSON.
pub(crate) fn written(spec: &Spec) -> Vec<u8> {
    // A policy is texts, numbers and lists; that serializes.
    serde_json::to_vec(spec).unwrap_or_default()
}

fn unbound(destination: &Destination, routes: &Routes) -> DestinationSpec {
    DestinationSpec {
        id: id(destination),
        authorities: routes.authorities(destination),
        route_prefix: routes.mesh.is_none().then(|| routes.prefix(destination)),
        cluster: cluster(destination, routes.mesh),
        plaintext: destination.plaintext,
        strip: StripSpec::default(),
        bindings: Vec::new(),
    }
}

/// The Envoy cluster that leads to a destination, and to nowhere else.
pub(super) fn cluster(destination: &Destination, mesh: Option<Mesh>) -> String {
    let Destination { host, port, upstream, .. } = destination;
    match (upstream.as_ref().and_then(|upstream| upstream.cluster.clone()), mesh) {
        (Some(named), _) => named,
        (None, Some(Mesh::Istio)) => format!("outbound|{port}||{host}"),
        (None, None) => format!("attache_dst_{host}_{port}"),
    }
}

fn binding(credential: &Credential, destination: &Destination) -> BindingSpec {
    BindingSpec {
        credential: credential.name.clone(),
        service: credential.service.clone(),
        paths: destination.paths.clone(),
        missing_placeholder: credential.missing_placeholder,
        carrier: destination.injection.carrier(),
        basic_challenge: destination.basic_challenge,
        access: destination.access.clone(),
        with: destination.with.clone(),
        websocket: destination.websocket,
    }
}

/// A destination's id: `host:port`.
pub(crate) fn id(destination: &Destination) -> String {
    format!("{}:{}", destination.host, destination.port)
}

/// Which ports of a host are destinations, and so which of them may go without a port.
pub(super) struct Routes {
    ports: BTreeMap<Host, BTreeMap<u16, bool>>,
    mesh: Option<Mesh>,
}

impl Routes {
    /// The routes that these credentials need.
    pub fn of(credentials: &[Credential], mesh: Option<Mesh>) -> Self {
        let mut ports: BTreeMap<Host, BTreeMap<u16, bool>> = BTreeMap::new();
        for destination in credentials.iter().flat_map(|credential| &credential.destinations) {
            ports.entry(destination.host.clone()).or_default().insert(destination.port, destination.plaintext);
        }
        Self { ports, mesh }
    }

    /// The first path segment under which the gateway serves a destination: without the port where
    /// that is its scheme's own.
    pub fn prefix(&self, destination: &Destination) -> String {
        if self.has_own_port(destination) {
            format!("/{}", destination.host)
        } else {
            format!("/{}:{}", destination.host, destination.port)
        }
    }

    /// What names a destination beside its id: the host alone, where nothing else is meant.
    fn authorities(&self, destination: &Destination) -> Vec<String> {
        let alone = self.ports.get(&destination.host).is_none_or(|ports| ports.len() == 1);
        let bare = (alone || self.has_own_port(destination)).then(|| destination.host.to_string());
        // A mesh takes it as plain HTTP, and begins TLS itself: some clients then write the port that they call.
        let called = self.mesh.filter(|_| alone && destination.port != 80).map(|_| format!("{}:80", destination.host));
        bare.into_iter().chain(called).collect()
    }

    /// Whether the port is the scheme's own. Where a host is reached both ways, TLS has the name.
    fn has_own_port(&self, destination: &Destination) -> bool {
        let tls = self.ports.get(&destination.host).is_some_and(|ports| ports.get(&443) == Some(&false));
        match (destination.port, destination.plaintext) {
            (443, false) => true,
            (80, true) => !tls,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use attache_core::policy::Policy;
    use std::path::Path;

    fn policy(destinations: &str) -> Spec {
        let text = format!(
            "credentials:\n  a: {{preset: github}}\n  b: {{source: {{env: B}}, inject: bearer, agent_env: {{}}, \
             destinations: [{destinations}]}}\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attache.yaml");
        std::fs::write(&file, text).unwrap();
        let overrides = Overrides { state_dir: Some(Path::new("/s").into()), ..Overrides::default() };
        Config::load(Some(&file), &overrides, &|_| None).unwrap().policy()
    }

    fn names_of(spec: &Spec, id: &str) -> (Vec<String>, Option<String>) {
        let destination = spec.destinations.iter().find(|destination| destination.id == id).unwrap();
        (destination.named().map(str::to_owned).collect(), destination.route_prefix.clone())
    }

    #[test]
    fn each_destination_has_names_of_its_own() {
        let spec = policy(
            "{host: a, port: 8443}, {host: b}, {host: b, plaintext: true}, {host: c, port: 1}, {host: c, port: 2}, \
             {host: '[::1]', plaintext: true}",
        );
        let names = |authorities: &[&str], prefix: &str| {
            (authorities.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), Some(prefix.to_owned()))
        };
        assert_eq!(
            names_of(&spec, "api.github.com:443"),
            names(&["api.github.com:443", "api.github.com"], "/api.github.com")
        );
        assert_eq!(names_of(&spec, "a:8443"), names(&["a:8443", "a"], "/a:8443"));
        assert_eq!(names_of(&spec, "b:443"), names(&["b:443", "b"], "/b"));
        assert_eq!(names_of(&spec, "b:80"), names(&["b:80"], "/b:80"));
        assert_eq!(names_of(&spec, "c:1"), names(&["c:1"], "/c:1"));
        assert_eq!(names_of(&spec, "[::1]:80"), names(&["[::1]:80", "[::1]"], "/[::1]"));
        let compiled = Policy::compile(spec).unwrap();
        assert!(compiled.by_authority(b"c").is_none());
    }

    #[test]
    fn credentials_of_one_destination_share_it() {
        let spec = policy("{host: api.github.com, paths: [/repos/x]}");
        let destination = spec.destinations.iter().find(|destination| destination.id == "api.github.com:443").unwrap();
        let bound: Vec<_> = destination.bindings.iter().map(|binding| binding.credential.as_str()).collect();
        assert_eq!(bound, ["a", "b"]);
        assert_eq!(destination.cluster, "attache_dst_api.github.com_443");
    }

    #[test]
    fn the_version_names_the_content() {
        let (one, same, other) = (policy("{host: a}"), policy("{host: a}"), policy("{host: b}"));
        assert_eq!(one.version.len(), 16);
        assert_eq!(one, same);
        assert_ne!(one.version, other.version);
    }
}
