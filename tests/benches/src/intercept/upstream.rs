//! The API behind the proxies: TLS, answers of any length, and a memory for what reached it on the path of the proof.

use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::runtime;
use tokio_rustls::TlsAcceptor;

use super::text::Text;
use crate::rules::{BODY_OF, PROOF_PATH};
use crate::upstream::answer_body;

/// A running upstream; it lives as long as this process.
#[derive(Debug)]
pub struct Upstream {
    /// Its port on 127.0.0.1.
    pub port: u16,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    handshakes: AtomicU64,
    version: Mutex<Option<ProtocolVersion>>,
    received: Mutex<Option<HeaderMap>>,
}

/// What all connections share.
#[derive(Clone)]
struct Answers {
    seen: Arc<Seen>,
    small: Bytes,
    text: Text,
}

impl Upstream {
    /// Starts it on a thread of its own, on a port of the kernel's choice.
    pub fn start(tls: Arc<ServerConfig>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen::default());
        let answers = Answers { seen: Arc::clone(&seen), small: answer_body(), text: Text::new() };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("tls-upstream".to_owned())
            .spawn(move || runtime.block_on(accept(listener, TlsAcceptor::from(tls), answers)))?;
        Ok(Self { port, seen })
    }

    /// The headers of the last request to the proof path, once.
    pub fn take_received(&self) -> Option<HeaderMap> {
        self.seen.received.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What was spoken on the last connection.
    pub fn version(&self) -> Option<ProtocolVersion> {
        *self.seen.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many handshakes were brought to their end so far.
    pub fn handshakes(&self) -> u64 {
        self.seen.handshakes.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, answers: Answers) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (tls, answers) = (tls.clone(), answers.clone());
        tokio::spawn(async move {
            // One that does not trust us goes away: the proof looks at what it tells its client.
            let Ok(stream) = tls.accept(stream).await else { return };
            answers.seen.handshakes.fetch_add(1, Ordering::Relaxed);
            let version = stream.get_ref().1.protocol_version();
            *answers.seen.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
            let service = service_fn(move |request| answers.clone().answer(request));
            let server = auto::Builder::new(TokioExecutor::new());
            // A connection that its client ends is no event for the benchmark.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Answers {
    /// On a path of [`BODY_OF`] so many bytes; to an upload, how many bytes came; else something small.
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Text>>, Infallible> {
        if request.uri().path() == PROOF_PATH {
            *self.seen.received.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.headers().clone());
        }
        let mut came = 0;
        while let Some(Ok(frame)) = request.body_mut().frame().await {
            came += frame.data_ref().map_or(0, Bytes::len);
        }
        let wanted = request.uri().path().rsplit_once(BODY_OF).and_then(|(_, size)| size.parse().ok());
        let body = match wanted {
            Some(bytes) => Either::Right(self.text.of(bytes)),
            None if came > 0 => Either::Left(Full::from(came.to_string())),
            None => Either::Left(Full::new(self.small.clone())),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}
