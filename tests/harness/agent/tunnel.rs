//! Tunnels that share one HTTP/2 connection (RFC 9113, 8.5).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};

use super::{H2, H2Exchange, PATIENCE, Response, Unanswered, Wire};

/// What one side of a tunnel may be ahead of the other, in bytes.
const AHEAD: usize = 64 << 10;

impl H2 {
    /// Asks a proxy for a tunnel: CONNECT, and the head of its answer. The wire is one where the answer is 200.
    ///
    /// # Errors
    /// When there is no answer.
    ///
    /// # Panics
    /// On what the `http` crate refuses.
    pub async fn tunnel(&mut self, authority: &str, headers: &[(&str, &str)]) -> Result<(Wire, Response), Unanswered> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::builder().authority(authority).build().expect("an authority");
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        }
        let mut exchange = self.start(request, false).await?;
        let answer = exchange.head(PATIENCE).await?;
        let (ours, theirs) = tokio::io::duplex(AHEAD);
        tokio::spawn(carry(exchange, theirs));
        Ok((Wire::Tunnel(ours), answer))
    }
}

async fn carry(exchange: H2Exchange, pipe: DuplexStream) {
    let (said, heard) = tokio::io::split(pipe);
    let (body, receiving) = exchange.into_parts();
    tokio::join!(up(said, body), down(receiving, heard));
}

async fn up(mut said: ReadHalf<DuplexStream>, mut body: super::h2::Sending) {
    let mut bytes = vec![0; AHEAD];
    while let Ok(size) = said.read(&mut bytes).await {
        let end = size == 0;
        if body.data(&bytes[..size], end).await.is_err() || end {
            return;
        }
    }
}

async fn down(receiving: Option<h2::RecvStream>, mut heard: WriteHalf<DuplexStream>) {
    let Some(mut receiving) = receiving else { return };
    while let Some(Ok(piece)) = receiving.data().await {
        let piece: Bytes = piece;
        receiving.flow_control().release_capacity(piece.len()).ok();
        if heard.write_all(&piece).await.is_err() {
            return;
        }
    }
    heard.shutdown().await.ok();
}
