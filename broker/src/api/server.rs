//! Serves a router on a socket: bounded connections, bounded waits, a graceful end.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Most connections at once, on one socket.
const MOST_CONNECTIONS: usize = 1024;
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long open requests have when the broker ends.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after an accept that failed for want of resources.
const PAUSE: Duration = Duration::from_millis(50);

/// A bound socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
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
            Socket::Tcp(listener) => listener.local_addr().map(|at| at.to_string()).unwrap_or_default(),
            Socket::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The TCP address it is bound to, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Serves until `stop` holds true, then lets open requests end.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let stopped = async { stop.wait_for(|stop| *stop).await.map(drop) };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                accepted = self.accept(&places) => match accepted {
                    Ok(accepted) => {
                        connections.spawn(converse(accepted, router.clone(), graceful.watcher()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
        if let Socket::Unix(_, path) = &self {
            let _ = std::fs::remove_file(path);
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> std::io::Result<Accepted> {
        // The semaphore is never closed.
        let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let io: Box<dyn Io> = match self {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
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
        Ok(Accepted { io, _place: place })
    }
}

/// The permissions of the socket's file keep others out; this holds where they do not.
fn is_welcome(peer: u32, us: u32) -> bool {
    peer == us || peer == 0
}

struct Accepted {
    io: Box<dyn Io>,
    _place: OwnedSemaphorePermit,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn converse(accepted: Accepted, router: Router, watcher: Watcher) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    http.http2().timer(TokioTimer::new());
    let io = TokioIo::new(accepted.io);
    let connection = http.serve_connection(io, TowerToHyperService::new(router)).into_owned();
    // A peer that breaks off, or speaks no HTTP, is its own loss.
    let _ = watcher.watch(connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_and_root_are_welcome() {
        assert!(is_welcome(1000, 1000) && is_welcome(0, 1000));
        assert!(!is_welcome(1001, 1000) && !is_welcome(1000, 0));
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
