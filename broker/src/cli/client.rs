//! Calls the running broker through its control socket.

use super::common::{Common, FAILED, complain};
use super::runtime;
use axum::body::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::net::UnixStream;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no broker answers at {socket} ({cause}): start it with `attache serve` or `attache up`, or say where it is \
         with --runtime"
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The broker broke off.
    #[error("the broker broke off: {0}")]
    BrokeOff(#[from] hyper::Error),
    /// A request that cannot be written.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// It refused; in its words.
    #[error("{0}")]
    Refused(String),
    /// It answered something else than it should: another version, perhaps.
    #[error("the broker's answer ({0}) makes no sense here: is it another version of attache?")]
    Answer(StatusCode),
}

/// One broker.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The broker that the flags name, running or not.
    pub fn of(common: &Common) -> Result<Self, ExitCode> {
        Ok(Self::at(runtime::control(common)?))
    }

    /// The broker behind this socket, running or not.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for something.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Asks for a change.
    pub async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        // Plain structs with text keys cannot fail to serialise.
        self.call(method, path, serde_json::to_vec(body).unwrap_or_default().into()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|cause| ClientError::NotRunning { socket: self.socket.clone(), cause })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, "attache");
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| ClientError::Answer(status));
        }
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let words = error.get("error").and_then(|words| words.as_str());
        Err(words.map_or(ClientError::Answer(status), |words| ClientError::Refused(words.to_owned())))
    }
}

/// Says what a failed call came to.
pub fn failed(error: ClientError) -> ExitCode {
    complain(FAILED, error)
}
