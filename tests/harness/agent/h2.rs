//! HTTP/2 by a well-behaved library: multiplexing, flow control, trailers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::transcript::{Open, Transcript};
use super::{PATIENCE, Response, Unanswered, Wire};
use crate::fields::Fields;
use crate::wire::http2::Http2;
use crate::wire::tap::{Onlooker, Tap};

/// One HTTP/2 connection; dropping it closes it.
pub struct H2 {
    sender: SendRequest<Bytes>,
    transcript: Arc<Transcript>,
    driver: AbortHandle,
}

/// One stream: a request being sent, an answer being awaited.
pub struct H2Exchange {
    body: Sending,
    response: Option<ResponseFuture>,
    receiving: Option<RecvStream>,
    open: Open,
}

/// The body of a request being sent.
pub(super) struct Sending(SendStream<Bytes>);

impl H2 {
    /// Speaks on a connection that stands.
    ///
    /// # Panics
    /// When the handshake fails.
    pub async fn over(wire: Wire, transcript: Arc<Transcript>) -> Self {
        let onlooker = Reader { http2: Http2::of_server(), transcript: Arc::clone(&transcript) };
        let (sender, connection) = h2::client::handshake(Tap::new(wire, onlooker)).await.expect("an HTTP/2 handshake");
        let driver = tokio::spawn(async move {
            connection.await.ok();
        });
        Self { sender, transcript, driver: driver.abort_handle() }
    }

    /// One request with its whole body, and its answer within [`PATIENCE`].
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Unanswered> {
        let mut exchange = self.start(head(method, host, path, headers), body.is_empty()).await?;
        if !body.is_empty() {
            // A peer may answer and reset before it has read everything.
            exchange.data(body, true).await.ok();
        }
        exchange.response(PATIENCE).await
    }

    /// Sends a head; with `end` there is no body. See [`head`] for making one.
    ///
    /// # Errors
    /// When the connection is gone or the library refuses the head.
    pub async fn start(&mut self, head: Request<()>, end: bool) -> Result<H2Exchange, Unanswered> {
        let open = self.transcript.begin(format!("{} {}", head.method(), head.uri()));
        open.sent(format!("{} {}\n", head.method(), head.uri()).as_bytes());
        open.sent(&Fields::from(head.headers()).to_lines());
        let mut sender = self.sender.clone().ready().await.map_err(|error| refused(&error))?;
        let (response, body) = sender.send_request(head, end).map_err(|error| refused(&error))?;
        Ok(H2Exchange { body: Sending(body), response: Some(response), receiving: None, open })
    }

    /// Whether the peer takes extended CONNECT (RFC 8441), as far as it has said.
    #[must_use]
    pub fn takes_protocols(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// The bytes received on this connection and their meaning.
    #[must_use]
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The head of a request.
///
/// # Panics
/// On what the `http` crate refuses: use [`super::RawH2`] for that.
#[must_use]
pub fn head(method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(path).build();
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
    *request.uri_mut() = uri.unwrap_or_else(|error| panic!("{error}: http://{host}{path}"));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    request
}

/// The head of a request for another protocol than HTTP (RFC 8441).
///
/// # Panics
/// As [`head`].
#[must_use]
pub fn extended(protocol: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = head("CONNECT", host, path, headers);
    request.extensions_mut().insert(Protocol::from(protocol));
    request
}

impl H2Exchange {
    /// The head of the answer alone: for streams and tunnels. Then read with [`Self::piece`].
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn head(&mut self, deadline: Duration) -> Result<Response, Unanswered> {
        let Some(response) = self.response.take() else { return Err(Unanswered::Closed) };
        let answer = match timeout(deadline, response).await {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                self.receiving = Some(body);
                Ok(Response {
                    status: head.status.as_u16(),
                    fields: Fields::from(&head.headers),
                    ..Response::default()
                })
            }
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(Unanswered::TimedOut(deadline)),
        };
        self.open.begun(answer)
    }

    /// The next piece of the body or tunnel, as it comes; `None` at its end.
    ///
    /// # Errors
    /// When nothing comes in time, or the stream is reset.
    pub async fn piece(&mut self, deadline: Duration) -> Result<Option<Bytes>, Unanswered> {
        let Some(body) = &mut self.receiving else { return Ok(None) };
        let mut piece = timeout(deadline, body.data()).await.map_err(|_| Unanswered::TimedOut(deadline))?;
        // An empty frame says that the end is there, and nothing else.
        while matches!(&piece, Some(Ok(piece)) if piece.is_empty()) {
            piece = timeout(deadline, body.data()).await.map_err(|_| Unanswered::TimedOut(deadline))?;
        }
        match piece {
            Some(Ok(piece)) => {
                body.flow_control().release_capacity(piece.len()).ok();
                Ok(Some(piece))
            }
            Some(Err(error)) => {
                self.open.cut();
                Err(refused(&error))
            }
            None => {
                self.open.ended(Instant::now());
                Ok(None)
            }
        }
    }

    /// Sends a piece of the body, as much at a time as flow control lets through.
    ///
    /// # Errors
    /// When the peer has reset the stream or does not read within [`PATIENCE`].
    pub async fn data(&mut self, piece: &[u8], end: bool) -> Result<(), Unanswered> {
        self.body.data(piece, end).await
    }

    /// Sends trailers and so ends the body.
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Unanswered> {
        self.body.0.send_trailers(trailers).map_err(|error| refused(&error))
    }

    /// The bytes received on its connection and their meaning.
    #[must_use]
    pub fn transcript(&self) -> Arc<Transcript> {
        self.open.transcript()
    }

    /// What is being sent, and what is received.
    pub(super) fn into_parts(self) -> (Sending, Option<RecvStream>) {
        (self.body, self.receiving)
    }

    /// Resets the stream.
    pub fn reset(mut self) {
        self.body.0.send_reset(Reason::CANCEL);
    }

    /// The whole answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn response(mut self, deadline: Duration) -> Result<Response, Unanswered> {
        let Some(response) = self.response.take() else { return Err(Unanswered::Closed) };
        let answer = timeout(deadline, collect(response)).await;
        self.open.settled(answer.unwrap_or(Err(Unanswered::TimedOut(deadline))))
    }
}

impl Sending {
    /// Sends a piece of the body, as much at a time as flow control lets through.
    ///
    /// # Errors
    /// When the peer has reset the stream or does not read within [`PATIENCE`].
    pub(super) async fn data(&mut self, piece: &[u8], end: bool) -> Result<(), Unanswered> {
        let mut left = Bytes::copy_from_slice(piece);
        while !left.is_empty() {
            self.0.reserve_capacity(left.len());
            let room = std::future::poll_fn(|cx| self.0.poll_capacity(cx));
            let room = timeout(PATIENCE, room).await.map_err(|_| Unanswered::TimedOut(PATIENCE))?;
            let room = room.ok_or(Unanswered::Closed)?.map_err(|error| refused(&error))?;
            let now = left.split_to(room.min(left.len()));
            let last = end && left.is_empty();
            self.0.send_data(now, last).map_err(|error| refused(&error))?;
        }
        if end && piece.is_empty() {
            self.0.send_data(Bytes::new(), true).map_err(|error| refused(&error))?;
        }
        Ok(())
    }
}

async fn collect(response: ResponseFuture) -> Result<Response, Unanswered> {
    let (head, mut body) = response.await.map_err(|error| refused(&error))?.into_parts();
    let fields = Fields::from(&head.headers);
    let mut answer = Response { status: head.status.as_u16(), fields, ..Response::default() };
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return Ok(answer) };
        body.flow_control().release_capacity(piece.len()).ok();
        answer.body.extend_from_slice(&piece);
    }
    let Ok(trailers) = body.trailers().await else { return Ok(answer) };
    answer.trailers = trailers.as_ref().map(Fields::from).unwrap_or_default();
    answer.complete = true;
    Ok(answer)
}

fn refused(error: &h2::Error) -> Unanswered {
    match error.reason().map(u32::from) {
        Some(code) if error.is_go_away() => Unanswered::GoAway(code),
        Some(code) if error.is_reset() => Unanswered::Reset(code),
        _ => Unanswered::Broken(error.to_string()),
    }
}

struct Reader {
    http2: Http2,
    transcript: Arc<Transcript>,
}

impl Onlooker for Reader {
    fn read(&mut self, bytes: &[u8]) {
        self.transcript.received(bytes);
        for event in self.http2.feed(bytes) {
            self.transcript.note(&event);
        }
    }
}
