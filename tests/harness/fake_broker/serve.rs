//! The socket: requests in, answers out, right or wrong to the byte.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Behaviour, Call, Endpoint, Shared, answers};
use crate::fields::Fields;
use crate::wire::Event;
use crate::wire::http1::Requests;

/// More header bytes than any proxy accepts.
const TOO_MANY: usize = 1 << 20;

pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        // A broken connection is what some tests are about.
        connections.spawn(async move { connection(tcp, shared).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut tcp: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let (mut reader, mut begun) = (Requests::default(), (Fields::default(), BytesMut::new()));
    let mut bytes = BytesMut::with_capacity(64 << 10);
    while tcp.read_buf(&mut bytes).await? > 0 {
        for event in reader.feed(&bytes.split()) {
            match event {
                Event::Head { fields, .. } => begun = (fields, BytesMut::new()),
                Event::Data { bytes, .. } => begun.1.extend_from_slice(&bytes),
                Event::End { .. } => {
                    let (fields, body) = std::mem::take(&mut begun);
                    if !respond(&mut tcp, &shared, fields, body).await? {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Answers one call; false when the connection ends with it.
async fn respond(tcp: &mut TcpStream, shared: &Arc<Shared>, mut fields: Fields, body: BytesMut) -> io::Result<bool> {
    let mut word = |name: &[u8]| String::from_utf8_lossy(&fields.take(name).unwrap_or_default()).into_owned();
    let (method, target) = (word(b":method"), word(b":path"));
    word(b":authority");
    let path = target.split('?').next().unwrap_or_default();
    let endpoint = match (method.as_str(), path) {
        ("GET", "/v1/policy") => Endpoint::Policy,
        ("POST", "/v1/grants") => Endpoint::Grants,
        ("POST", "/v1/tunnels") => Endpoint::Tunnels,
        ("GET", "/v1/changes") => Endpoint::Changes,
        ("POST", "/v1/intents") => Endpoint::Intents,
        ("POST", "/v1/audit") => Endpoint::Audit,
        _ => return whole(tcp, 404, "application/json", b"{}").await,
    };
    let call = Call { endpoint, at: Instant::now(), target, fields, body: body.freeze() };
    let behaviour = shared.called(call.clone());
    if let Behaviour::Delay(pause) = behaviour {
        tokio::time::sleep(pause).await;
    }
    let (status, body) = match behaviour.needs_answer() {
        true => {
            let hold = matches!(behaviour, Behaviour::Ok | Behaviour::Delay(_));
            match shared.whole_policy(&call, behaviour) {
                Some(written) => (200, written),
                None => {
                    let (status, body) = answers::answer(shared, &call, hold).await;
                    (status, behaviour.spoil(body).into())
                }
            }
        }
        false => (200, Bytes::from_static(b"{}")),
    };
    misbehave(tcp, behaviour, status, &body).await
}

async fn misbehave(tcp: &mut TcpStream, behaviour: Behaviour, status: u16, body: &[u8]) -> io::Result<bool> {
    const JSON: &str = "application/json";
    match behaviour {
        Behaviour::Hang => silence(tcp).await,
        Behaviour::Close => Ok(false),
        Behaviour::Reset => tcp.set_zero_linger().map(|()| false),
        Behaviour::Status(status) => whole(tcp, status, JSON, b"{\"error\":\"as told\"}").await,
        Behaviour::Redirect302 => {
            tcp.write_all(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await?;
            Ok(true)
        }
        Behaviour::Html200 => whole(tcp, 200, "text/html", b"<h1>It works</h1>").await,
        Behaviour::RightUnder(status) => whole(tcp, status, JSON, body).await,
        Behaviour::AsText => whole(tcp, status, "text/plain", body).await,
        Behaviour::Announced(length) => {
            tcp.write_all(&head(status, JSON, length)).await?;
            tcp.write_all(body).await?;
            silence(tcp).await
        }
        Behaviour::Truncated => {
            tcp.write_all(&head(status, JSON, body.len() + 1_000)).await?;
            tcp.write_all(body).await?;
            Ok(false)
        }
        Behaviour::HeadersOnly => {
            tcp.write_all(&head(status, JSON, body.len().max(1))).await?;
            silence(tcp).await
        }
        Behaviour::Garbage => {
            tcp.write_all(b"\x00\xff\x16\x03 this is not HTTP\r\n\r\n").await?;
            Ok(false)
        }
        Behaviour::ZeroHeaders => {
            tcp.write_all(b"HTTP/1.1 200 OK\r\nx-large: ").await?;
            tcp.write_all(&vec![b'x'; TOO_MANY]).await?;
            tcp.write_all(b"\r\ncontent-length: 0\r\n\r\n").await?;
            Ok(false)
        }
        Behaviour::Oversized(padding) => {
            const PIECE: usize = 64 << 10;
            tcp.write_all(&head(status, JSON, padding + body.len())).await?;
            let spaces = vec![b' '; PIECE];
            for begun in (0..padding).step_by(PIECE) {
                tcp.write_all(&spaces[..PIECE.min(padding - begun)]).await?;
            }
            tcp.write_all(body).await?;
            Ok(true)
        }
        Behaviour::Ok
        | Behaviour::Delay(_)
        | Behaviour::WrongNonce
        | Behaviour::DuplicateKeys
        | Behaviour::WrongType
        | Behaviour::UnknownMember
        | Behaviour::ExpiredLease => whole(tcp, status, JSON, body).await,
    }
}

async fn whole(tcp: &mut TcpStream, status: u16, media_type: &str, body: &[u8]) -> io::Result<bool> {
    let body = if matches!(status, 204 | 304) { b"" } else { body };
    let mut answer = head(status, media_type, body.len());
    answer.extend_from_slice(body);
    tcp.write_all(&answer).await?;
    Ok(true)
}

fn head(status: u16, media_type: &str, length: usize) -> Vec<u8> {
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("content-length: {length}\r\n"),
    };
    format!("HTTP/1.1 {status} As Told\r\ncontent-type: {media_type}\r\n{length}\r\n").into_bytes()
}

/// Says nothing until the peer has closed.
async fn silence(tcp: &mut TcpStream) -> io::Result<bool> {
    let mut ignored = [0; 1024];
    while tcp.read(&mut ignored).await? > 0 {}
    Ok(false)
}

impl Shared {
    /// Notes a call; how to behave.
    fn called(&self, call: Call) -> Behaviour {
        let mut state = self.state();
        let endpoint = call.endpoint;
        state.calls.push(call);
        let scripted = state.scripted.get_mut(&endpoint).and_then(std::collections::VecDeque::pop_front);
        scripted.or_else(|| state.standing.get(&endpoint).copied()).unwrap_or_default()
    }
}
