//! 1Password: how it is asked. Written, and resolved.

use super::handed::{Handed, SecretAt};
use super::values::{OpReference, Period, ServerUrl};
use attache_core::names::Name;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Secrets in 1Password, read by its command line `op`, or from a Connect server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnePasswordSpec {
    /// Whether it is asked at all (default: whether `connect` is there).
    pub enabled: Option<bool>,
    /// The program (default `op`, looked for in `PATH`). A path with a `/` is read from the directory
    /// of this file.
    pub op_path: Option<String>,
    /// A Connect server, which is asked in place of `op`.
    pub connect: Option<ConnectSpec>,
    /// How old an answer becomes before it is asked for anew (default `10m`, of a Connect server `1m`).
    pub refresh: Option<Period>,
    /// By the credential's name: where its secret is, where the credential's `source` does not say so.
    pub references: BTreeMap<Name, OpReference>,
}

/// A Connect server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectSpec {
    /// Its address: `https://HOST:PORT`; `http://` only to loopback.
    pub address: ServerUrl,
    /// Its access token.
    pub token: Handed,
    /// PEM file of the authorities to trust instead of the system's, read from this file's directory.
    pub ca_file: Option<String>,
}

/// A Connect server, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Its address, without a slash at its end.
    pub address: String,
    /// What makes us somebody there.
    pub token: SecretAt,
    /// The authorities to trust instead of the system's, absolute.
    pub ca_file: Option<PathBuf>,
}
