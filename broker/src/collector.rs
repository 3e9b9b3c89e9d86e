//! An OpenTelemetry collector that takes OTLP over HTTP, as protobuf.

use reqwest::StatusCode;
use std::time::Duration;

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are looked at.
const LONGEST_ANSWER: usize = 64 * 1024;

/// One collector's URL for one kind of signal.
pub struct Collector {
    endpoint: String,
    client: Option<reqwest::Client>,
}

/// Why a collector has not taken something.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// It could not be asked. Names the URL, which holds no secret.
    #[error("the collector cannot be reached: {0}")]
    Http(String),
    /// It asks to come again.
    #[error("the collector answered {0}")]
    Busy(u16),
    /// It never takes that.
    #[error("the collector answered {0}")]
    Refused(u16),
}

impl Collector {
    /// The collector that takes `POST` at this URL.
    pub fn new(endpoint: String) -> Self {
        Self { endpoint, client: None }
    }

    /// Sends an export request. Answers with what the collector says to it.
    pub async fn post(&mut self, request: Vec<u8>) -> Result<Vec<u8>, CollectorError> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(client()?),
        };
        let post = client.post(&self.endpoint).header("content-type", "application/x-protobuf").body(request);
        let answer = post.send().await.map_err(|error| CollectorError::Http(error.to_string()))?;
        match answer.status() {
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(CollectorError::Busy(status.as_u16())),
            // OTLP: anything else than these and success is not to be tried again.
            status if !status.is_success() => Err(CollectorError::Refused(status.as_u16())),
            _ => Ok(beginning(answer).await),
        }
    }
}

/// The answer, as far as it is read: a collector's takes some bytes.
async fn beginning(mut answer: reqwest::Response) -> Vec<u8> {
    let mut read = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        read.extend_from_slice(&chunk);
        if read.len() > LONGEST_ANSWER {
            return Vec::new();
        }
    }
    read
}

fn client() -> Result<reqwest::Client, CollectorError> {
    // One provider a process: whoever was first, has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).no_proxy();
    client.build().map_err(|error| CollectorError::Http(error.to_string()))
}
