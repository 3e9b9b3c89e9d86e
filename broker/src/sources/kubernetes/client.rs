//! The way to an API server: that of a kubeconfig, or of the cluster that the broker runs in.
//!
//! The client reads a projected token, and its authority, anew every minute. Made anew are those that a changed
//! kubeconfig describes, and one that is not accepted any longer.

use super::answer::Reply;
use super::error::KubernetesError;
use super::kubeconfig;
use crate::config::Cluster;
use crate::sources::http::{Body as Answered, HttpError, retry_after, tls_within};
use crate::sources::quiet::Quiet;
use attache_core::matching::host::Host;
use http::Request;
use http_body_util::BodyExt as _;
use kube_client::client::Body;
use kube_client::config::{InClusterError, KubeConfigOptions};
use kube_client::{Config, Error};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// No answer is longer, in bytes: a Secret of 1 MiB in base64, and its metadata, which may repeat it.
const MOST: usize = 4 << 20;
/// Where it does not say how long to wait: API Priority and Fairness says a second
/// (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>).
const WINDOW: Duration = Duration::from_secs(1);

/// A way to ask.
pub struct Client {
    cluster: Arc<Cluster>,
    made: Mutex<Option<Made>>,
    quiet: Quiet,
}

#[derive(Clone)]
struct Made {
    client: kube_client::Client,
    namespace: String,
    /// When the kubeconfig was written.
    of: Option<SystemTime>,
}

impl Client {
    /// Nobody is asked yet.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, made: Mutex::default(), quiet: Quiet::default() }
    }

    /// Asks for one Secret.
    pub async fn get(&self, namespace: Option<&str>, name: &str) -> Result<Reply, KubernetesError> {
        let (made, is_new) = self.made().await?;
        let reply = self.ask(&made, namespace, name).await?;
        if reply.status != 401 {
            return Ok(reply);
        }
        // The token that the client remembers may be over, and another in its place.
        *self.memory() = None;
        if is_new {
            return Ok(reply);
        }
        let (made, _) = self.made().await?;
        self.ask(&made, namespace, name).await
    }

    /// Asks, unless it wants to be left alone.
    async fn ask(&self, made: &Made, namespace: Option<&str>, name: &str) -> Result<Reply, KubernetesError> {
        if let Some(left) = self.quiet.left() {
            return Err(HttpError::Busy(left).into());
        }
        ask(made, namespace, name).await.inspect_err(|error| {
            if let KubernetesError::Http(HttpError::Busy(wait)) = error {
                self.quiet.keep(*wait);
            }
        })
    }

    /// The client, and whether nobody has asked by it.
    async fn made(&self) -> Result<(Made, bool), KubernetesError> {
        let written = self.cluster.kubeconfig.as_ref();
        let of = written.and_then(|(file, _)| std::fs::metadata(file).and_then(|found| found.modified()).ok());
        if let Some(made) = self.memory().as_ref().filter(|made| made.of == of) {
            return Ok((made.clone(), false));
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = match written {
            Some((file, context)) => of_file(file, context.as_ref()).await?,
            None => Config::incluster().map_err(|why| match why {
                InClusterError::ReadEnvironmentVariable(_) => KubernetesError::NoCluster,
                _ => KubernetesError::NoServiceAccount,
            })?,
        };
        config.connect_timeout = Some(CONNECT);
        // No proxy of the environment, and no questions beyond ours.
        config.proxy_url = None;
        config.default_retry = false;
        let namespace = config.default_namespace.trim().to_owned();
        let client = kube_client::Client::try_from(config).map_err(|_| match written {
            Some((file, _)) => KubernetesError::Kubeconfig(
                file.clone(),
                "the token, certificate or authority that it names cannot be read",
            ),
            None => KubernetesError::NoServiceAccount,
        })?;
        let made = Made { client, namespace, of };
        *self.memory() = Some(made.clone());
        Ok((made, true))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a kubeconfig says. Programs that it names are not run, and nobody is spoken to in the clear.
async fn of_file(file: &Path, context: Option<&String>) -> Result<Config, KubernetesError> {
    let wrong = |why| KubernetesError::Kubeconfig(file.to_owned(), why);
    let mut written = kubeconfig::read(file)?;
    let chosen = context.or(written.current_context.as_ref());
    let chosen = written.contexts.iter().find(|one| Some(&one.name) == chosen).and_then(|one| one.context.as_ref());
    let chosen = chosen.cloned().ok_or_else(|| wrong("it has no such context"))?;
    let cluster = chosen.cluster;
    let is_proxied = |one: &kube_client::config::NamedCluster| {
        one.name == cluster && one.cluster.as_ref().is_some_and(|cluster| cluster.proxy_url.is_some())
    };
    if written.clusters.iter().any(is_proxied) {
        return Err(wrong("its cluster has a proxy-url, and the broker asks by no proxy"));
    }
    kubeconfig::settle(file, &mut written, &cluster, chosen.user.as_deref())?;
    let options = KubeConfigOptions { context: context.cloned(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(written, &options).await;
    let config = config.map_err(|_| wrong("its context names a cluster, or a file, that is not there"))?;
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(wrong("its user is made by a program (exec, auth-provider), and the broker runs none"));
    }
    if config.accept_invalid_certs {
        return Err(wrong("its cluster is not verified (insecure-skip-tls-verify)"));
    }
    if config.cluster_url.scheme_str() != Some("https") && !is_loopback(&config.cluster_url) {
        return Err(wrong("its server is no https:// URL, and a token travels there"));
    }
    Ok(config)
}

fn is_loopback(url: &http::Uri) -> bool {
    match Host::parse(url.host().unwrap_or_default().as_bytes()) {
        Ok(Host::V4(address)) => address.is_loopback(),
        Ok(Host::V6(address)) => address.is_loopback(),
        _ => false,
    }
}

async fn ask(made: &Made, namespace: Option<&str>, name: &str) -> Result<Reply, KubernetesError> {
    let namespace = namespace.unwrap_or(&made.namespace).to_owned();
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let request = Request::get(path).header("accept", "application/json").body(Body::empty());
    let answer = made.client.send(request.map_err(|_| KubernetesError::Malformed)?).await;
    let answer = answer.map_err(|error| classed(&error))?;
    let status = answer.status().as_u16();
    if status == 429 {
        return Err(HttpError::Busy(retry_after(answer.headers()).unwrap_or(WINDOW)).into());
    }
    let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    let mut whole = Answered::new(length, MOST);
    let mut body = pin!(answer.into_body());
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|error| classed(&error))?.into_data() else { continue };
        whole.take(&chunk).ok_or(KubernetesError::TooLong)?;
    }
    Ok(Reply { status, body: whole.bytes, namespace, name: name.to_owned() })
}

/// What a failure means. Its words may hold anything, and are never repeated.
fn classed(error: &Error) -> KubernetesError {
    tls_within(error).unwrap_or(HttpError::Unreachable).into()
}
