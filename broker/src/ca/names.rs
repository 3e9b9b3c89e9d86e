//! For which names there may be a certificate.
//!
//! Never for an address, a wildcard, a single label, a name that is special (`localhost`, `invalid`) or a
//! public suffix; and only for a name that the policy lets through to be decrypted.

use attache_core::matching::host::{Authority, Host};
use attache_core::policy::{Spec, Unmatched};
use psl::{List, Psl as _, Type};
use std::collections::BTreeSet;

/// A name of which there is never a certificate: what a client that names no host is taken to ask for
/// (RFC 6761, 6.4).
pub const NO_NAME: &str = "no-name.invalid";

/// Top-level names that lead nowhere else (RFC 6761).
const SPECIAL: [&str; 2] = ["localhost", "invalid"];

/// Which names a policy lets through to be decrypted.
#[derive(Clone, Debug, Default)]
pub struct Mintable {
    /// Hosts of destinations over TLS.
    named: BTreeSet<String>,
    /// Hosts that are never decrypted.
    passed: BTreeSet<String>,
    /// Whether all other hosts are decrypted, too.
    others: bool,
}

/// A name for which there may be a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// In canonical form.
    pub name: String,
    /// Whether the policy names it.
    pub is_named: bool,
}

impl Mintable {
    /// What a policy lets through.
    pub fn of(policy: &Spec) -> Self {
        let over_tls = policy.destinations.iter().filter(|destination| !destination.plaintext);
        let named: BTreeSet<_> = over_tls.filter_map(|destination| host_of(&destination.id)).collect();
        let passed = policy.passthrough.iter().filter_map(|id| host_of(id));
        // One that is a destination on another port is decrypted there.
        let passed = passed.filter(|host| !named.contains(host)).collect();
        Self { passed, others: policy.unmatched == Unmatched::Pass && policy.intercept_unmatched, named }
    }

    /// All names that the policy names, sorted: what an authority has to permit.
    pub fn named(&self) -> Vec<String> {
        self.named.iter().filter(|name| is_fit(name, true)).cloned().collect()
    }

    /// Whether there may be a certificate for a name, as a client has spelled it.
    pub fn find(&self, spelled: &[u8]) -> Option<Minted> {
        let Ok(Host::Name(name)) = Host::parse(spelled) else { return None };
        let is_named = self.named.contains(&name);
        let is_wanted = is_named || self.others && !self.passed.contains(&name);
        (is_wanted && is_fit(&name, is_named)).then_some(Minted { name, is_named })
    }
}

fn host_of(id: &str) -> Option<String> {
    match Authority::parse(id.as_bytes()).ok()?.host {
        Host::Name(name) => Some(name),
        Host::V4(_) | Host::V6(_) => None,
    }
}

/// Whether a canonical name may stand in a certificate at all. What a private party has registered as a
/// suffix (`s3.amazonaws.com`) is a host, too, where the policy names it.
fn is_fit(name: &str, is_named: bool) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_single = last.len() == name.len();
    let is_suffix = match List.suffix(name.as_bytes()) {
        Some(suffix) if suffix.as_bytes().len() == name.len() => suffix.typ() != Some(Type::Private) || !is_named,
        Some(_) => false,
        None => true,
    };
    !is_single && !SPECIAL.contains(&last) && !is_suffix
}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::names::Name;
    use attache_core::policy::{DestinationSpec, EvidenceSpec};

    fn destination(id: &str, plaintext: bool) -> DestinationSpec {
        DestinationSpec {
            id: id.into(),
            authorities: Vec::new(),
            route_prefix: None,
            cluster: id.into(),
            plaintext,
            strip: Default::default(),
            bindings: Vec::new(),
        }
    }

    fn policy(others: bool) -> Spec {
        let over_tls = ["api.github.com:443", "s3.amazonaws.com:443", "co.uk:443", "unifi:443", "127.0.0.1:443"];
        let plain = destination("plain.example:80", true);
        Spec {
            version: String::new(),
            instance: Name::parse("i").unwrap(),
            unmatched: if others { Unmatched::Pass } else { Unmatched::Deny },
            passthrough: vec!["pinned.example:443".into(), "api.github.com:8443".into()],
            intercept_unmatched: others,
            evidence: EvidenceSpec::default(),
            destinations: over_tls.iter().map(|id| destination(id, false)).chain([plain]).collect(),
        }
    }

    #[test]
    fn only_what_is_decrypted_may_be_minted() {
        let mintable = Mintable::of(&policy(false));
        assert_eq!(mintable.named(), ["api.github.com", "s3.amazonaws.com"]);
        for spelled in ["api.github.com", "API.GitHub.com"] {
            let found = mintable.find(spelled.as_bytes());
            assert_eq!(found, Some(Minted { name: "api.github.com".into(), is_named: true }), "{spelled}");
        }
        for spelled in ["plain.example", "pinned.example", "other.example", "x.api.github.com", "github.com"] {
            assert_eq!(mintable.find(spelled.as_bytes()), None, "{spelled}");
        }
    }

    #[test]
    fn no_name_stands_for_many() {
        let mintable = Mintable::of(&policy(true));
        for spelled in [
            "",
            ".",
            "*",
            "*.github.com",
            "api.github.com.",
            "api..github.com",
            "127.0.0.1",
            "[::1]",
            "2130706433",
            "localhost",
            "x.localhost",
            "unifi",
            "com",
            "co.uk",
            "github.io",
            "foo.ck",
            NO_NAME,
            "pinned.example",
            "a b.example",
            "xn--bücher.example",
            "api.github.com:443",
        ] {
            assert_eq!(mintable.find(spelled.as_bytes()), None, "{spelled}");
        }
        assert_eq!(mintable.find(b"\xff\xfe.example"), None);
        for spelled in ["other.example", "x.github.io", "www.ck", "printer.lan"] {
            let found = mintable.find(spelled.as_bytes());
            assert_eq!(found, Some(Minted { name: spelled.into(), is_named: false }));
        }
        assert!(mintable.find(b"s3.amazonaws.com").is_some_and(|found| found.is_named));
    }
}
