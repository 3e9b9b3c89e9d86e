//! Secrets of Kubernetes, by its API:
//! <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/>
//!
//! One question: `get` of one Secret by its name. Nothing is listed, watched or written, so a Role with `resourceNames`
//! is all that it takes. A Secret that is not there is absent; one without the key, or closed to us, is an error.

mod answer;
mod client;
mod error;
mod kubeconfig;
#[cfg(test)]
mod tests;

pub use client::Client;

use super::Later;
use super::http::{HttpError, LONGEST};
use super::remembered::{Answer, Pace, Remembered, Remote};
use super::trouble::Trouble;
use crate::config::KubernetesSecret;
use answer::reading;
use error::KubernetesError;
use std::sync::Arc;

/// One key of one Secret.
pub struct Item {
    client: Arc<Client>,
    config: KubernetesSecret,
}

/// The source for one key of one Secret.
pub(super) fn open(config: &KubernetesSecret, client: Arc<Client>) -> Remembered<Item> {
    let pace = Pace { refresh: config.cluster.refresh, ..Pace::default() };
    Remembered::new(Item { client, config: config.clone() }, pace)
}

impl Item {
    async fn answer(&self) -> Result<Answer, KubernetesError> {
        let reply = self.client.get(self.config.namespace.as_deref(), &self.config.secret).await?;
        Ok(match reading(&reply, &self.config.key)? {
            Some(secret) => Answer::Secret { secret, valid: None, lease: None },
            None => Answer::Absent,
        })
    }
}

impl Remote for Item {
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            let answered = tokio::time::timeout(LONGEST, self.answer()).await;
            Ok(answered.unwrap_or(Err(HttpError::TimedOut.into()))?)
        })
    }

    fn place(&self) -> String {
        self.config.place()
    }
}
