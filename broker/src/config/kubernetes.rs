//! Secrets of Kubernetes, mounted by a kubelet or read by the API: written, and resolved.

use super::handed::SecretAt;
use super::values::{KubernetesKey, KubernetesName, KubernetesNamespace, Period, VolumeFile, Word};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One file of a volume that a kubelet has mounted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountedSpec {
    /// The volume's root, its `mountPath`: no link leads out of it. A relative path is read from this file's directory.
    pub volume: String,
    /// The file in it: a key of the Secret, or the `path` that an item gives it.
    pub file: VolumeFile,
}

/// Kubernetes, asked by its API (default: the cluster that the broker runs in, by its service account).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSourceSpec {
    /// Where Secrets are that name no namespace themselves (default: the broker's own, or the context's).
    pub namespace: Option<KubernetesNamespace>,
    /// A kubeconfig, for a broker outside of the cluster; a relative path is read from this file's directory.
    pub kubeconfig: Option<String>,
    /// Which context of it (default: its current one).
    pub context: Option<Word>,
    /// How old an answer becomes before it is asked for anew (default `1m`).
    pub refresh: Option<Period>,
}

/// One key of one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesSecretSpec {
    /// The Secret's name.
    pub secret: KubernetesName,
    /// Which key of its data.
    pub key: KubernetesKey,
    /// Its namespace (default: `sources.kubernetes.namespace`).
    pub namespace: Option<KubernetesNamespace>,
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The volume's root, absolute.
    pub volume: PathBuf,
    /// The file in it, relative.
    pub file: PathBuf,
}

impl Mounted {
    /// The place, for people.
    pub fn place(&self) -> String {
        format!("mounted {}", self.volume.join(&self.file).display())
    }
}

/// A cluster, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// A kubeconfig, absolute, and which context of it; `None`: the cluster that the broker runs in.
    pub kubeconfig: Option<(PathBuf, Option<String>)>,
    /// What makes us somebody there: the kubeconfig, or the service account's token.
    pub own: SecretAt,
    /// An answer is asked for anew when it is this old.
    pub refresh: Duration,
}

/// One key of one Secret, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSecret {
    /// Where.
    pub cluster: Arc<Cluster>,
    /// Its namespace; `None`: the broker's own, or the context's.
    pub namespace: Option<String>,
    /// Its name.
    pub secret: String,
    /// Which key.
    pub key: String,
}

impl KubernetesSecret {
    /// The place, for people.
    pub fn place(&self) -> String {
        let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("kubernetes {namespace}{}#{}", self.secret, self.key)
    }
}
