//! A WebSocket (RFC 6455), opened over HTTP/1 or HTTP/2; frames are written by hand.

use std::time::Duration;

use crate::agent::{H1, H2, H2Exchange, PATIENCE, Unanswered, extended};
use crate::{Response, util};

/// Both ways to open one.
pub const BOTH: [Opened; 2] = [Opened::ByGet, Opened::ByConnect];

/// How it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// `GET` with `Upgrade`.
    ByGet,
    /// Extended CONNECT, over HTTP/2 (RFC 8441).
    ByConnect,
}

/// What was opened.
pub enum WebSocket {
    H1(H1),
    H2(H2, Box<H2Exchange>),
}

impl WebSocket {
    /// Asks for one over HTTP/1.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(
        mut connection: H1,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Self, Response), Unanswered> {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        connection.send(head).await.map_err(|error| Unanswered::Broken(error.to_string()))?;
        let answer = connection.head(PATIENCE).await?;
        Ok((Self::H1(connection), answer))
    }

    /// Asks for one over HTTP/2.
    ///
    /// # Errors
    /// When there is no answer.
    ///
    /// # Panics
    /// When the peer takes no extended CONNECT.
    pub async fn connect(
        mut connection: H2,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Self, Response), Unanswered> {
        util::eventually(PATIENCE, || connection.takes_protocols()).await;
        let version = [("sec-websocket-version", "13")];
        let head = extended("websocket", host, path, &[&version, headers].concat());
        let mut exchange = connection.start(head, false).await?;
        let answer = exchange.head(PATIENCE).await?;
        Ok((Self::H2(connection, Box::new(exchange)), answer))
    }

    /// Sends these bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Unanswered> {
        match self {
            Self::H1(connection) => connection.send(bytes).await.map_err(|why| Unanswered::Broken(why.to_string())),
            Self::H2(_, exchange) => exchange.data(bytes, false).await,
        }
    }

    /// Goes: the connection is closed, or the stream reset, as browsers do it.
    pub fn leave(self) {
        if let Self::H2(_, exchange) = self {
            exchange.reset();
        }
    }

    /// What comes until there are so many bytes, or the end.
    ///
    /// # Errors
    /// When it does not come in time, or the stream is reset.
    pub async fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, Unanswered> {
        let mut all = Vec::new();
        while all.len() < bytes {
            let Some(piece) = self.piece(PATIENCE).await? else { break };
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Reads until it ends, in whatever way; what came before.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn end(&mut self, deadline: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.piece(deadline).await {
                Ok(Some(piece)) => all.extend_from_slice(&piece),
                Err(Unanswered::TimedOut(_)) => panic!("still open, after {:?}", all.escape_ascii().to_string()),
                _ => return all,
            }
        }
    }

    async fn piece(&mut self, deadline: Duration) -> Result<Option<bytes::Bytes>, Unanswered> {
        match self {
            Self::H1(connection) => connection.piece(deadline).await,
            Self::H2(_, exchange) => exchange.piece(deadline).await,
        }
    }
}

/// A frame as servers send it: nobody has masked it. `first` is its first byte: `0x81` a whole text.
#[must_use]
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(u8::try_from(short).expect("below 126")),
        length => match u16::try_from(length) {
            Ok(length) => {
                frame.push(126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    frame.extend_from_slice(payload);
    frame
}
