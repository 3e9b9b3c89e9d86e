//! A GitHub App: who we are to GitHub, and what its tokens may reach. Written, and resolved.

use super::TokenScope;
use super::handed::{Handed, SecretAt};
use super::values::{Period, ServerUrl, Word};
use schemars::JsonSchema;
use serde::Deserialize;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// GitHub's own API; that of a GitHub Enterprise Server is `https://HOST/api/v3`.
pub const API: &str = "https://api.github.com";

/// A GitHub App, where it is installed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GitHubAppSpec {
    /// Its number. Or else its client ID.
    pub app_id: Option<NonZeroU64>,
    /// Its client ID, e.g. `Iv23liAbCdEf`.
    pub client_id: Option<Word>,
    /// The number of its installation in an organisation or account: the end of that page's address.
    pub installation_id: Option<NonZeroU64>,
    /// Its private key, PEM: `{file: NAME}`, below `sources.file.dir`, or `{env: VARIABLE}`.
    pub private_key: Option<Handed>,
    /// The API (default `https://api.github.com`; of a GitHub Enterprise Server `https://HOST/api/v3`); `http://` only
    /// to loopback.
    pub api: Option<ServerUrl>,
    /// PEM file of the authorities to trust instead of the system's, read from this file's directory.
    pub ca_file: Option<String>,
    /// How old a token becomes before another takes its place (default `40m`; never more than two thirds of its life).
    pub refresh: Option<Period>,
}

/// A GitHub App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubApp {
    /// Who issues its JWTs: its client ID or its number.
    pub issuer: String,
    /// Where it is installed.
    pub installation: u64,
    /// Its private key.
    pub key: SecretAt,
    /// The API, without a slash at its end.
    pub api: String,
    /// The authorities to trust instead of the system's, absolute.
    pub ca_file: Option<PathBuf>,
    /// A token that is this old is replaced.
    pub refresh: Duration,
}

impl GitHubApp {
    /// The place, for people.
    pub fn place(&self) -> String {
        format!("github_app installation {}", self.installation)
    }
}

/// Tokens of an installation, one a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubAppToken {
    /// Who asks for them.
    pub app: std::sync::Arc<GitHubApp>,
    /// What they may reach at most.
    pub scope: TokenScope,
}

impl GitHubAppToken {
    /// The place, for people.
    pub fn place(&self) -> String {
        self.app.place()
    }
}
