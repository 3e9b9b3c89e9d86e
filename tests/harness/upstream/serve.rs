//! Accepts connections and answers requests; recording happens beside it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Handler;
use super::recorder::Recorder;
use super::records::Records;
use super::reply::{Asked, Part, Reply};
use crate::fields::Fields;
use crate::wire::tap::Tap;

/// The header of every answer that says under which `x-request-id` its request is on record: so an
/// agent's request and the record of it are known to be the same.
pub const RECORDED_AS: &str = "x-recorded-as";

/// More than any header a test sends.
const LARGEST_HEAD: usize = 4 << 20;

pub(super) async fn run(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    records: Arc<Records>,
    handler: Arc<RwLock<Handler>>,
    behind: Arc<RwLock<Option<SocketAddr>>>,
) {
    let mut connections = JoinSet::new();
    let door = listener.local_addr().expect("a bound socket has an address").port();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let id = records.next_connection();
        let (tls, records, handler) = (tls.clone(), Arc::clone(&records), Arc::clone(&handler));
        let behind = *behind.read().expect("no panic while it is set");
        connections.spawn(connection((id, door), tcp, tls, records, handler, behind));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    (id, door): (usize, u16),
    tcp: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    records: Arc<Records>,
    handler: Arc<RwLock<Handler>>,
    behind: Option<SocketAddr>,
) {
    tcp.set_nodelay(true).ok();
    let Some(config) = tls else {
        records.connection(id, None, None, None);
        return requests(Tap::new(tcp, Recorder::new(records, (id, door), None)), handler, behind).await;
    };
    let config = if behind.is_some() { speaking_http1(&config) } else { config };
    match TlsAcceptor::from(config).accept(tcp).await {
        Ok(stream) => {
            let (_, session) = stream.get_ref();
            let sni = session.server_name().map(str::to_owned);
            let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
            records.connection(id, alpn, sni.clone(), None);
            requests(Tap::new(stream, Recorder::new(records, (id, door), sni)), handler, behind).await;
        }
        Err(error) => records.connection(id, None, None, Some(error.to_string())),
    }
}

/// A real server behind us speaks HTTP/1.
fn speaking_http1(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    mut stream: S,
    handler: Arc<RwLock<Handler>>,
    behind: Option<SocketAddr>,
) {
    if let Some(server) = behind {
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        tokio::io::copy_bidirectional(&mut stream, &mut server).await.ok();
        return;
    }
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().max_buf_size(LARGEST_HEAD).max_headers(10_000);
    let largest = u32::try_from(LARGEST_HEAD).expect("fits");
    server.http2().max_header_list_size(largest).adaptive_window(true);
    let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&handler)));
    // A broken connection is the tests' business: it is on record.
    server.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
}

async fn answer(mut request: Request<Incoming>, handler: Arc<RwLock<Handler>>) -> io::Result<Response<Answer>> {
    let upgrade = hyper::upgrade::on(&mut request);
    let asked = asked(request).await?;
    let handler = Arc::clone(&handler.read().expect("handlers never panic while replaced"));
    let mut reply = handler(&asked);
    if let Some(id) = asked.fields.first("x-request-id") {
        reply = reply.field(RECORDED_AS, id);
    }
    match reply.before {
        Some(Part::Hang) => std::future::pending().await,
        Some(Part::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Part::Pause(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    if reply.status == 101 {
        let said = std::mem::take(&mut reply.parts);
        tokio::spawn(async move {
            let Ok(tunnel) = upgrade.await else { return };
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(tunnel));
            for part in said {
                match part {
                    Part::Data(bytes) if writer.write_all(&bytes).await.is_err() => return,
                    Part::Data(_) => writer.flush().await.unwrap_or_default(),
                    Part::Pause(pause) => tokio::time::sleep(pause).await,
                    other => unreachable!("no tunnel says {other:?}"),
                }
            }
            tokio::io::copy(&mut reader, &mut writer).await.ok();
        });
    }
    response(reply, asked.method == "HEAD").map_err(|error| io::Error::other(error.to_string()))
}

async fn asked(request: Request<Incoming>) -> io::Result<Asked> {
    let (head, body) = request.into_parts();
    let host = head.headers.get(http::header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let host = String::from_utf8_lossy(host).into_owned();
    let method = head.method.to_string();
    let collected = match method.as_str() {
        "CONNECT" => None,
        _ => Some(body.collect().await.map_err(io::Error::other)?),
    };
    let trailers = collected.as_ref().and_then(|all| all.trailers()).map(Fields::from);
    Ok(Asked {
        method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        authority: head.uri.authority().map_or(host, ToString::to_string),
        fields: Fields::from(&head.headers),
        trailers: trailers.unwrap_or_default(),
        body: collected.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
    })
}

fn response(reply: Reply, to_head: bool) -> http::Result<Response<Answer>> {
    let length = reply.length().filter(|_| !reply.chunked && reply.trailers.0.is_empty());
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.fields.iter() {
        response = response.header(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?);
    }
    if !reply.trailers.0.is_empty() {
        // HTTP/1 sends only the trailers it has announced.
        let names: Vec<&[u8]> = reply.trailers.iter().map(|(name, _)| name).collect();
        response = response.header("trailer", HeaderValue::from_bytes(&names.join(&b", "[..]))?);
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in reply.trailers.iter() {
        trailers.append(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?);
    }
    let (sender, frames) = mpsc::channel(1);
    if to_head {
        // It announces a body and has none; over HTTP/2 the library would send it.
        if let Some(length) = length {
            response = response.header(http::header::CONTENT_LENGTH, length);
        }
        return response.body(Answer { frames, length: None, over: true });
    }
    tokio::spawn(feed(reply.parts, trailers, sender));
    response.body(Answer { frames, length, over: false })
}

async fn feed(parts: Vec<Part>, trailers: HeaderMap, to: mpsc::Sender<io::Result<Frame<Bytes>>>) {
    for part in parts {
        match part {
            Part::Data(bytes) if bytes.is_empty() => {}
            Part::Data(bytes) => {
                if to.send(Ok(Frame::data(bytes))).await.is_err() {
                    return;
                }
            }
            Part::Repeat(bytes, times) => {
                for _ in 0..times {
                    if to.send(Ok(Frame::data(bytes.clone()))).await.is_err() {
                        return;
                    }
                }
            }
            Part::Pause(pause) => tokio::time::sleep(pause).await,
            Part::Hang => to.closed().await,
            Part::Held(held) => {
                held.waiting.fetch_add(1, Ordering::Relaxed);
                tokio::select! {
                    // Closed: that is the word to go on.
                    _ = held.gate.acquire() => {}
                    () = to.closed() => {
                        held.left.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
            }
            Part::Reset => {
                to.send(Err(io::ErrorKind::ConnectionReset.into())).await.ok();
                return;
            }
        }
    }
    if !trailers.is_empty() {
        to.send(Ok(Frame::trailers(trailers))).await.ok();
    }
}

/// A body whose frames come through a channel.
struct Answer {
    frames: mpsc::Receiver<io::Result<Frame<Bytes>>>,
    length: Option<u64>,
    /// There is nothing to wait for.
    over: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = self.frames.poll_recv(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&polled, self.length) {
            let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.length = Some(left.saturating_sub(sent));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}
