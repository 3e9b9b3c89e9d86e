//! A request spelled out by hand: any bytes anywhere, over HTTP/1 and over HTTP/2.

use std::net::SocketAddr;

use crate::agent::PATIENCE;
use crate::wire::frames::MAX_PAYLOAD;
use crate::{Agent, Response, Unanswered};

/// One request, each part as it will stand on the wire. Nothing is checked, nothing is added but
/// what frames the body.
#[derive(Clone, Debug)]
pub struct Spelled {
    pub method: Vec<u8>,
    /// The request target, or `:path`.
    pub target: Vec<u8>,
    /// `Host`, or `:authority`; `None` for none.
    pub authority: Option<Vec<u8>>,
    /// `:scheme`; HTTP/1 has none.
    pub scheme: Vec<u8>,
    /// Names and values, in order. HTTP/2 wants names in lower case.
    pub lines: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Where the body is cut into chunks or frames; with none it has a length.
    pub cuts: Vec<usize>,
}

impl Spelled {
    /// `GET http://AUTHORITY/TARGET`, without further lines.
    pub fn get(authority: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self {
            method: b"GET".to_vec(),
            target: target.as_ref().to_vec(),
            authority: Some(authority.as_ref().to_vec()),
            scheme: b"http".to_vec(),
            lines: Vec::new(),
            body: Vec::new(),
            cuts: Vec::new(),
        }
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: impl AsRef<[u8]>) -> Self {
        self.method = method.as_ref().to_vec();
        self
    }

    /// With another scheme (HTTP/2).
    #[must_use]
    pub fn scheme(mut self, scheme: impl AsRef<[u8]>) -> Self {
        self.scheme = scheme.as_ref().to_vec();
        self
    }

    /// With one more line.
    #[must_use]
    pub fn line(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.lines.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// With `Authorization: Bearer TOKEN`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.line("authorization", format!("Bearer {token}"))
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Its bytes in HTTP/1.
    #[must_use]
    pub fn to_h1(&self) -> Vec<u8> {
        let mut out = [&self.method, &b" "[..], &self.target, b" HTTP/1.1\r\n"].concat();
        let mut line = |name: &[u8], value: &[u8]| out.extend([name, b": ", value, b"\r\n"].concat());
        if let Some(authority) = &self.authority {
            line(b"host", authority);
        }
        self.lines.iter().for_each(|(name, value)| line(name, value));
        match (self.cuts.is_empty(), self.body.is_empty()) {
            (true, true) => {}
            (true, false) => line(b"content-length", self.body.len().to_string().as_bytes()),
            (false, _) => line(b"transfer-encoding", b"chunked"),
        }
        out.extend_from_slice(b"\r\n");
        if self.cuts.is_empty() {
            out.extend_from_slice(&self.body);
            return out;
        }
        for piece in self.pieces() {
            out.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            out.extend([piece, b"\r\n"].concat());
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }

    /// The body in its pieces; none is empty.
    fn pieces(&self) -> Vec<&[u8]> {
        let (mut pieces, mut rest) = (Vec::new(), &self.body[..]);
        let mut begun = 0;
        for cut in &self.cuts {
            let (piece, after) = rest.split_at(cut - begun);
            pieces.push(piece);
            (rest, begun) = (after, *cut);
        }
        pieces.push(rest);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// Its fields in HTTP/2. CONNECT has neither scheme nor path there (RFC 9113, 8.5).
    #[must_use]
    pub fn to_h2(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut fields = vec![(b":method".to_vec(), self.method.clone())];
        fields.extend(self.authority.iter().map(|authority| (b":authority".to_vec(), authority.clone())));
        if self.method != b"CONNECT" {
            fields.push((b":scheme".to_vec(), self.scheme.clone()));
            fields.push((b":path".to_vec(), self.target.clone()));
        }
        fields.extend(self.lines.iter().cloned());
        fields
    }

    /// Sends it over HTTP/1, on a connection of its own.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn over_h1(&self, agent: &Agent, addr: SocketAddr) -> Result<Response, Unanswered> {
        let mut wire = agent.h1(addr).await;
        // A peer that refuses early closes while we send; what it answered is still to be read.
        wire.send(self.to_h1()).await.ok();
        wire.response(PATIENCE).await
    }

    /// Sends it over HTTP/2, on a connection of its own.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn over_h2(&self, agent: &Agent, addr: SocketAddr) -> Result<Response, Unanswered> {
        let mut wire = agent.raw_h2(addr).await;
        let stream = wire.headers(&self.to_h2(), self.body.is_empty()).await;
        let pieces: Vec<_> = self.pieces().into_iter().flat_map(|piece| piece.chunks(MAX_PAYLOAD)).collect();
        let last = pieces.len().saturating_sub(1);
        for (index, piece) in pieces.into_iter().enumerate() {
            wire.data(stream, piece, index == last).await.ok();
        }
        wire.response(stream, PATIENCE).await
    }
}
