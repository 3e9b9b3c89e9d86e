//! Kubernetes: files of its volumes, and Secrets of its API.

use super::{Around, Problems, period};
use crate::config::SourcesConfig;
use crate::config::error::Problem;
use crate::config::handed::SecretAt;
use crate::config::kubernetes::{Cluster, KubernetesSecret, KubernetesSourceSpec, Mounted};
use crate::config::reader::join;
use crate::config::spec::{SourceSpec, Spec};
use std::sync::Arc;
use std::time::Duration;

const AT: &str = "sources.kubernetes";
/// Where a kubelet puts it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The cluster that all its Secrets share, where the config has use for one.
pub(super) fn resolve(spec: &Spec, around: &Around<'_>, problems: &mut Problems) -> Option<Arc<Cluster>> {
    let written = &spec.sources.kubernetes;
    let second = Duration::from_secs(1);
    let refresh = period(
        &written.refresh,
        60 * second,
        second..=86_400 * second,
        ("sources.kubernetes.refresh", "a length of time from 1s to 24h"),
        problems,
    );
    if written.context.is_some() && written.kubeconfig.is_none() && !around.is_incomplete(AT) {
        problems.add(join(AT, "context"), Problem::ContextOfNothing);
    }
    let kubeconfig = written.kubeconfig.as_ref().map(|file| around.path(file, &join(AT, "kubeconfig"), problems));
    let sources = spec.credentials.values().filter_map(|credential| credential.source.as_ref());
    let is_used = sources.into_iter().any(|source| source.kubernetes.is_some());
    if !is_used && *written == KubernetesSourceSpec::default() {
        return None;
    }
    let own = SecretAt::Shared(kubeconfig.clone().unwrap_or_else(|| SERVICE_ACCOUNT.into()));
    let context = written.context.as_ref().map(|context| context.0.clone());
    Some(Arc::new(Cluster { kubeconfig: kubeconfig.map(|file| (file, context)), own, refresh }))
}

/// What a credential's `source` names in a volume.
pub(super) fn mounted(
    source: Option<&SourceSpec>,
    at: &str,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Mounted> {
    let written = source?.mounted.as_ref()?;
    let at = join(at, "mounted.volume");
    if written.volume.is_empty() {
        problems.add(at, Problem::NoVolume);
        return None;
    }
    Some(Mounted { volume: around.path(&written.volume, &at, problems), file: written.file.0.clone() })
}

/// What a credential's `source` names in the cluster.
pub(super) fn secret(
    source: Option<&SourceSpec>,
    (spec, sources): (&Spec, &SourcesConfig),
) -> Option<KubernetesSecret> {
    let written = source?.kubernetes.as_ref()?;
    let namespace = written.namespace.as_ref().or(spec.sources.kubernetes.namespace.as_ref());
    Some(KubernetesSecret {
        cluster: sources.kubernetes.clone()?,
        namespace: namespace.map(|namespace| namespace.0.clone()),
        secret: written.secret.0.clone(),
        key: written.key.0.clone(),
    })
}
