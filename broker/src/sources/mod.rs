//! Where secrets are found. One kind of source, one file, two lines here: `mod` and an arm of [`open`].
//!
//! *Absent* and *an error* are different answers: absent falls through to the next source, an error
//! stops. No source logs, caches or prints what it found.

mod alarms;
mod env;
mod file;
mod github_app;
pub(crate) mod handed;
pub(crate) mod http;
mod infisical;
mod kubernetes;
mod meter;
mod mounted;
mod onepassword;
mod openbao;
mod quiet;
mod remembered;
#[cfg(test)]
mod stand_in;
mod trouble;

pub use alarms::{Alarm, Alarms};
pub use env::Environment;
pub use meter::{Meter, Questions};
pub use mounted::{MountedError, VolumeFile};
pub use onepassword::find as find_program;
pub use openbao::Transit;
pub use trouble::Trouble;

use crate::clock::Now;
use crate::config::{Lookup, TokenScope};
use crate::private_file::{PrivateError, Stamp};
use crate::seal::SealError;
use attache_core::Secret;
use std::pin::Pin;
use std::time::Duration;

/// Longest secret, in bytes.
pub const MOST: usize = 64 * 1024;

/// One place where a secret may be.
pub trait Source: Send + Sync {
    /// Looks. `Ok(None)`: there is nothing here.
    fn read(&self) -> Reading<'_>;

    /// Changes whenever another [`Self::read`] could find something else. Cheap: asked on every grant.
    fn mark(&self) -> Mark;

    /// The place, for people: `env GITHUB_TOKEN`.
    fn place(&self) -> String;

    /// Makes the next [`Self::read`] look at the place itself, whatever is remembered of it.
    fn forget(&self) {}

    /// Why it could not look, the last time, whether or not what it found before still holds.
    fn trouble(&self) -> Option<Trouble> {
        None
    }

    /// In how long it is asked anew, by itself; `None`: whenever it changes.
    fn next(&self) -> Option<Duration> {
        None
    }

    /// Counts its questions from now on, where it asks somebody.
    fn count(&self, meter: Meter) {
        let _ = meter;
    }

    /// Gives back what was leased: nothing of it is used any longer.
    fn close(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}

/// A secret, and how long its source lets it be used.
pub struct Found {
    /// The secret.
    pub secret: Secret,
    /// When it ends; `None`: as long as the source has it.
    pub ends: Option<Now>,
}

impl From<Secret> for Found {
    /// One that its source has until it changes.
    fn from(secret: Secret) -> Self {
        Self { secret, ends: None }
    }
}

/// What will be there later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What [`Source::read`] will find.
pub type Reading<'a> = Later<'a, Result<Option<Found>, SourceError>>;

/// What [`Source::mark`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Never changes while this process lives.
    Fixed,
    /// A file, when there is something to compare.
    File(Option<Stamp>),
    /// How often it was answered.
    Answers(u64),
}

/// Why a source could not say whether it has a secret. Names places, never content.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not private, or cannot be read.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// The file is sealed, and does not open.
    #[error(transparent)]
    Sealed(SealError),
    /// The volume's file is none that a kubelet mounts, or cannot be read.
    #[error(transparent)]
    Mounted(#[from] MountedError),
    /// Bytes that are not UTF-8.
    #[error("{0} does not hold text")]
    NotText(String),
    /// There, but with nothing in it.
    #[error("{0} is empty: write the secret into it, or remove it")]
    Empty(String),
    /// Whoever was asked.
    #[error("{place}: {why}")]
    Remote {
        /// The place.
        place: String,
        /// What is wrong.
        why: Trouble,
    },
}

impl From<SealError> for SourceError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Private(error) => Self::File(error),
            error => Self::Sealed(error),
        }
    }
}

/// A place that gives each session something of its own.
pub trait Issuer: Send + Sync {
    /// The place itself: reading it says whether it would give something, and has nothing given. What it finds is no
    /// secret, and goes nowhere.
    fn place(&self) -> &dyn Source;

    /// What a session is given, which may reach so much.
    fn open(&self, scope: &TokenScope) -> Box<dyn Source>;

    /// Counts its questions from now on.
    fn count(&self, meter: Meter) {
        let _ = meter;
    }
}

/// The source for one lookup.
pub fn open(lookup: &Lookup, environment: &Environment) -> Box<dyn Source> {
    let source: Box<dyn Source> = match lookup {
        Lookup::Env(name) => Box::new(env::Variable::new(name, environment)),
        Lookup::OnePassword(item) => onepassword::open(item, environment),
        Lookup::OpenBao(secret) => Box::new(openbao::open(secret, environment.of_openbao(&secret.server))),
        Lookup::Infisical(secret) => Box::new(infisical::open(secret, environment.of_infisical(&secret.server))),
        Lookup::Mounted(file) => Box::new(mounted::VolumeFile::new(file)),
        Lookup::Kubernetes(secret) => Box::new(kubernetes::open(secret, environment.of_kubernetes(&secret.cluster))),
        // Sessions are given theirs by an [`issuer`].
        Lookup::GitHubApp(token) => Box::new(NothingForAll(token.place())),
        Lookup::File(path) => Box::new(file::SecretFile::new(path, environment.sealer())),
    };
    source.count(Meter::new(lookup.kind(), environment.questions().clone()));
    source
}

/// A place that has something for each session, and nothing that all of them may share.
struct NothingForAll(String);

impl Source for NothingForAll {
    fn read(&self) -> Reading<'_> {
        Box::pin(async {
            let why = Trouble::lasting("it has nothing that all sessions could share", "ask for it in a session");
            Err(SourceError::Remote { place: self.place(), why })
        })
    }

    fn mark(&self) -> Mark {
        Mark::Fixed
    }

    fn place(&self) -> String {
        self.0.clone()
    }
}

/// Who gives each session something of its own, and what that reaches at most, if this is such a place.
pub fn issuer(lookup: &Lookup, environment: &Environment) -> Option<(TokenScope, Box<dyn Issuer>)> {
    let (scope, issuer): (_, Box<dyn Issuer>) = match lookup {
        Lookup::GitHubApp(token) => {
            let app = github_app::App::new(token, environment.of_github(&token.app));
            (token.scope.clone(), Box::new(app))
        }
        Lookup::Env(_)
        | Lookup::OnePassword(_)
        | Lookup::OpenBao(_)
        | Lookup::Infisical(_)
        | Lookup::Mounted(_)
        | Lookup::Kubernetes(_)
        | Lookup::File(_) => {
            return None;
        }
    };
    issuer.count(Meter::new(lookup.kind(), environment.questions().clone()));
    Some((scope, issuer))
}

#[cfg(test)]
mod tests;
