//! Infisical: where it is, who we are there, what is read. Written, and resolved.

use super::handed::{Handed, SecretAt};
use super::values::{FolderPath, Period, Segment, ServerUrl, Word};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where it is, unless the config says otherwise: Infisical Cloud, in the US.
pub const CLOUD: &str = "https://app.infisical.com";

/// An Infisical in which secrets are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InfisicalSpec {
    /// Its address (default `https://app.infisical.com`): `https://HOST:PORT`; `http://` only to loopback.
    pub address: Option<ServerUrl>,
    /// PEM file of the authorities to trust instead of the system's, read from this file's directory.
    pub ca_file: Option<String>,
    /// Who we are there.
    pub auth: Option<InfisicalAuthSpec>,
    /// The ID of the project, for every secret that does not say otherwise.
    pub project: Option<Word>,
    /// The slug of the environment, likewise.
    pub environment: Option<Word>,
    /// The folder, likewise (default `/`).
    pub path: Option<FolderPath>,
    /// How old an answer becomes before it is asked for anew (default `1m`).
    pub refresh: Option<Period>,
}

/// Who we are: `{universal: …}`, a machine identity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InfisicalAuthSpec {
    /// Universal Auth.
    Universal(UniversalSpec),
}

/// Universal Auth.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UniversalSpec {
    /// The client ID, which is no secret.
    pub client_id: Word,
    /// A client secret.
    pub client_secret: Handed,
}

/// One secret there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InfisicalSecretSpec {
    /// Its name.
    pub name: Segment,
    /// The folder (default: `sources.infisical.path`).
    pub path: Option<FolderPath>,
    /// The slug of the environment (default: `sources.infisical.environment`).
    pub environment: Option<Word>,
    /// The ID of the project (default: `sources.infisical.project`).
    pub project: Option<Word>,
    /// Which version (default: the latest).
    pub version: Option<std::num::NonZeroU32>,
}

/// An Infisical, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infisical {
    /// Its address, without a slash at its end.
    pub address: String,
    /// The authorities to trust instead of the system's, absolute.
    pub ca_file: Option<PathBuf>,
    /// Who we are.
    pub client_id: String,
    /// What proves it.
    pub client_secret: SecretAt,
    /// An answer is asked for anew when it is this old.
    pub refresh: Duration,
}

/// One secret there, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfisicalSecret {
    /// Where.
    pub server: Arc<Infisical>,
    /// The project's ID.
    pub project: String,
    /// The environment's slug.
    pub environment: String,
    /// The folder, with a slash before it and none behind it.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Which version of it.
    pub version: Option<u32>,
}

impl InfisicalSecret {
    /// The place, for people.
    pub fn place(&self) -> String {
        let version = self.version.map(|version| format!(" (version {version})")).unwrap_or_default();
        let path = self.path.trim_end_matches('/');
        format!("infisical {}:{path}/{}{version}", self.environment, self.name)
    }
}
