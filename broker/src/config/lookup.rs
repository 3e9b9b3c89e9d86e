//! Where one secret may be: one variant a kind of source, and everything about a kind that others ask.

use super::openbao::OpenBaoSecret;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A kind of source, as `sources.order` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// An environment variable of the broker, read once at start.
    Env,
    /// 1Password.
    OnePassword,
    /// OpenBao, or HashiCorp Vault.
    OpenBao,
    /// A file, 0600, re-read when it changes.
    File,
}

impl SourceKind {
    /// All of them, in the order in which they are asked where the config says nothing.
    pub const ALL: [Self; 4] = [Self::Env, Self::OnePassword, Self::OpenBao, Self::File];
}

/// One place where a secret may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The environment variable with this name.
    Env(String),
    /// What this secret reference names.
    OnePassword(OnePassword),
    /// What OpenBao has there.
    OpenBao(OpenBaoSecret),
    /// The file at this path, absolute.
    File(PathBuf),
}

impl Lookup {
    /// The place, for people: `env GITHUB_TOKEN`. Names no content.
    pub fn place(&self) -> String {
        match self {
            Lookup::Env(variable) => format!("env {variable}"),
            Lookup::OnePassword(item) => item.place(),
            Lookup::OpenBao(secret) => secret.place(),
            Lookup::File(path) => format!("file {}", path.display()),
        }
    }

    /// The broker's environment variable that holds the secret.
    pub fn variable(&self) -> Option<&str> {
        if let Lookup::Env(variable) = self { Some(variable) } else { None }
    }

    /// The file that holds the secret.
    pub fn file(&self) -> Option<&Path> {
        if let Lookup::File(path) = self { Some(path) } else { None }
    }
}

/// A secret in 1Password, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnePassword {
    /// `op://VAULT/ITEM/[SECTION/]FIELD`.
    pub reference: String,
    /// The program `op`: an absolute path, or a name to look for in `PATH`.
    pub op: PathBuf,
    /// An answer is asked for anew when it is this old.
    pub refresh: Duration,
}

impl OnePassword {
    /// The place, for people.
    pub fn place(&self) -> String {
        format!("1password {}", self.reference)
    }
}
