//! Everything that can be wrong with a question to Kubernetes, and what mends it. Holds no byte of an answer.

use crate::sources::Trouble;
use crate::sources::http::HttpError;
use std::path::PathBuf;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KubernetesError {
    /// It does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Nothing says where a cluster is.
    #[error("the broker runs in no cluster: KUBERNETES_SERVICE_HOST is not set")]
    NoCluster,
    /// A pod without a service account.
    #[error("the service account's token or certificate is not where a kubelet puts it")]
    NoServiceAccount,
    /// No kubeconfig, or none that can be read.
    #[error("{0} cannot be used: {1}")]
    Kubeconfig(PathBuf, &'static str),
    /// A kubeconfig that names a file which cannot be used; by which of its members.
    #[error("{0} cannot be used: its {1} {2}")]
    Named(PathBuf, &'static str, &'static str),
    /// Nobody, or nobody any longer.
    #[error("it does not accept our token or certificate: it may have expired, or its account be deleted (HTTP 401)")]
    Unauthorized,
    /// Somebody who may not read this one.
    #[error("we may not `get` the Secret {name} in namespace {namespace} (HTTP 403)")]
    Forbidden {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
    },
    /// It says that it cannot.
    #[error("it fails (HTTP {0})")]
    Failing(u16),
    /// A Secret without this key.
    #[error("the Secret has no such key")]
    NoKey,
    /// Bytes that are no text.
    #[error("the key holds no text")]
    NotText,
    /// Nothing.
    #[error("the key is empty")]
    Empty,
    /// Longer than a secret can be.
    #[error("the key is longer than 64 KiB, or the answer than 4 MiB")]
    TooLong,
    /// Not what Kubernetes says.
    #[error("what answers there does not answer as Kubernetes does")]
    Malformed,
}

impl KubernetesError {
    /// Whether it may go by itself, and says nothing about the secret.
    pub fn passes(&self) -> bool {
        use KubernetesError::{Failing, Http};
        matches!(self, Failing(_)) || matches!(self, Http(error) if error.passes())
    }

    /// What an operator does about it.
    fn fix(&self) -> String {
        use KubernetesError as E;
        let fix = match self {
            E::Http(HttpError::Unreachable | HttpError::TimedOut) => {
                "see whether the API server runs, and whether a NetworkPolicy keeps the broker from it; the broker tries \
                 again by itself"
            }
            E::Http(HttpError::Busy(_)) => "wait; a longer sources.kubernetes.refresh asks less often",
            E::Http(_) => {
                "see whether certificate-authority and server of the kubeconfig's cluster, or the pod's ca.crt, are \
                 those of this API server"
            }
            E::NoCluster => "name a kubeconfig in sources.kubernetes.kubeconfig, or run the broker in a pod",
            E::NoServiceAccount => {
                "give the pod a service account, without automountServiceAccountToken: false; or name a kubeconfig in \
                 sources.kubernetes.kubeconfig"
            }
            E::Kubeconfig(..) | E::Named(..) => {
                "write a kubeconfig of a service account with its own token, tokenFile or client certificate into a \
                 directory that only root and the broker's user may write, and name its context in \
                 sources.kubernetes.context"
            }
            E::Unauthorized => {
                "see whether the service account exists, and issue a new token; one that a kubelet projects is renewed \
                 and read again by itself"
            }
            E::Forbidden { namespace, name } => {
                return format!(
                    "apply this Role, and bind it to the broker's service account (docs/kubernetes-secrets.md): \
                     {{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: attache-{name}, \
                     namespace: {namespace}}}, rules: [{{apiGroups: [''], resources: [secrets], resourceNames: \
                     [{name}], verbs: [get]}}]}}"
                );
            }
            E::Failing(_) => "see the API server's log; the broker tries again by itself",
            E::NoKey | E::NotText | E::Empty | E::TooLong => {
                "name a key of the Secret's data that holds the secret itself, as text"
            }
            E::Malformed => "see whether the API server is meant, and not something before it",
        };
        fix.to_owned()
    }
}

impl From<KubernetesError> for Trouble {
    fn from(error: KubernetesError) -> Self {
        let (what, fix) = (error.to_string(), error.fix());
        let trouble = if error.passes() { Self::passing(what, fix) } else { Self::lasting(what, fix) };
        if let KubernetesError::Http(error) = error { trouble.not_before(error.wait()) } else { trouble }
    }
}
