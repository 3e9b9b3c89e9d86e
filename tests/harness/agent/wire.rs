//! The connection of an agent: TCP, or TLS over it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A byte stream to the proxy.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A tunnel that is one stream among others ([`super::H2::tunnel`]).
    Tunnel(DuplexStream),
    TlsInTunnel(Box<TlsStream<DuplexStream>>),
}

impl Wire {
    /// Connects to a loopback address.
    ///
    /// # Panics
    /// When nothing listens there, or the address is not loopback.
    pub async fn plain(addr: SocketAddr) -> Self {
        Self::dial(addr).await.unwrap_or_else(|error| panic!("connecting to {addr}: {error}"))
    }

    /// Connects to a loopback address.
    ///
    /// # Errors
    /// When nothing listens there.
    ///
    /// # Panics
    /// When the address is not loopback.
    pub async fn dial(addr: SocketAddr) -> io::Result<Self> {
        assert!(addr.ip().is_loopback(), "tests dial loopback only, not {addr}");
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true).ok();
        Ok(Self::Plain(tcp))
    }

    /// Begins TLS as a client that expects this name.
    ///
    /// # Errors
    /// What the handshake ended with.
    pub async fn secured(self, name: &str, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        match self {
            Self::Plain(tcp) => Ok(Self::Tls(Box::new(TlsConnector::from(tls).connect(name, tcp).await?))),
            Self::Tunnel(pipe) => Ok(Self::TlsInTunnel(Box::new(TlsConnector::from(tls).connect(name, pipe).await?))),
            Self::Tls(_) | Self::TlsInTunnel(_) => Err(io::Error::other("TLS inside TLS is not supported")),
        }
    }

    /// The certificate the server showed, DER.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let session = match self {
            Self::Plain(_) | Self::Tunnel(_) => return None,
            Self::Tls(stream) => stream.get_ref().1,
            Self::TlsInTunnel(stream) => stream.get_ref().1,
        };
        session.peer_certificates()?.first().map(|leaf| leaf.to_vec())
    }

    /// The connection, unless it is shared.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Tunnel(_) | Self::TlsInTunnel(_) => None,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tunnel(pipe) => Pin::new(pipe).poll_read(cx, buf),
            Self::TlsInTunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tunnel(pipe) => Pin::new(pipe).poll_write(cx, buf),
            Self::TlsInTunnel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(pipe) => Pin::new(pipe).poll_flush(cx),
            Self::TlsInTunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(pipe) => Pin::new(pipe).poll_shutdown(cx),
            Self::TlsInTunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
