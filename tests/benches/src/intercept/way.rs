//! How a client reaches the upstream: by itself, or through a proxy in which its TLS ends.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Either, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::text::Text;
use super::trust::HTTP2;
use crate::counters::Meter;

/// Longest wait for a tunnel.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer, a large upload before it included.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest answer to a `CONNECT`.
const MOST_HEAD: usize = 8 << 10;

/// What a request has in it.
pub type Sent = Either<Either<Empty<Bytes>, Full<Bytes>>, Text>;

/// One way.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name in the tables.
    pub name: &'static str,
    /// The proxy; without one the upstream is dialled.
    pub door: Option<Door>,
    /// The port of the upstream, for who dials it.
    pub upstream: u16,
    /// What the client trusts, and speaks inside.
    pub tls: Arc<ClientConfig>,
    /// What the client holds.
    pub token: String,
    /// The proxy, for its CPU time.
    pub proxy: Option<Meter>,
    /// The service that it asks.
    pub service: Option<Meter>,
}

/// A proxy, and what it wants to see of who comes.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The token of a session.
    pub token: String,
}

/// A connection inside which requests are sent.
#[derive(Debug)]
pub struct Tunnel {
    sender: Sender,
    host: String,
    authorization: String,
    /// What is spoken with whoever ended the client's TLS.
    pub version: Option<ProtocolVersion>,
    /// When TCP was begun to be opened.
    pub began: Instant,
    /// When the inner handshake had ended.
    pub shaken: Instant,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

impl Way {
    /// The proxy's CPU time; of who goes directly, this thread's.
    pub fn meter(&self) -> Meter {
        self.proxy.clone().unwrap_or_else(|| Meter::Thread(nix::unistd::gettid().as_raw()))
    }

    /// Opens TCP, where there is a door the tunnel, and TLS in it.
    pub async fn open(&self, host: &str) -> Result<Tunnel> {
        timeout(LIMIT, self.dial(host)).await.context("no tunnel in time")?
    }

    async fn dial(&self, host: &str) -> Result<Tunnel> {
        let began = Instant::now();
        let port = self.door.as_ref().map_or(self.upstream, |door| door.port);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        if let Some(door) = &self.door {
            let status = door.knock(&mut stream, host).await?;
            ensure!(status == StatusCode::OK, "a tunnel to {host} is answered {status}");
        }
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let shaken = Instant::now();
        let version = stream.get_ref().1.protocol_version();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2.as_bytes());
        // A connection that the other side ends shows in the request that is under way on it.
        let sender = if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        let authorization = format!("Bearer {}", self.token);
        Ok(Tunnel { sender, host: host.to_owned(), authorization, version, began, shaken })
    }
}

impl Door {
    /// What a `CONNECT` is answered on a connection of its own.
    pub async fn answer(&self, host: &str) -> Result<StatusCode> {
        let knocking = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            self.knock(&mut stream, host).await
        };
        timeout(LIMIT, knocking).await.context("no answer in time")?
    }

    async fn knock(&self, stream: &mut TcpStream, host: &str) -> Result<StatusCode> {
        let head = format!(
            "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Bearer {}\r\n\r\n",
            self.token
        );
        stream.write_all(head.as_bytes()).await?;
        // The proxy says no more before the client has: what comes is the head of its answer, or a refusal.
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let more = stream.read_buf(&mut answer).await?;
            ensure!(more > 0 && answer.len() < MOST_HEAD, "a CONNECT is not answered");
        }
        match answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)) {
            Some(status) => Ok(StatusCode::from_bytes(status)?),
            None => bail!("a CONNECT is answered {}", answer.escape_ascii()),
        }
    }
}

impl Tunnel {
    /// Sends a request, and waits for the head of its answer.
    pub async fn send(&mut self, method: http::Method, path: &str, body: Sent) -> Result<Response<Incoming>> {
        let request = Request::builder().method(method).header(AUTHORIZATION, &self.authorization);
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = request.uri(path).header(http::header::HOST, &self.host);
                sender.ready().await?;
                timeout(ANSWER_LIMIT, sender.send_request(request.body(body)?)).await
            }
            Sender::Http2(sender) => {
                let request = request.version(Version::HTTP_2).uri(format!("https://{}{path}", self.host));
                sender.ready().await?;
                timeout(ANSWER_LIMIT, sender.send_request(request.body(body)?)).await
            }
        };
        Ok(answer.context("no answer in time")??)
    }

    /// Reads a small resource to its end.
    pub async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes)> {
        whole(self.send(http::Method::GET, path, nothing()).await?).await
    }
}

/// The whole of an answer.
pub async fn whole(answer: Response<Incoming>) -> Result<(StatusCode, Bytes)> {
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}

/// A body of nothing.
pub fn nothing() -> Sent {
    Either::Left(Either::Left(Empty::new()))
}

/// A small body.
pub fn small(text: &str) -> Sent {
    Either::Left(Either::Right(Full::from(text.to_owned())))
}
