//! Calls the running broker through its control socket.

mod peer;

use super::common::{Common, FAILED, complain};
use super::runtime;
use crate::api::Readiness;
use axum::body::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

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
    /// Somebody else listens: what they answer is not to be believed.
    #[error(
        "user {owner} listens at {socket}, which is neither you ({us}) nor root: that is no broker of yours; if it is \
         meant to be, run this as that user"
    )]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// Whose process listens.
        owner: u32,
        /// Whose this one is.
        us: u32,
    },
    /// Somebody in a namespace of processes beneath ours does.
    #[error(
        "who listens at {socket} runs in a process namespace of its own, as a command of `attache run` does: if that is \
         no container with a broker of yours, which is operated from in there, something in a cell has taken its place: \
         end it, and start the broker again"
    )]
    Beneath {
        /// The socket.
        socket: PathBuf,
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
    /// Root may operate the broker of another user, where the config says so.
    of_config: bool,
}

impl Client {
    /// The broker that the flags name, running or not.
    pub fn of(common: &Common) -> Result<Self, ExitCode> {
        Ok(Self { socket: runtime::control(common)?, of_config: common.runtime.is_none() })
    }

    /// The broker behind the control socket of a config, running or not.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket, of_config: true }
    }

    /// The same broker, for somebody else to ask.
    pub fn again(&self) -> Self {
        Self { socket: self.socket.clone(), of_config: self.of_config }
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

    /// Asks whether it can grant. That it cannot is an answer, too.
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        let (answer, _talk) = self.ask(Method::GET, "/readyz", Bytes::new()).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| refused(status, &body))
    }

    /// Asks for something that is no JSON; `Ok(None)`: there is no such thing.
    pub async fn read_text(&self, path: &str) -> Result<Option<Bytes>, ClientError> {
        let (answer, _talk) = self.ask(Method::GET, path, Bytes::new()).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(status, &body)),
        }
    }

    /// Asks for something that lasts as long as the answer is kept.
    pub async fn keep(&self, path: &str) -> Result<Kept, ClientError> {
        let (answer, talk) = self.ask(Method::POST, path, Bytes::new()).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Kept { body: answer.into_body(), _talk: talk });
        }
        Err(refused(status, &answer.into_body().collect().await?.to_bytes()))
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let (answer, _talk) = self.ask(method, path, body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| ClientError::Answer(status));
        }
        Err(refused(status, &body))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(Response<Incoming>, Talk), ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|cause| ClientError::NotRunning { socket: self.socket.clone(), cause })?;
        self.believe(&stream)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let talk = Talk(tokio::spawn(connection).abort_handle());
        let request = Request::builder().method(method).uri(path).header(header::HOST, "attache");
        Ok((sender.send_request(request.body(Full::new(body))?).await?, talk))
    }

    /// Whether who listens can be a broker of ours: nothing is said to anybody else.
    fn believe(&self, stream: &UnixStream) -> Result<(), ClientError> {
        let unknown = |cause| ClientError::NotRunning { socket: self.socket.clone(), cause };
        let peer = stream.peer_cred().map_err(unknown)?;
        let (owner, us) = (peer.uid(), rustix::process::geteuid().as_raw());
        if !peer::is_ours(owner, us, self.of_config) {
            return Err(ClientError::Foreign { socket: self.socket.clone(), owner, us });
        }
        if peer::is_beneath(stream, peer.pid()).map_err(unknown)? {
            return Err(ClientError::Beneath { socket: self.socket.clone() });
        }
        Ok(())
    }
}

/// A connection, closed when this is dropped.
struct Talk(AbortHandle);

impl Drop for Talk {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that lasts. Dropped, it is over.
pub struct Kept {
    body: Incoming,
    _talk: Talk,
}

impl Kept {
    /// Waits until the broker ends it, or is gone.
    pub async fn ended(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let error: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let words = error.get("error").and_then(|words| words.as_str());
    words.map_or(ClientError::Answer(status), |words| ClientError::Refused(words.to_owned()))
}

/// Says what a failed call came to.
pub fn failed(error: ClientError) -> ExitCode {
    complain(FAILED, error)
}
