//! Serves a router on a socket: bounded connections, bounded waits, a graceful end.

use super::strangers::{self, Standing, Strangers};
use crate::mutual_tls::{Acceptor, Connected};
use axum::response::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use rustix::net::sockopt;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_service::Service;

/// Most connections at once, on one socket. By mutual TLS each peer has its own number of them, and strangers theirs.
const MOST_CONNECTIONS: usize = 1024;
/// Connections that are still looked at, beside strangers that make way.
const SPARE: usize = 64;
/// How long a connection may take until a request on it is let in.
const FIRST_HEAD: Duration = Duration::from_secs(5);
/// How long a connection may be idle after that. Envoy closes its own after an hour: ending one
/// before Envoy does would fail the call that it just sends on it.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// How long a connection lasts at most, at a door that lets everybody in.
const BRIEFLY: Duration = Duration::from_secs(10);
/// How long open requests have when their peer is believed no more: one of them may be a stream without an end.
const PARTING: Duration = Duration::from_secs(5);
/// How long open requests have when the broker ends.
const GRACE: Duration = Duration::from_secs(2);
/// Who has said nothing for so long is asked whether he is there, over HTTP/2 and TCP; and has as long to answer.
const ALIVE: Duration = Duration::from_secs(20);
/// What a peer may send ahead of being read, on one HTTP/2 connection, in bytes.
const AHEAD: u32 = 256 << 10;
/// Calls at once on one HTTP/2 connection: Envoy keeps one stream open for certificates.
const MOST_STREAMS: u32 = 16;
/// Pause after an accept that failed for want of resources.
const PAUSE: Duration = Duration::from_millis(50);

/// What answers: a router, or what stands before one.
pub trait Answers:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A bound socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// TCP, and mutual TLS on it.
    Tls(TcpListener, Arc<Acceptor>),
    /// A UNIX socket; its file is removed in the end.
    Unix(UnixListener, PathBuf),
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP port that is taken, or not ours.
    #[error("cannot listen on {address}: {cause}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A path that is too long, taken, or not ours.
    #[error("cannot listen on unix:{path}: {cause} (a socket's path has at most 107 bytes)")]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something else than a socket has the path.
    #[error("cannot listen on unix:{0}: something else than a socket is there")]
    Occupied(PathBuf),
}

impl Socket {
    /// Binds a TCP port; 0 lets the system choose.
    pub async fn tcp(address: SocketAddr) -> Result<Self, BindError> {
        TcpListener::bind(address).await.map(Socket::Tcp).map_err(|cause| BindError::Tcp { address, cause })
    }

    /// Binds a TCP port for mutual TLS.
    pub async fn tls(address: SocketAddr, acceptor: Arc<Acceptor>) -> Result<Self, BindError> {
        let bound = TcpListener::bind(address).await;
        bound.map(|listener| Socket::Tls(listener, acceptor)).map_err(|cause| BindError::Tcp { address, cause })
    }

    /// Binds a UNIX socket that only its owner may connect to. One left over from a process that
    /// is gone makes way: the state directory's lock says that none is left.
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let failed = |cause| BindError::Unix { path: path.to_owned(), cause };
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
            Ok(_) => return Err(BindError::Occupied(path.to_owned())),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Socket::Unix(listener, path.to_owned()))
    }

    /// Where it is bound: `ADDRESS:PORT` or `unix:PATH`.
    pub fn address(&self) -> String {
        match self {
            Socket::Tcp(listener) | Socket::Tls(listener, _) => {
                listener.local_addr().map(|at| at.to_string()).unwrap_or_default()
            }
            Socket::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The TCP address it is bound to, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(listener) | Socket::Tls(listener, _) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Serves until `stop` holds true, then lets open requests end.
    /// `open` counts the connections.
    pub async fn serve(self, answers: impl Answers, stop: watch::Receiver<bool>, open: Gauge) {
        self.serve_within(None, answers, stop, open).await;
    }

    /// The same, for a door that lets everybody in: no connection lasts longer than a page may take.
    pub async fn serve_briefly(self, answers: impl Answers, stop: watch::Receiver<bool>, open: Gauge) {
        self.serve_within(Some(BRIEFLY), answers, stop, open).await;
    }

    async fn serve_within(
        self,
        longest: Option<Duration>,
        answers: impl Answers,
        stop: watch::Receiver<bool>,
        open: Gauge,
    ) {
        let places = Arc::new(Semaphore::new(self.most()));
        let (mut connections, mut strangers) = (JoinSet::new(), Strangers::default());
        let stopped = told(stop.clone());
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                accepted = self.accept(&places) => match accepted {
                    Ok(accepted) => {
                        let (standing, counted) = (Arc::<Standing>::default(), Counted::one(&open));
                        let briefly = longest.is_some();
                        let talk = converse(accepted, standing.clone(), answers.clone(), stop.clone(), briefly);
                        let connection = connections.spawn(async move {
                            match longest {
                                Some(longest) => drop(tokio::time::timeout(longest, talk).await),
                                None => talk.await,
                            }
                            drop(counted);
                        });
                        strangers.admit(standing, connection);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, ended).await;
        if let Socket::Unix(_, path) = &self {
            let _ = std::fs::remove_file(path);
        }
    }

    /// How many connections there may be.
    fn most(&self) -> usize {
        match self {
            Socket::Tls(_, acceptor) => strangers::MOST + SPARE + acceptor.most(),
            Socket::Tcp(_) | Socket::Unix(..) => MOST_CONNECTIONS,
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> std::io::Result<Accepted> {
        // The semaphore is never closed.
        let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let io: Box<dyn Io> = match self {
            Socket::Tcp(listener) | Socket::Tls(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                ask_whether_alive(&stream)?;
                Box::new(stream)
            }
            Socket::Unix(listener, _) => loop {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                if is_welcome(uid, rustix::process::geteuid().as_raw()) {
                    break Box::new(stream);
                }
                tracing::warn!(uid, "another user's process was turned away");
            },
        };
        let tls = match self {
            Socket::Tls(_, acceptor) => Some(acceptor.clone()),
            _ => None,
        };
        Ok(Accepted { io, tls, _place: place })
    }
}

/// Over HTTP/1 nobody notices that a machine is gone which was waiting for an answer to come, or for a question.
fn ask_whether_alive(stream: &TcpStream) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, ALIVE / 4)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 4)?)
}

/// One more, for as long as this lives.
struct Counted(Gauge);

impl Counted {
    fn one(all: &Gauge) -> Self {
        all.inc();
        Self(all.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The permissions of the socket's file keep others out; this holds where they do not.
fn is_welcome(peer: u32, us: u32) -> bool {
    peer == us || peer == 0
}

struct Accepted {
    io: Box<dyn Io>,
    tls: Option<Arc<Acceptor>>,
    _place: OwnedSemaphorePermit,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Ready when the broker ends.
async fn told(mut stop: watch::Receiver<bool>) {
    // Whoever would tell is gone: the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Who is at the other end, where a certificate says so. `None`: nobody whom we let in.
async fn greet(io: Box<dyn Io>, tls: Option<Arc<Acceptor>>) -> Option<(Box<dyn Io>, Option<Connected>)> {
    let Some(acceptor) = tls else { return Some((io, None)) };
    match tokio::time::timeout(FIRST_HEAD, acceptor.accept(io)).await {
        Ok(Ok((stream, connected))) => Some((Box::new(stream), Some(connected))),
        Ok(Err(why)) => {
            acceptor.turned_away(&why);
            None
        }
        Err(_) => None,
    }
}

/// Ready then, if ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Ready when the connection should end after what is being answered.
async fn ends(stop: watch::Receiver<bool>, connected: Option<&Connected>) {
    let over = async {
        match connected {
            Some(connected) => connected.over().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = told(stop) => {}
        () = over => {}
    }
}

async fn converse(
    accepted: Accepted,
    standing: Arc<Standing>,
    answers: impl Answers,
    stop: watch::Receiver<bool>,
    briefly: bool,
) {
    let Some((io, connected)) = greet(accepted.io, accepted.tls).await else { return };
    let mut http = auto::Builder::new(TokioExecutor::new());
    if briefly {
        // Over HTTP/2 a connection would outlast its answer.
        http = http.http1_only();
        http.http1().keep_alive(false);
    }
    // hyper counts this from the end of the answer before: it is the idle time, too.
    http.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    http.http2()
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(AHEAD)
        .initial_connection_window_size(AHEAD)
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE);
    let answers = TowerToHyperService::new(answers);
    let service = service_fn(|mut request: Request<_>| {
        standing.asks();
        let is_http2 = request.version() == Version::HTTP_2;
        // Whose certificate is good no more is nobody: the door refuses.
        if let Some(peer) = connected.as_ref().and_then(Connected::peer) {
            request.extensions_mut().insert(peer.clone());
        }
        let (answer, standing) = (answers.call(request), standing.clone());
        async move {
            let answer = answer.await;
            let let_in = answer.as_ref().is_ok_and(|answer| answer.status() != StatusCode::UNAUTHORIZED);
            standing.answered(let_in, is_http2);
            answer
        }
    });
    let connection = http.serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let mut end = std::pin::pin!(ends(stop, connected.as_ref()));
    // Until when it may go on, once it should end.
    let mut parting = None;
    // A peer that breaks off, or speaks no HTTP, is its own loss.
    let mut patience = FIRST_HEAD;
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = &mut end, if parting.is_none() => {
                parting = Some(Instant::now() + PARTING);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            () = until(parting) => return,
            () = standing.refused() => {
                // HTTP/1 ends with the refusal; a stranger's HTTP/2 would go on asking.
                let _ = tokio::time::timeout(PAUSE, &mut connection).await;
                return;
            }
            () = tokio::time::sleep(patience), if !standing.is_known() => {}
        }
        if standing.is_known() {
            continue;
        }
        if !standing.is_busy() {
            return;
        }
        // A first call that takes its time, such as a revocation that waits for a dead worker.
        // A stranger's does not: it is refused at once.
        patience = PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn only_the_owner_and_root_are_welcome() {
        assert!(is_welcome(1000, 1000) && is_welcome(0, 1000));
        assert!(!is_welcome(1001, 1000) && !is_welcome(1000, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed_and_an_idle_one_kept() {
        let socket = Socket::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = socket.tcp_address().unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(socket.serve(Router::new().fallback(async || "here"), stopped, Gauge::default()));

        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let mut nothing = Vec::new();
        silent.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());

        let mut idle = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 1024];
            let read = idle.read(&mut answer).await.unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_everybody_is_let_in_nobody_holds_a_connection() {
        let socket = Socket::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = socket.tcp_address().unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(socket.serve_briefly(Router::new().fallback(async || "here"), stopped, Gauge::default()));
        let mut held = TcpStream::connect(address).await.unwrap();
        held.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let ended = async {
            let mut everything = Vec::new();
            held.read_to_end(&mut everything).await.unwrap();
            everything
        };
        let everything = tokio::time::timeout(BRIEFLY * 2, ended).await.expect("ended by the broker");
        assert!(everything.starts_with(b"HTTP/1.1 200 OK"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_speaks_http2_is_refused_once() {
        let socket = Socket::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = socket.tcp_address().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let router = Router::new().route("/in", axum::routing::get(async || "here"));
        let router = router.fallback(async || StatusCode::UNAUTHORIZED);
        tokio::spawn(socket.serve(router, stopped, Gauge::default()));
        let ask = async |path: &'static str| {
            let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let done = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            let (mut asks, connection) = done;
            let connection = tokio::spawn(connection);
            let request = Request::get(format!("http://x{path}")).body(axum::body::Body::empty()).unwrap();
            let status = asks.send_request(request).await.unwrap().status();
            (status, asks, connection)
        };
        let (status, _asks, connection) = ask("/").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(tokio::time::timeout(Duration::from_secs(1), connection).await.is_ok(), "shown out");
        let (status, _asks, connection) = ask("/in").await;
        assert_eq!(status, StatusCode::OK);
        assert!(tokio::time::timeout(Duration::from_secs(3600), connection).await.is_err(), "kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_over_http2_that_is_gone_is_noticed() {
        let socket = Socket::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = socket.tcp_address().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let open = Gauge::default();
        tokio::spawn(socket.serve(Router::new().fallback(async || "here"), stopped, open.clone()));
        let mut mute = TcpStream::connect(address).await.unwrap();
        // Preface and settings; then `GET /` of `x` on stream 1: RFC 9113, 3.4 and 6.2, RFC 7541, A.
        mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        mute.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x").await.unwrap();
        // It reads, and answers nothing: what a machine does that is gone, as far as HTTP can tell.
        let mut everything = Vec::new();
        let ended = tokio::time::timeout(4 * ALIVE, mute.read_to_end(&mut everything)).await;
        assert!(ended.is_ok(), "closed by the broker");
        assert!(everything.windows(4).any(|bytes| bytes == b"here"), "after it was answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_call_may_take_its_time() {
        let socket = Socket::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = socket.tcp_address().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let slow = async || {
            tokio::time::sleep(Duration::from_secs(300)).await;
            "here"
        };
        tokio::spawn(socket.serve(Router::new().fallback(slow), stopped, Gauge::default()));
        let mut patient = TcpStream::connect(address).await.unwrap();
        patient.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        let read = patient.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_replaces_only_sockets() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let first = Socket::unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        drop(Socket::unix(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Socket::unix(&path), Err(BindError::Occupied(_))));
        let long = temp.path().join("x".repeat(108));
        assert!(matches!(Socket::unix(&long), Err(BindError::Unix { .. })));
    }
}
