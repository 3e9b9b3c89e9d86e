//! Which Envoys can read what we write.

use std::fmt;
use std::str::FromStr;

/// The version that the tests run on.
pub const TESTED_VERSION: &str = "1.40.0";
/// The oldest whose loader accepts the bootstrap.
const OLDEST: Version = Version { major: 1, minor: 37 };

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
    #[error("Envoy {OLDEST} is the oldest that can send its access log to the broker over HTTP")]
    TooOld,
}

impl Version {
    /// Whether this Envoy can read the bootstrap.
    pub fn check(self) -> Result<(), VersionError> {
        if self < OLDEST { Err(VersionError::TooOld) } else { Ok(()) }
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
