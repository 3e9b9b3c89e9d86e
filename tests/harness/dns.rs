//! A DNS server on loopback whose answers a test chooses: both kinds of addresses, none, late, another
//! each time. Every question is kept.
//!
//! Own, on hickory's messages: a real server serves zones, which neither change from one question to the
//! next nor stay silent.

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What a name leads to. A name without an answer is `NXDOMAIN`.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These addresses, of both kinds.
    Addresses(Vec<IpAddr>),
    /// These first, then those, the last ones from then on: rebinding.
    InTurn(Vec<Vec<IpAddr>>),
    /// These addresses, once [`Dns::release`] lets them go.
    Held(Vec<IpAddr>),
    /// No answer at all.
    Silence,
    /// The server has failed.
    Failure,
}

/// The server. It ends when dropped.
pub struct Dns {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    /// In seconds.
    ttl: u32,
    asked: Vec<(String, RecordType)>,
    held: Vec<(Vec<u8>, SocketAddr)>,
}

impl Dns {
    /// Listens on a port of its own. Answers may be kept for no time, until [`Self::ttl`] says otherwise.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback accepts a bind");
        let socket = Arc::new(socket);
        let address = socket.local_addr().expect("a bound socket has an address");
        let state = Arc::<Mutex<State>>::default();
        let serving = tokio::spawn(serve(socket.clone(), state.clone()));
        Self { socket, address, state, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A name leads to these addresses from now on.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        self.answer(name, Answer::Addresses(parsed(addresses)));
    }

    /// A name leads to these addresses, at first, then to those.
    pub fn set_in_turn(&self, name: &str, turns: &[&[&str]]) {
        self.answer(name, Answer::InTurn(turns.iter().map(|addresses| parsed(addresses)).collect()));
    }

    /// A name is answered like this from now on.
    pub fn answer(&self, name: &str, answer: Answer) {
        self.state().answers.insert(name.to_owned(), answer);
    }

    /// A name leads to these addresses, and nobody is told before [`Self::release`].
    pub fn hold(&self, name: &str, addresses: &[&str]) {
        self.answer(name, Answer::Held(parsed(addresses)));
    }

    /// Sends the answers that are held.
    pub async fn release(&self) {
        let held = std::mem::take(&mut self.state().held);
        for (bytes, to) in held {
            let _ = self.socket.send_to(&bytes, to).await;
        }
    }

    /// How many answers are held.
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// From now on answers may be kept for so many seconds.
    pub fn ttl(&self, seconds: u32) {
        self.state().ttl = seconds;
    }

    /// All names that were asked for, in order, without repetitions in a row; each is asked for twice,
    /// for both kinds of addresses.
    pub fn asked(&self) -> Vec<String> {
        let mut names: Vec<_> = self.state().asked.iter().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    }

    /// How often a name was asked for its IPv4 addresses.
    pub fn times(&self, name: &str) -> usize {
        self.state().asked.iter().filter(|(asked, kind)| asked == name && *kind == RecordType::A).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|text| text.parse().expect("an address")).collect()
}

async fn serve(socket: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let reply = state.lock().unwrap_or_else(PoisonError::into_inner).reply(&question);
        let Some((reply, held)) = reply else { continue };
        let Ok(bytes) = reply.to_vec() else { continue };
        if held {
            state.lock().unwrap_or_else(PoisonError::into_inner).held.push((bytes, from));
        } else {
            let _ = socket.send_to(&bytes, from).await;
        }
    }
}

impl State {
    /// The reply to a question, and whether it is held; `None`: silence.
    fn reply(&mut self, question: &Message) -> Option<(Message, bool)> {
        let query = question.queries.first()?;
        let kind = query.query_type();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let turn = self.asked.iter().filter(|asked| **asked == (name.clone(), kind)).count();
        self.asked.push((name.clone(), kind));

        let mut reply = Message::response(question.metadata.id, OpCode::Query);
        reply.metadata.recursion_desired = question.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.queries.push(query.clone());
        let addresses = match self.answers.get(&name) {
            None => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                return Some((reply, false));
            }
            Some(Answer::Silence) => return None,
            Some(Answer::Failure) => {
                reply.metadata.response_code = ResponseCode::ServFail;
                return Some((reply, false));
            }
            Some(Answer::Addresses(addresses) | Answer::Held(addresses)) => addresses.as_slice(),
            Some(Answer::InTurn(turns)) => turns.get(turn).or(turns.last()).map_or(&[][..], Vec::as_slice),
        };
        for address in addresses {
            let data = match (kind, address) {
                (RecordType::A, IpAddr::V4(address)) => RData::A(A(*address)),
                (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
                _ => continue,
            };
            reply.add_answer(Record::from_rdata(query.name().clone(), self.ttl, data));
        }
        let held = matches!(self.answers.get(&name), Some(Answer::Held(_)));
        Some((reply, held))
    }
}
