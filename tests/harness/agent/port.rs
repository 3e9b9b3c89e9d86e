//! A way to the proxy for clients that are not ours: every byte is in the ledger, and so is every
//! request they make, with what became of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use super::transcript::{Open, Outcome, Transcript};
use super::{Agent, Response};
use crate::fields::Fields;
use crate::util;
use crate::wire::answers::Answers;
use crate::wire::http1::Requests;
use crate::wire::http2::Http2;
use crate::wire::tap::{Onlooker, Tap};
use crate::wire::{Event, frames};

/// A port of 127.0.0.1 that leads to the proxy while it lives.
pub struct Port {
    /// Where it listens.
    pub addr: SocketAddr,
    _relay: Relay,
}

/// Hands connections on while it lives.
pub struct Relay(AbortHandle);

impl Agent {
    /// A port that leads to this address.
    pub async fn port(&self, to: SocketAddr) -> Port {
        let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let ledger = self.ledger().clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let transcript = ledger.open(format!("a client's connection to {to}"));
                connections.spawn(async move {
                    let Ok(proxy) = TcpStream::connect(to).await else { return };
                    client.set_nodelay(true).ok();
                    proxy.set_nodelay(true).ok();
                    relay(client, proxy, transcript).await;
                });
            }
        });
        Port { addr, _relay: Relay(accepting.abort_handle()) }
    }

    /// A UNIX socket that leads to another one.
    pub fn socket(&self, path: &Path, to: &Path) -> Relay {
        let listener = UnixListener::bind(path).expect("a socket");
        let (ledger, to) = (self.ledger().clone(), to.to_owned());
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (transcript, to) = (ledger.open("a client's connection to a socket"), to.clone());
                connections.spawn(async move {
                    let Ok(proxy) = UnixStream::connect(to).await else { return };
                    relay(client, proxy, transcript).await;
                });
            }
        });
        Relay(accepting.abort_handle())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn relay<C, P>(client: C, proxy: P, transcript: Arc<Transcript>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    P: AsyncRead + AsyncWrite,
{
    let first = Arc::new(OnceLock::new());
    let watch = Watch::new(transcript, Arc::clone(&first));
    let (mut from_client, mut to_client) = tokio::io::split(Tap::new(client, watch));
    let (mut from_proxy, mut to_proxy) = tokio::io::split(proxy);
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_proxy).await.ok();
        first.get_or_init(|| Side::Client);
        to_proxy.shutdown().await.ok();
    };
    let down = async {
        tokio::io::copy(&mut from_proxy, &mut to_client).await.ok();
        first.get_or_init(|| Side::Proxy);
        to_client.shutdown().await.ok();
    };
    tokio::join!(up, down);
}

/// Who of two ended a connection.
#[derive(PartialEq, Eq)]
enum Side {
    Client,
    Proxy,
}

/// Reads both directions of a connection, and tells the ledger.
struct Watch {
    transcript: Arc<Transcript>,
    first: Arc<OnceLock<Side>>,
    reader: Reader,
    open: BTreeMap<u32, Exchange>,
}

enum Reader {
    Undecided(Vec<u8>),
    Http1(Requests, Answers),
    Http2(Box<(Http2, Http2)>),
    /// After a CONNECT that was let through: what follows is between the client and whoever ends its TLS.
    Tunnel,
}

struct Exchange {
    open: Open,
    connect: bool,
    answered: bool,
}

impl Watch {
    fn new(transcript: Arc<Transcript>, first: Arc<OnceLock<Side>>) -> Self {
        Self { transcript, first, reader: Reader::Undecided(Vec::new()), open: BTreeMap::new() }
    }

    fn asked(&mut self, event: &Event) {
        match event {
            Event::Head { stream, fields } => {
                let word = |name| fields.text(name).unwrap_or_default();
                let method = word(":method");
                if let Reader::Http1(_, answers) = &mut self.reader {
                    answers.asked(method.clone().into());
                }
                let open = self.transcript.begin(format!("{method} {}", word(":path")));
                open.sent(&fields.to_lines());
                let connect = method == "CONNECT";
                self.open.insert(*stream, Exchange { open, connect, answered: false });
            }
            // Whoever gives a stream up wants no answer.
            Event::Reset { stream, .. } => self.over(*stream, Outcome::Aborted),
            _ => {}
        }
    }

    fn answered(&mut self, event: &Event) {
        self.transcript.note(event);
        match event {
            Event::Head { stream, fields } => self.begun(*stream, fields),
            Event::End { stream } => self.ended(*stream),
            Event::Reset { stream, code } => {
                self.over(*stream, Outcome::Refused(format!("the stream was reset with code {code}")));
            }
            _ => {}
        }
    }

    fn begun(&mut self, stream: u32, fields: &Fields) {
        let status: u16 = fields.text(":status").and_then(|text| text.parse().ok()).unwrap_or(0);
        let Some(exchange) = self.open.get_mut(&stream).filter(|_| !(100..200).contains(&status)) else { return };
        exchange.answered = true;
        let answer = Response { status, fields: fields.clone(), ..Response::default() };
        exchange.open.begun(Ok(answer)).ok();
        if exchange.connect && (200..300).contains(&status) && matches!(self.reader, Reader::Http1(..)) {
            self.open.clear();
            self.reader = Reader::Tunnel;
        }
    }

    /// Its answer is whole.
    fn ended(&mut self, stream: u32) {
        if let Some(exchange) = self.open.remove(&stream) {
            exchange.open.ended(Instant::now());
        }
    }

    fn over(&mut self, stream: u32, outcome: Outcome) {
        if let Some(exchange) = self.open.remove(&stream) {
            // What the client gave up may be under way still.
            if outcome != Outcome::Aborted {
                exchange.open.ended(Instant::now());
            }
            exchange.open.settle(outcome);
        }
    }
}

impl Onlooker for Watch {
    fn read(&mut self, bytes: &[u8]) {
        let mut first = Vec::new();
        let mut bytes = bytes;
        if let Reader::Undecided(begun) = &mut self.reader {
            begun.extend_from_slice(bytes);
            if begun.len() < 3 {
                return;
            }
            first = std::mem::take(begun);
            bytes = &first;
            self.reader = match frames::PREFACE.starts_with(&first[..3]) {
                true => Reader::Http2(Box::new((Http2::of_client(), Http2::of_server()))),
                false => Reader::Http1(Requests::default(), Answers::default()),
            };
        }
        let events = match &mut self.reader {
            Reader::Undecided(_) | Reader::Tunnel => Vec::new(),
            Reader::Http1(requests, _) => requests.feed(bytes),
            Reader::Http2(both) => both.0.feed(bytes),
        };
        drop(first);
        events.iter().for_each(|event| self.asked(event));
    }

    fn written(&mut self, bytes: &[u8]) {
        self.transcript.received(bytes);
        let events = match &mut self.reader {
            Reader::Undecided(_) | Reader::Tunnel => Vec::new(),
            Reader::Http1(_, answers) => answers.feed(bytes),
            Reader::Http2(both) => both.1.feed(bytes),
        };
        events.iter().for_each(|event| self.answered(event));
    }
}

impl Drop for Watch {
    /// The connection is over. What a client left open it wanted no more; what the proxy left open it
    /// owes, unless the end of the connection is the end of the answer.
    fn drop(&mut self) {
        if let Reader::Http1(_, answers) = &mut self.reader
            && let Some(end) = answers.closed()
        {
            self.answered(&end);
        }
        let by_client = self.first.get() == Some(&Side::Client);
        for exchange in self.open.values() {
            match exchange.answered {
                _ if by_client => exchange.open.settle(Outcome::Aborted),
                true => exchange.open.cut(),
                false => {
                    exchange.open.ended(Instant::now());
                    exchange.open.settle(Outcome::Lost("the proxy closed the connection".into()));
                }
            }
        }
    }
}
