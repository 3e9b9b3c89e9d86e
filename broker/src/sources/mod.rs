//! Where secrets are found. One kind of source, one file, two lines here: `mod` and an arm of [`open`].
//!
//! *Absent* and *an error* are different answers: absent falls through to the next source, an error
//! stops. No source logs, caches or prints what it found.

mod env;
mod file;
mod onepassword;

pub use env::Environment;
pub use onepassword::{OpError, find as find_program};

use crate::config::Lookup;
use crate::private_file::{PrivateError, Stamp};
use attache_core::Secret;
use std::pin::Pin;

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

    /// Why it could not look, the last time, where what it found before still holds.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// What [`Source::read`] will find.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Result<Option<Secret>, SourceError>> + Send + 'a>>;

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
    /// Bytes that are not UTF-8.
    #[error("{0} does not hold text")]
    NotText(String),
    /// There, but with nothing in it.
    #[error("{0} is empty: write the secret into it, or remove it")]
    Empty(String),
    /// 1Password.
    #[error("{place}: {why}")]
    OnePassword {
        /// The reference.
        place: String,
        /// What is wrong.
        why: OpError,
    },
}

/// The source for one lookup.
pub fn open(lookup: &Lookup, environment: &Environment) -> Box<dyn Source> {
    match lookup {
        Lookup::Env(name) => Box::new(env::Variable::new(name, environment)),
        Lookup::OnePassword(item) => Box::new(onepassword::Item::new(item, environment.of_op())),
        Lookup::File(path) => Box::new(file::SecretFile::new(path)),
    }
}
