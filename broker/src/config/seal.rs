//! By what the state directory is sealed. Written, and resolved.

use super::OpenBao;
use super::handed::SecretAt;
use super::values::{ApiPath, Variable};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is kept in the state directory.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateSpec {
    /// By what is sealed what is secret in it (default: nothing, its files are plain and 0600).
    pub seal: Option<SealSpec>,
}

/// By what: `{file: PATH}`, `{env: VARIABLE}` or `{transit: {key: NAME}}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SealSpec {
    /// A file with 32 bytes in hex or base64, 0600; a relative path is read from this file's directory.
    File(String),
    /// A variable of the broker's environment that holds the same.
    Env(Variable),
    /// Transit, in the OpenBao of `sources.openbao`.
    Transit(TransitSpec),
}

/// A key of OpenBao's transit engine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransitSpec {
    /// Where the engine is mounted (default `transit`).
    pub mount: Option<ApiPath>,
    /// The key's name.
    pub key: ApiPath,
}

/// By what the state directory is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedBy {
    /// The key in this file, absolute.
    File(PathBuf),
    /// The key in this variable.
    Env(String),
    /// OpenBao's transit.
    Transit {
        /// Which OpenBao.
        server: Arc<OpenBao>,
        /// Where the engine is mounted.
        mount: String,
        /// The key's name.
        key: String,
    },
}

impl SealedBy {
    /// The place, for people.
    pub fn place(&self) -> String {
        match self {
            SealedBy::File(path) => format!("file {}", path.display()),
            SealedBy::Env(name) => format!("env {name}"),
            SealedBy::Transit { mount, key, .. } => format!("transit {mount}/{key}"),
        }
    }

    /// The variable that holds the key.
    pub fn variable(&self) -> Option<&str> {
        if let SealedBy::Env(name) = self { Some(name) } else { None }
    }

    /// The file that holds the key.
    pub fn file(&self) -> Option<&Path> {
        if let SealedBy::File(path) = self { Some(path) } else { None }
    }

    /// What makes the broker somebody where the key is.
    pub fn own_secret(&self) -> Option<&SecretAt> {
        if let SealedBy::Transit { server, .. } = self { Some(server.auth.secret()) } else { None }
    }
}
