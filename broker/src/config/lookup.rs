//! Where one secret may be: one variant a kind of source, and everything about a kind that others ask.

use super::handed::SecretAt;
use super::infisical::InfisicalSecret;
use super::kubernetes::{KubernetesSecret, Mounted};
use super::onepassword::Connect;
use super::openbao::OpenBaoSecret;
use super::{GitHubAppToken, TokenScope};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// Infisical.
    Infisical,
    /// A GitHub App: each session gets a token of its own.
    #[serde(rename = "github_app")]
    GitHubApp,
    /// A volume that a kubelet has mounted.
    Mounted,
    /// Kubernetes, by its API.
    Kubernetes,
    /// A file, 0600, re-read when it changes.
    File,
}

impl SourceKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|kind| kind.kind == self).map_or("", |kind| kind.word)
    }
}

/// A kind of source, as it is written: the one place where all kinds stand side by side.
#[derive(Debug)]
pub struct Kind {
    /// Which one.
    pub kind: SourceKind,
    /// How `sources.order`, `sources` and a credential's `source` name it.
    pub word: &'static str,
    /// What all its secrets share, an example in YAML: what stands at `sources.WORD`; empty where nothing has to.
    pub shared: &'static str,
    /// Where one secret is, an example in YAML: what stands at `credentials.NAME.source.WORD`.
    pub secret: &'static str,
    /// Whether somebody has to be asked: over a network, or as a program.
    pub is_asked: bool,
    /// The page of the documents that describes it.
    pub page: &'static str,
}

/// All of them, in the order in which they are asked where the config says nothing.
pub const KINDS: [Kind; 8] = [
    Kind {
        kind: SourceKind::Env,
        word: "env",
        shared: "",
        secret: "GITHUB_TOKEN",
        is_asked: false,
        page: "credentials.md",
    },
    Kind {
        kind: SourceKind::OnePassword,
        word: "onepassword",
        shared: "{enabled: true}",
        secret: "op://Private/GitHub/token",
        is_asked: true,
        page: "onepassword.md",
    },
    Kind {
        kind: SourceKind::OpenBao,
        word: "openbao",
        shared: "{address: https://bao.example.com:8200, auth: {token: {env: BAO_TOKEN}}}",
        secret: "{path: secret/data/github, field: token}",
        is_asked: true,
        page: "openbao.md",
    },
    Kind {
        kind: SourceKind::Infisical,
        word: "infisical",
        shared: "{project: 5f0c1c1e-0000-0000-0000-000000000000, environment: prod, auth: {universal: {client_id: \
                 7f3c1c1e-0000-0000-0000-000000000000, client_secret: {env: INFISICAL_CLIENT_SECRET}}}}",
        secret: "{name: GITHUB_TOKEN}",
        is_asked: true,
        page: "infisical.md",
    },
    Kind {
        kind: SourceKind::GitHubApp,
        word: "github_app",
        shared: "{client_id: Iv23liAbCdEfGhIjKlMn, installation_id: 12345678, private_key: {file: github_app.pem}}",
        secret: "{repositories: [my-repo], permissions: {contents: write}}",
        is_asked: true,
        page: "github-app.md",
    },
    Kind {
        kind: SourceKind::Mounted,
        word: "mounted",
        shared: "",
        secret: "{volume: /var/run/secrets/attache/github, file: token}",
        is_asked: false,
        page: "kubernetes-secrets.md",
    },
    Kind {
        kind: SourceKind::Kubernetes,
        word: "kubernetes",
        shared: "",
        secret: "{secret: github, key: token}",
        is_asked: true,
        page: "kubernetes-secrets.md",
    },
    Kind {
        kind: SourceKind::File,
        word: "file",
        shared: "",
        secret: "github_token",
        is_asked: false,
        page: "credentials.md",
    },
];

/// One place where a secret may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The environment variable with this name.
    Env(String),
    /// What this secret reference names.
    OnePassword(OnePassword),
    /// What OpenBao has there.
    OpenBao(OpenBaoSecret),
    /// What Infisical has there.
    Infisical(InfisicalSecret),
    /// What GitHub gives a session.
    GitHubApp(GitHubAppToken),
    /// A file of a volume that a kubelet has mounted.
    Mounted(Mounted),
    /// One key of a Secret of Kubernetes.
    Kubernetes(KubernetesSecret),
    /// The file at this path, absolute.
    File(PathBuf),
}

impl Lookup {
    /// Of which kind it is.
    pub fn kind(&self) -> SourceKind {
        match self {
            Lookup::Env(_) => SourceKind::Env,
            Lookup::OnePassword(_) => SourceKind::OnePassword,
            Lookup::OpenBao(_) => SourceKind::OpenBao,
            Lookup::Infisical(_) => SourceKind::Infisical,
            Lookup::GitHubApp(_) => SourceKind::GitHubApp,
            Lookup::Mounted(_) => SourceKind::Mounted,
            Lookup::Kubernetes(_) => SourceKind::Kubernetes,
            Lookup::File(_) => SourceKind::File,
        }
    }

    /// The place, for people: `env GITHUB_TOKEN`. Names no content.
    pub fn place(&self) -> String {
        match self {
            Lookup::Env(variable) => format!("env {variable}"),
            Lookup::OnePassword(item) => item.place(),
            Lookup::OpenBao(secret) => secret.place(),
            Lookup::Infisical(secret) => secret.place(),
            Lookup::GitHubApp(token) => token.place(),
            Lookup::Mounted(file) => file.place(),
            Lookup::Kubernetes(secret) => secret.place(),
            Lookup::File(path) => format!("file {}", path.display()),
        }
    }

    /// The broker's environment variable that holds the secret.
    pub fn variable(&self) -> Option<&str> {
        if let Lookup::Env(variable) = self { Some(variable) } else { None }
    }

    /// What makes the broker somebody where the secret is.
    pub fn own_secret(&self) -> Option<&SecretAt> {
        match self {
            Lookup::OpenBao(secret) => Some(secret.server.auth.secret()),
            Lookup::GitHubApp(token) => Some(&token.app.key),
            Lookup::Infisical(secret) => Some(&secret.server.client_secret),
            Lookup::OnePassword(item) => item.connect.as_ref().map(|connect| &connect.token),
            Lookup::Kubernetes(secret) => Some(&secret.cluster.own),
            Lookup::Env(_) | Lookup::Mounted(_) | Lookup::File(_) => None,
        }
    }

    /// What its tokens may reach, where each session has one of its own.
    pub fn scope(&self) -> Option<&TokenScope> {
        if let Lookup::GitHubApp(token) = self { Some(&token.scope) } else { None }
    }

    /// The file that holds the secret.
    pub fn file(&self) -> Option<&Path> {
        if let Lookup::File(path) = self { Some(path) } else { None }
    }

    /// The volume that holds the secret.
    pub fn volume(&self) -> Option<&Path> {
        if let Lookup::Mounted(file) = self { Some(&file.volume) } else { None }
    }
}

/// A secret in 1Password, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnePassword {
    /// `op://VAULT/ITEM/[SECTION/]FIELD`.
    pub reference: String,
    /// The program `op`: an absolute path, or a name to look for in `PATH`.
    pub op: PathBuf,
    /// Who is asked in its place.
    pub connect: Option<Arc<Connect>>,
    /// An answer is asked for anew when it is this old.
    pub refresh: Duration,
}

impl OnePassword {
    /// The place, for people.
    pub fn place(&self) -> String {
        format!("1password {}", self.reference)
    }
}
