//! What every question to OpenBao has in common.

use super::error::OpenBaoError;
use crate::config::OpenBao;
use crate::sources::http;
pub use crate::sources::http::{LONGEST, Reply};
use ::http::HeaderValue;
use attache_core::Secret;
use std::sync::Arc;
use std::time::Duration;

/// Where it does not say how long to wait: its quotas are by the second
/// (<https://openbao.org/api-docs/system/rate-limit-quotas/>).
const WINDOW: Duration = Duration::from_secs(1);

/// A way to ask.
pub struct Http {
    http: http::Http,
    namespace: Option<HeaderValue>,
}

/// A question.
pub struct Question<'a> {
    question: http::Question,
    token: Option<&'a Secret>,
}

impl<'a> Question<'a> {
    pub fn get(path: &str) -> Self {
        Self { question: http::Question::get(format!("/v1/{path}")), token: None }
    }

    pub fn post(path: &str, body: &impl serde::Serialize) -> Self {
        Self { question: http::Question::post(format!("/v1/{path}"), body), token: None }
    }

    pub fn by(self, token: &'a Secret) -> Self {
        Self { token: Some(token), ..self }
    }

    pub fn giving_back(self) -> Self {
        Self { question: self.question.giving_back(), ..self }
    }

    pub fn version(self, version: Option<u32>) -> Self {
        match version {
            Some(version) => Self { question: self.question.with("version", version.to_string()), ..self },
            None => self,
        }
    }
}

impl Http {
    pub fn new(config: &Arc<OpenBao>) -> Self {
        let server = http::Server {
            address: config.address.clone(),
            // Where a standby sends on to.
            others: config.nodes.clone(),
            ca_file: config.ca_file.clone(),
            identity: config.identity.clone(),
            window: Some(WINDOW),
        };
        // The config lets nothing through that no header can hold.
        let namespace = config.namespace.as_deref().and_then(|namespace| HeaderValue::from_str(namespace).ok());
        Self { http: http::Http::new(server), namespace }
    }

    /// Asks.
    pub async fn ask(&self, Question { question, token }: Question<'_>) -> Result<Reply, OpenBaoError> {
        // What a browser cannot be made to send: an OpenBao may demand it.
        let mut question = question.header("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            question = question.header("x-vault-namespace", namespace.clone());
        }
        if let Some(token) = token {
            // What no header can hold is no token.
            question = question.secret("x-vault-token", "", token).map_err(|_| OpenBaoError::TokenRefused)?;
        }
        Ok(self.http.ask(question).await?)
    }
}
