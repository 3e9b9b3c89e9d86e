//! OpenBao, or HashiCorp Vault: where it is, who we are there, what is read. Written, and resolved.

use super::handed::{Handed, SecretAt};
use super::values::{ApiPath, FileName, Namespace, Period, ServerUrl, Variable, Word};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An OpenBao (or HashiCorp Vault) in which secrets are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpenBaoSpec {
    /// Its address: `https://HOST:PORT`; `http://` only to loopback.
    pub address: Option<ServerUrl>,
    /// Addresses of its other nodes: to these a standby may send on, and to nobody else.
    pub nodes: Vec<ServerUrl>,
    /// The namespace of everything that is asked (default: the root).
    pub namespace: Option<Namespace>,
    /// PEM file of the authorities to trust instead of the system's, read from this file's directory.
    pub ca_file: Option<String>,
    /// PEM file of the certificate to show, with those that sign it.
    pub client_certificate_file: Option<String>,
    /// PEM file of its key.
    pub client_key_file: Option<String>,
    /// Who we are there.
    pub auth: Option<AuthSpec>,
    /// How old an answer becomes before it is asked for anew (default `1m`).
    pub refresh: Option<Period>,
    /// What `source: {ref: …}` means.
    pub references: Option<ReferencesSpec>,
}

/// Who we are: `{token: …}`, `{approle: …}`, `{kubernetes: …}` or `{jwt: …}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthSpec {
    /// A token that somebody has made.
    Token(Handed),
    /// A role and its SecretID.
    AppRole(AppRoleSpec),
    /// A service account of Kubernetes.
    Kubernetes(KubernetesSpec),
    /// A JWT of an identity provider.
    Jwt(JwtSpec),
}

/// Where a wrapping token is: as for other secrets, or `stdin`: the first line of the broker's standard input.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivered {
    /// A variable of the broker's environment.
    Env(Variable),
    /// A file below `sources.file.dir`, 0600; it is erased when it has been used.
    File(FileName),
    /// The first line of the broker's standard input, waited for at its start.
    Stdin,
}

/// AppRole.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRoleSpec {
    /// The RoleID, which is no secret.
    pub role_id: Word,
    /// The SecretID.
    pub secret_id: Option<Handed>,
    /// In its place: a token that unwraps to one, once.
    pub wrapped_secret_id: Option<Delivered>,
    /// Which path must have made the wrapping token: `auth/approle/role/NAME/secret-id`.
    pub creation_path: Option<ApiPath>,
    /// Where the method is mounted (default `approle`).
    pub mount: Option<ApiPath>,
}

/// Kubernetes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesSpec {
    /// The role.
    pub role: Word,
    /// The service account's token (default `/var/run/secrets/kubernetes.io/serviceaccount/token`), read at each login.
    pub jwt_file: Option<String>,
    /// Where the method is mounted (default `kubernetes`).
    pub mount: Option<ApiPath>,
}

/// A JWT.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSpec {
    /// The role.
    pub role: Word,
    /// Where the JWT is.
    pub jwt: JwtAt,
    /// Where the method is mounted (default `jwt`).
    pub mount: Option<ApiPath>,
}

/// Where a JWT is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JwtAt {
    /// A variable of the broker's environment, read once at start.
    Env(Variable),
    /// A file, read at each login; a relative path is read from this file's directory.
    File(String),
}

/// What `source: {ref: "SCOPE/PROVIDER:KEY"}` means: a template a scope.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferencesSpec {
    /// A KV version 2 engine: paths are read below its `data/`. Without it, templates give whole paths.
    pub mount: Option<ApiPath>,
    /// What `{base}` stands for.
    pub base: Option<ApiPath>,
    /// What `{environment}` stands for; without it, its segment is left out.
    pub environment: Option<ApiPath>,
    /// By scope: `{base}/runtime-providers/{provider}/{environment}/secrets`.
    pub templates: BTreeMap<Word, Template>,
}

/// One secret there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBaoSecretSpec {
    /// Its path in the API, without `/v1/`: `secret/data/github` (KV version 2), `database/creds/ro`.
    pub path: ApiPath,
    /// Which field of it.
    pub field: Word,
    /// Which version (KV version 2; default: the latest).
    pub version: Option<std::num::NonZeroU32>,
}

/// A path with `{base}`, `{provider}` and `{environment}`, each a whole segment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Template(String);

/// `SCOPE/PROVIDER:KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct ArtifactRef {
    /// Which template.
    pub scope: String,
    /// What `{provider}` stands for.
    pub provider: String,
    /// The field.
    pub key: String,
}

/// Not a reference, or not a template.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Not a reference.
    #[error("expected SCOPE/PROVIDER:KEY, e.g. runtime-providers/cliproxy:CODEX_OAUTH_BUNDLE")]
    Reference,
    /// Not a template.
    #[error(
        "expected a path of segments, of which {{base}}, {{provider}} and {{environment}} are replaced, with {{provider}} in it"
    )]
    Template,
}

impl TryFrom<String> for ArtifactRef {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        let parts = text.split_once(':').and_then(|(place, key)| Some((place.split_once('/')?, key)));
        let ((scope, provider), key) = parts.ok_or(ReferenceError::Reference)?;
        // One segment each: a reference chooses a secret, not a place among others.
        let plain = |part: &str| Word::try_from(part.to_owned()).is_ok() && !part.contains(['/', ':', '{', '}']);
        let is_segment = |part: &str| plain(part) && ApiPath::try_from(part.to_owned()).is_ok();
        if is_segment(scope) && is_segment(provider) && plain(key) {
            Ok(Self { scope: scope.to_owned(), provider: provider.to_owned(), key: key.to_owned() })
        } else {
            Err(ReferenceError::Reference)
        }
    }
}

impl TryFrom<String> for Template {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        let known = |segment: &&str| ["{base}", "{provider}", "{environment}"].contains(segment);
        let rest: Vec<_> = text.split('/').filter(|segment| !known(segment)).collect();
        let plain = rest.iter().all(|segment| !segment.contains(['{', '}']));
        let is_path = rest.is_empty() || ApiPath::try_from(rest.join("/")).is_ok();
        let names = text.split('/').any(|segment| segment == "{provider}");
        if plain && is_path && names { Ok(Self(text)) } else { Err(ReferenceError::Template) }
    }
}

impl Template {
    /// The path; `None` where it needs a base and there is none.
    pub fn path(&self, base: Option<&str>, provider: &str, environment: Option<&str>) -> Option<String> {
        let mut segments = Vec::new();
        for segment in self.0.split('/') {
            match segment {
                "{base}" => segments.push(base?),
                "{provider}" => segments.push(provider),
                "{environment}" => segments.extend(environment),
                other => segments.push(other),
            }
        }
        Some(segments.join("/"))
    }
}

/// An OpenBao, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBao {
    /// Its address, without a slash at its end.
    pub address: String,
    /// Where a standby may send on to.
    pub nodes: Vec<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The authorities to trust instead of the system's, absolute.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key to show, absolute.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who we are.
    pub auth: Auth,
    /// An answer is asked for anew when it is this old.
    pub refresh: Duration,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A token.
    Token(SecretAt),
    /// A role and its SecretID.
    AppRole {
        /// The RoleID.
        role_id: String,
        /// The SecretID.
        secret_id: SecretId,
        /// Where the method is mounted.
        mount: String,
    },
    /// A role and a JWT: Kubernetes and JWT differ in where they are mounted.
    Jwt {
        /// The role.
        role: String,
        /// The JWT.
        jwt: SecretAt,
        /// Where the method is mounted.
        mount: String,
    },
}

/// A SecretID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretId {
    /// Itself.
    Plain(SecretAt),
    /// A token that unwraps to it, once.
    Wrapped {
        /// The token.
        token: SecretAt,
        /// What must have made it.
        creation_path: String,
    },
}

impl Auth {
    /// Where its secret is.
    pub fn secret(&self) -> &SecretAt {
        match self {
            Auth::Token(at) | Auth::Jwt { jwt: at, .. } => at,
            Auth::AppRole { secret_id: SecretId::Plain(at) | SecretId::Wrapped { token: at, .. }, .. } => at,
        }
    }
}

/// One secret there, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBaoSecret {
    /// Where.
    pub server: Arc<OpenBao>,
    /// Its path, without `/v1/`.
    pub path: String,
    /// Which field.
    pub field: String,
    /// Which version of it.
    pub version: Option<u32>,
    /// Whether a field that is an object is the secret, as JSON: for a credential of several fields.
    pub document: bool,
}

impl OpenBaoSecret {
    /// The place, for people.
    pub fn place(&self) -> String {
        let version = self.version.map(|version| format!(" (version {version})")).unwrap_or_default();
        format!("openbao {}#{}{version}", self.path, self.field)
    }
}
