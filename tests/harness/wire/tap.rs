//! A connection that shows every byte it reads to an onlooker, and what it writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Someone who looks at the bytes of a connection as they pass.
pub trait Onlooker: Send + Unpin + 'static {
    /// These bytes were read from the peer.
    fn read(&mut self, bytes: &[u8]);
    /// These bytes are written to the peer.
    fn written(&mut self, _bytes: &[u8]) {}
}

/// `inner`, watched.
pub struct Tap<S, O> {
    inner: S,
    onlooker: O,
}

impl<S, O> Tap<S, O> {
    /// Lets `onlooker` see what passes through `inner`.
    pub fn new(inner: S, onlooker: O) -> Self {
        Self { inner, onlooker }
    }
}

impl<S: AsyncRead + Unpin, O: Onlooker> AsyncRead for Tap<S, O> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before {
            this.onlooker.read(&buf.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, O: Onlooker> AsyncWrite for Tap<S, O> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(size)) = polled {
            this.onlooker.written(&buf[..size]);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
