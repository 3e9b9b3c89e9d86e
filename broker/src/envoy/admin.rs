//! Envoy's admin, asked and never told: a page, its body, nothing kept open.

use super::Admin;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);
/// The longest page that is read, in bytes: dumps of large configurations.
const LONGEST: usize = 64 << 20;

/// Where an admin is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminUrl {
    /// `http://HOST:PORT`, kept as `HOST:PORT`.
    Http(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not reached.
    #[error("Envoy's admin at {url}: {cause}")]
    Connect {
        /// Where it was asked.
        url: AdminUrl,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Reached, and not an answer to our question.
    #[error("Envoy's admin at {0} gave no answer: is it one?")]
    Answer(AdminUrl),
    /// Another status than 200.
    #[error("Envoy's admin at {url} answered {status}")]
    Status {
        /// Where it was asked.
        url: AdminUrl,
        /// What it answered.
        status: u16,
    },
}

impl AdminUrl {
    /// The body of a page.
    pub async fn get(&self, page: &str) -> Result<Bytes, AdminError> {
        self.call(Method::GET, page).await
    }

    /// The levels of all loggers. Envoy wants a POST even from those who change none.
    pub async fn log_levels(&self) -> Result<Bytes, AdminError> {
        self.call(Method::POST, "/logging").await
    }

    /// Has Envoy accept no more connections.
    pub async fn drain(&self) -> Result<Bytes, AdminError> {
        self.call(Method::POST, "/drain_listeners").await
    }

    async fn call(&self, method: Method, page: &str) -> Result<Bytes, AdminError> {
        let request = Request::builder().method(method).uri(page).header("host", "admin").body(Empty::new());
        let request = request.map_err(|_| AdminError::Answer(self.clone()))?;
        let answer = async {
            match self {
                AdminUrl::Http(address) => self.ask(TcpStream::connect(address).await, request).await,
                AdminUrl::Unix(path) => self.ask(UnixStream::connect(path).await, request).await,
            }
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(AdminError::Answer(self.clone())))
    }

    async fn ask<S>(&self, connected: std::io::Result<S>, request: Request<Empty<Bytes>>) -> Result<Bytes, AdminError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unanswered = || AdminError::Answer(self.clone());
        let stream = connected.map_err(|cause| AdminError::Connect { url: self.clone(), cause })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| unanswered())?;
        // Ends with the sender.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|_| unanswered())?;
        if answer.status() != 200 {
            return Err(AdminError::Status { url: self.clone(), status: answer.status().as_u16() });
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|_| unanswered())?;
        Ok(body.to_bytes())
    }
}

impl From<&Admin> for AdminUrl {
    fn from(admin: &Admin) -> Self {
        match admin {
            Admin::Tcp(address) => AdminUrl::Http(address.to_string()),
            Admin::Unix(path) => AdminUrl::Unix(path.clone()),
        }
    }
}

impl FromStr for AdminUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected http://HOST:PORT or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(AdminUrl::Unix(path.into()));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        let port =
            address.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if port.is_some() && !address.contains('/') { Ok(AdminUrl::Http(address.to_owned())) } else { Err(EXPECTED) }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminUrl::Http(address) => write!(f, "http://{address}"),
            AdminUrl::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_a_host_with_a_port() {
        for (text, shown) in [
            ("http://127.0.0.1:9901", "http://127.0.0.1:9901"),
            ("http://127.0.0.1:9901/", "http://127.0.0.1:9901"),
            ("[::1]:9901", "http://[::1]:9901"),
            ("unix:/run/envoy.sock", "unix:/run/envoy.sock"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().map(|url| url.to_string()).as_deref(), Ok(shown));
        }
        for text in ["", "http://127.0.0.1", "https://a:1", "a:1/stats", "unix:", ":1"] {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_admin_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = AdminUrl::Unix(dir.path().join("none.sock")).get("/ready").await.unwrap_err();
        assert!(matches!(error, AdminError::Connect { .. }), "{error}");
    }
}
