//! Which Envoys can read what we write, and what older ones lack.

use super::Shape;
use crate::config::DeclaredSession;
use std::fmt;
use std::str::FromStr;

/// The version that the tests run on.
pub const TESTED_VERSION: &str = "1.40.0";

/// An Envoy release, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

/// Why a version is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not a version.
    #[error("expected a version, e.g. {TESTED_VERSION}")]
    Malformed,
    /// Lacks what the bootstrap needs.
    #[error("Envoy {0} is too old: {old} is the oldest that {can}", old = Version::oldest(*.1), can = what_the_oldest_can(*.1))]
    TooOld(Version, Shape),
}

fn what_the_oldest_can(shape: Shape) -> &'static str {
    match shape {
        Shape::Gateway => "is tested, and opens routes by what a filter has decided",
        Shape::ForwardProxy => "asks for certificates as clients name hosts (on_demand_secret)",
    }
}

impl Version {
    /// The oldest that can read the bootstrap of a gateway.
    pub const OLDEST: Self = Self { major: 1, minor: 36 };
    /// The oldest that mints as clients name hosts, and that sends its access log over HTTP.
    pub const MINTS: Self = Self { major: 1, minor: 37 };
    /// The oldest with everything that a forward proxy uses.
    pub const FULL: Self = Self { major: 1, minor: 39 };

    /// The oldest that can read the bootstrap of this shape.
    pub fn oldest(shape: Shape) -> Self {
        match shape {
            Shape::Gateway => Self::OLDEST,
            Shape::ForwardProxy => Self::MINTS,
        }
    }

    /// Whether this Envoy can read the bootstrap of this shape.
    pub fn check(self, shape: Shape) -> Result<(), VersionError> {
        if self < Self::oldest(shape) { Err(VersionError::TooOld(self, shape)) } else { Ok(()) }
    }

    /// What an Envoy that can read the bootstrap lacks for this shape and these sessions, and what is done about it.
    pub fn lacks(self, shape: Shape, sessions: &[DeclaredSession]) -> Vec<&'static str> {
        let pools = shape == Shape::ForwardProxy && !self.tells_clients_apart();
        let peers = !self.tells_peers() && sessions.iter().any(|session| session.bind.peer.is_some());
        let pools = pools.then_some(
            "before 1.39 Envoy cannot be relied on to keep pools apart by what the door has found: the proxy takes \
             HTTP/1.1 from clients, where a connection is one client's alone, and no HTTP/2",
        );
        let peers = peers.then_some(
            "before 1.39 Envoy does not tell filters whether it has verified a client's certificate: what is bound to a \
             peer is refused (identity_required)",
        );
        pools.into_iter().chain(peers).collect()
    }

    /// Whether filters can learn that a client's certificate was verified (`connection.peer_certificate_valid`).
    pub fn tells_peers(self) -> bool {
        self >= Self::FULL
    }

    /// Whether the access log can go to the broker over HTTP; else it goes by gRPC.
    pub(super) fn logs_over_http(self) -> bool {
        self >= Self::MINTS
    }

    /// Whether strings in filter state may be part of a connection pool's key (`envoy.hashable_string`).
    pub(super) fn tells_clients_apart(self) -> bool {
        self >= Self::FULL
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut numbers = text.split('.').map(|part| part.parse().map_err(|_| VersionError::Malformed));
        let mut next = || numbers.next().unwrap_or(Err(VersionError::Malformed));
        Ok(Version { major: next()?, minor: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_tested_is_the_one_that_is_installed() {
        assert!(TESTED_VERSION.parse::<Version>().unwrap() >= Version::FULL);
        assert_eq!(include_str!("../../../.envoy-version").trim(), TESTED_VERSION);
    }

    #[test]
    fn what_is_too_old_is_refused_with_the_reason() {
        for (shape, old, first, reason) in [
            (Shape::Gateway, "1.35.9", "1.36", "opens routes"),
            (Shape::ForwardProxy, "1.36.4", "1.37", "on_demand_secret"),
        ] {
            let old: Version = old.parse().unwrap();
            let error = old.check(shape).unwrap_err().to_string();
            assert!(error.contains(&format!("Envoy {old} is too old: {first}")) && error.contains(reason), "{error}");
            assert_eq!(first.parse::<Version>().unwrap().check(shape), Ok(()));
        }
    }

    #[test]
    fn what_is_lacking_is_said() {
        for (text, lacks) in [("1.37.0", true), ("1.38.3", true), ("1.39.3", false), ("1.40.0", false)] {
            let version: Version = text.parse().unwrap();
            assert_eq!(version.lacks(Shape::ForwardProxy, &[]).len(), usize::from(lacks), "{text}");
            assert_eq!(version.lacks(Shape::Gateway, &[]), [""; 0], "{text}");
        }
    }
}
