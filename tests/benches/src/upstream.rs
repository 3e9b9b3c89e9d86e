//! The API behind Envoy: a plain HTTP/1.1 responder, the same for every
//! variant, which remembers what reached it on the proof path and nothing else.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime;

use crate::rules::{BODY_OF, PROOF_PATH};

/// Half a kilobyte of JSON, as a small API answer.
const BODY_BYTES: usize = 512;

/// Connections that wait to be accepted: with fewer a burst of them would wait a second for the kernel's next try.
const BACKLOG: u32 = 4096;

/// The largest answer.
const MOST_TEXT: usize = 10_000_000;

/// A running upstream; it lives as long as this process.
#[derive(Debug)]
pub struct Upstream {
    /// Its port on 127.0.0.1.
    pub port: u16,
    received: Arc<Mutex<Option<HeaderMap>>>,
}

impl Upstream {
    /// Starts it on a thread of its own, on a port of the kernel's choice.
    pub fn start() -> Result<Self> {
        let received = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&received);
        let (body, text) = (answer_body(), text(MOST_TEXT));
        let (port, _thread) = serve("upstream", move |request| {
            if request.uri().path().ends_with(PROOF_PATH) {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.headers().clone());
            }
            let size = request.uri().path().rsplit_once(BODY_OF).and_then(|(_, size)| size.parse::<usize>().ok());
            let body = size.map_or(body.clone(), |size| text.slice(..size.min(text.len())));
            let mut response = Response::new(Full::new(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        })?;
        Ok(Self { port, received })
    }

    /// The headers of the last request to the proof path, once.
    pub fn take_received(&self) -> Option<HeaderMap> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves HTTP/1.1 on a new thread with a runtime of its own. Answers with the
/// port and the thread's id.
pub fn serve<F>(name: &str, answer: F) -> Result<(u16, i32)>
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        socket.listen(BACKLOG)?
    };
    let port = listener.local_addr()?.port();
    let (announce, thread_id) = std::sync::mpsc::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = announce.send(nix::unistd::gettid().as_raw());
        runtime.block_on(accept(listener, answer))
    })?;
    Ok((port, thread_id.recv().context("the server thread ended at once")?))
}

async fn accept<F>(listener: TcpListener, answer: F) -> Result<()>
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    // To the end, or the connection could not be used again.
                    while let Some(Ok(_)) = request.body_mut().frame().await {}
                    Ok::<_, Infallible>(answer(&request))
                }
            });
            // A connection that Envoy ends is no event for the benchmark.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// JSON as APIs answer it, for large answers: words, numbers, URLs, escapes. At least so many bytes.
pub fn text(bytes: usize) -> Bytes {
    let item = concat!(
        r#"{"id":41973,"name":"widget-7f3a","url":"https://api.bench.test/v1/items/41973?page=2","#,
        r#""text":"A line.\nAnother one, with \"quotes\" and 100% of it.","tags":["a","b"],"size":1.25},"#,
        "\n"
    );
    Bytes::from(item.repeat(bytes / item.len() + 1))
}

/// A small answer.
pub fn answer_body() -> Bytes {
    let frame = r#"{"id":42,"name":""}"#.len();
    let filler = "x".repeat(BODY_BYTES - frame);
    Bytes::from(format!(r#"{{"id":42,"name":"{filler}"}}"#))
}
