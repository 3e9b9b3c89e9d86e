//! What a credential may do at a destination, at most, whoever uses it.
//!
//! Three things say what a request may do: its session, its credential, and the destination it goes
//! to. The most restrictive of them holds.

use super::{Config, destination_id};
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use std::collections::HashMap;

/// The bounds of all credentials at all of their destinations.
#[derive(Clone, Debug, Default)]
pub struct Caps(HashMap<Name, HashMap<String, AccessMode>>);

impl Config {
    /// The bounds that this config sets.
    pub fn caps(&self) -> Caps {
        let bounds = self.credentials.iter().map(|credential| {
            let each = credential.destinations.iter();
            (credential.name.clone(), each.map(|d| (destination_id(d), d.access_mode)).collect())
        });
        Caps(bounds.collect())
    }
}

impl Caps {
    /// What is left of a session's mode for this credential there. What no config names only reads.
    pub fn narrow(&self, mode: AccessMode, credential: &Name, destination: &str) -> AccessMode {
        let bound = self.0.get(credential).and_then(|bounds| bounds.get(destination));
        narrower(mode, bound.copied().unwrap_or(AccessMode::ReadOnly))
    }

    /// The credentials, each with a destination, for which nobody may do more than read there.
    pub fn reading(&self) -> impl Iterator<Item = (&Name, &str)> {
        let all = self.0.iter().flat_map(|(name, bounds)| bounds.iter().map(move |(at, mode)| (name, at, mode)));
        all.filter(|(.., mode)| **mode == AccessMode::ReadOnly).map(|(name, at, _)| (name, at.as_str()))
    }
}

/// The more restrictive of two modes.
pub(super) fn narrower(one: AccessMode, other: AccessMode) -> AccessMode {
    match (one, other) {
        (AccessMode::ReadWrite, AccessMode::ReadWrite) => AccessMode::ReadWrite,
        _ => AccessMode::ReadOnly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use AccessMode::{ReadOnly, ReadWrite};

    #[test]
    fn the_most_restrictive_of_session_credential_and_destination_holds() {
        let text = "
credentials:
  capped:
    source: {env: A}
    inject: bearer
    access_mode: read-only
    destinations: [{host: a.test}, {host: b.test, access_mode: read-write}]
  free:
    source: {env: B}
    inject: bearer
    destinations: [{host: a.test}, {host: b.test, access_mode: read-only}]
  github:
    preset: github
    destinations: [{host: github.com, access_mode: read-only}]
";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attache.yaml");
        std::fs::write(&file, text).unwrap();
        let overrides = Overrides { state_dir: Some(dir.path().into()), ..Overrides::default() };
        let config = Config::load(Some(&file), &overrides, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let caps = config.caps();
        let narrow = |mode, credential: &str, host: &str| {
            caps.narrow(mode, &Name::parse(credential).unwrap(), &format!("{host}:443"))
        };
        for (credential, host, bound) in [
            ("capped", "a.test", ReadOnly),
            ("capped", "b.test", ReadOnly),
            ("free", "a.test", ReadWrite),
            ("free", "b.test", ReadOnly),
            ("github", "github.com", ReadOnly),
            ("github", "api.github.com", ReadWrite),
            ("free", "unnamed.test", ReadOnly),
            ("unnamed", "a.test", ReadOnly),
        ] {
            assert_eq!(narrow(ReadWrite, credential, host), bound, "{credential} at {host}");
            assert_eq!(narrow(ReadOnly, credential, host), ReadOnly, "{credential} at {host}");
        }
    }
}
