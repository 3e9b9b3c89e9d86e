//! Where the broker finds what makes it somebody at a source: written, and resolved.

use super::values::{FileName, Variable};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where a secret of the broker's own is: `{env: VARIABLE}`, read once at start, or `{file: NAME}`, below
/// `sources.file.dir`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Handed {
    /// A variable of the broker's environment.
    Env(Variable),
    /// A file below `sources.file.dir`, 0600.
    File(FileName),
}

impl Handed {
    /// The place; files lie below `file_dir`.
    pub fn at(&self, file_dir: &Path) -> SecretAt {
        match self {
            Handed::Env(variable) => SecretAt::Env(variable.0.clone()),
            Handed::File(file) => SecretAt::Private(file_dir.join(&file.0)),
        }
    }
}

/// Where a secret of the broker's own is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretAt {
    /// A variable, as it was at start.
    Env(String),
    /// A file of ours alone, absolute.
    Private(PathBuf),
    /// A file that others may read, too, absolute: what a kubelet mounts.
    Shared(PathBuf),
    /// The first line of standard input.
    Stdin,
}

impl SecretAt {
    /// The variable that holds it.
    pub fn variable(&self) -> Option<&str> {
        if let SecretAt::Env(name) = self { Some(name) } else { None }
    }

    /// The file that holds it.
    pub fn file(&self) -> Option<&Path> {
        if let SecretAt::Private(path) | SecretAt::Shared(path) = self { Some(path) } else { None }
    }

    /// The place, for people.
    pub fn place(&self) -> String {
        match self {
            SecretAt::Env(name) => format!("env {name}"),
            SecretAt::Private(path) | SecretAt::Shared(path) => format!("file {}", path.display()),
            SecretAt::Stdin => "standard input".to_owned(),
        }
    }
}
