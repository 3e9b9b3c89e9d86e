//! Promises about one worker, with its broker played by hand.

mod answers;
mod backlog;
mod changes;
mod cuts;
mod freshness;
mod intents;
mod policy;
mod records;
mod single_flight;
mod tunnels;

use super::{Answer, Call, Dispatch, Entry, Grant, Settings, Wake, Wakeup, Worker};
use crate::fixture::{self, Request, SECRET, granted, header, name};
use crate::policy::Spec;
use crate::refusal::Reason;
use crate::request::{Way, identify};
use crate::time::Millis;
use crate::wire::{Change, Changes, GrantAnswer, GrantRequest, Granted};
use serde::Serialize;
use std::rc::Rc;

/// How long a worker of these tests may go without a poll, and how long its callouts may take.
const STALE_AFTER: u64 = 10_000;
const TIMEOUT: u64 = 2_000;

/// What a held request learnt, or what the cache knows.
#[derive(Debug, PartialEq, Eq)]
enum Learnt {
    Granted,
    /// Through the door, to this address.
    Way(core::net::SocketAddr),
    Again,
    Refused(Reason),
    /// On disk, for this lease.
    Recorded(String),
}

/// A question that awaits its answer.
struct Question {
    token: u32,
    asks: GrantRequest,
}

/// A worker, the time, and every callout that is under way.
struct Desk {
    worker: Worker,
    now: u64,
    open: Vec<(u32, Dispatch)>,
    tokens: u32,
    nonces: u32,
}

impl Desk {
    /// A worker that knows nothing yet.
    fn new() -> Self {
        let settings =
            Settings { instance: name("default"), stale_after: Millis(STALE_AFTER), callout_timeout: Millis(TIMEOUT) };
        let worker = Worker::new(settings, "0000000a".into());
        // Not zero, as no clock of a running process is.
        Self { worker, now: 1_000, open: Vec::new(), tokens: 0, nonces: 0 }
    }

    /// A worker with its policy, in touch with a broker of epoch `e1` at cursor 0.
    fn ready() -> Self {
        let mut desk = Self::new();
        let token = desk.take(Call::Policy).expect("a policy is asked for").0;
        desk.answer(token, &fixture::spec());
        desk.poll_answered(0, Vec::new());
        desk
    }

    fn now(&self) -> Millis {
        Millis(self.now)
    }

    fn wait(&mut self, millis: u64) {
        self.now += millis;
    }

    /// Sends all that is due.
    fn pump(&mut self) {
        let Self { nonces, worker, .. } = self;
        let nonce = || {
            *nonces += 1;
            format!("{nonces:032x}")
        };
        for dispatch in worker.due(Millis(self.now), nonce) {
            self.tokens += 1;
            self.worker.sent(dispatch.call.clone(), self.tokens, Millis(self.now));
            self.open.push((self.tokens, dispatch));
        }
    }

    /// Sends all that is due, and takes the callout of this kind if one is under way.
    fn take(&mut self, call: Call) -> Option<(u32, Dispatch)> {
        self.pump();
        let at = self.open.iter().position(|(_, dispatch)| dispatch.call == call)?;
        Some(self.open.remove(at))
    }

    /// Sends all that is due, and takes every question for a grant.
    fn questions(&mut self) -> Vec<Question> {
        self.pump();
        let (grants, others) =
            std::mem::take(&mut self.open).into_iter().partition(|(_, dispatch)| dispatch.method == "POST");
        let (grants, audits): (Vec<_>, Vec<_>) =
            Vec::into_iter(grants).partition(|(_, dispatch): &(u32, Dispatch)| dispatch.path == "/v1/grants");
        self.open = others;
        self.open.extend(audits);
        let parse = |(token, dispatch): (u32, Dispatch)| Question {
            token,
            asks: serde_json::from_slice(&dispatch.body).expect("a question is a GrantRequest"),
        };
        grants.into_iter().map(parse).collect()
    }

    /// The one question that is due.
    fn question(&mut self) -> Question {
        let mut questions = self.questions();
        assert_eq!(questions.len(), 1);
        questions.remove(0)
    }

    /// Answers 200 with JSON.
    fn answer(&mut self, token: u32, body: &impl Serialize) -> Vec<(u32, Learnt)> {
        let body = serde_json::to_vec(body).unwrap();
        self.answer_with(token, Some(200), true, &body)
    }

    fn answer_with(&mut self, token: u32, status: Option<u16>, is_json: bool, body: &[u8]) -> Vec<(u32, Learnt)> {
        learnt(self.worker.answered(token, &Answer { status, is_json, body }, Millis(self.now)))
    }

    /// What Envoy makes of a broker that is not there.
    fn fail(&mut self, token: u32) -> Vec<(u32, Learnt)> {
        self.answer_with(token, Some(503), false, b"")
    }

    fn grant(&mut self, question: &Question, granted: Granted) -> Vec<(u32, Learnt)> {
        self.answer(question.token, &grants(question, granted))
    }

    /// Answers the poll under way (or the next one) from epoch `e1`.
    fn poll_answered(&mut self, cursor: u64, changes: Vec<Change>) {
        let token = self.take(Call::Changes).expect("a poll is under way").0;
        let policy = self.worker.policy().version().to_owned();
        self.answer(token, &Changes { epoch: "e1".into(), cursor, policy, changes });
    }

    fn hold(&mut self, context: u32, request: &Request) {
        self.hold_since(context, request, self.now());
    }

    /// Holds a request that has been on its way since then.
    fn hold_since(&mut self, context: u32, request: &Request, since: Millis) {
        let policy = self.worker.policy();
        let snapshot = request.read(&policy);
        let asked = identify(&snapshot, &policy).unwrap();
        let Way::Managed(destination) = asked.way else { panic!("{:?}", asked.way) };
        let question = super::Question { snapshot: &snapshot, destination, evidence: &asked.evidence };
        self.worker.hold(context, question, since);
    }

    fn find_entry(&mut self, request: &Request) -> Option<Entry> {
        let policy = self.worker.policy();
        let snapshot = request.read(&policy);
        let asked = identify(&snapshot, &policy).unwrap();
        let Way::Managed(destination) = asked.way else { panic!("{:?}", asked.way) };
        let question = super::Question { snapshot: &snapshot, destination, evidence: &asked.evidence };
        self.worker.find(question, Millis(self.now))
    }

    fn find(&mut self, request: &Request) -> Option<Learnt> {
        self.find_entry(request).map(|entry| match entry {
            Entry::Granted(_) => Learnt::Granted,
            Entry::Tunnel(tunnel) => Learnt::Way(tunnel.address),
            Entry::Refused(reason, _) => Learnt::Refused(reason),
        })
    }

    /// Asks for this request and has it granted.
    fn have_granted(&mut self, request: &Request, granted: Granted) -> Rc<Grant> {
        self.hold(0, request);
        let question = self.question();
        assert_eq!(self.grant(&question, granted), [(0, Learnt::Granted)]);
        match self.find_entry(request) {
            Some(Entry::Granted(grant)) => grant,
            _ => panic!("a grant is cached"),
        }
    }

    /// Takes the batch of records that is due, and how to acknowledge it.
    fn batch(&mut self) -> Option<(u32, String)> {
        let (token, dispatch) = self.take(Call::Audit)?;
        Some((token, String::from_utf8(dispatch.body).unwrap()))
    }
}

fn grants(question: &Question, granted: Granted) -> GrantAnswer {
    GrantAnswer { nonce: question.asks.nonce.clone(), granted: Some(granted), denied: None }
}

/// The request that most tests are about, and its usual grant.
fn api() -> Request {
    fixture::get("api.github.com", "/user").bearer(fixture::PLACEHOLDER)
}

fn usual() -> Granted {
    granted("github", header("authorization", &format!("Bearer {SECRET}")))
}

fn learnt(wakeups: Vec<Wakeup>) -> Vec<(u32, Learnt)> {
    let mut all = Vec::new();
    for Wakeup { contexts, wake } in wakeups {
        all.extend(contexts.into_iter().map(|context| {
            let learnt = match &wake {
                Wake::Granted(_) => Learnt::Granted,
                Wake::Tunnel(tunnel) => Learnt::Way(tunnel.address),
                Wake::Again => Learnt::Again,
                Wake::Refused(reason) => Learnt::Refused(*reason),
                Wake::Recorded(lease) => Learnt::Recorded(lease.to_string()),
            };
            (context, learnt)
        }));
    }
    all
}

/// A change to a session, to a credential, or to everything.
fn change(cursor: u64, session_id: Option<&str>, credential: Option<&str>) -> Change {
    let (session_id, credential) = (session_id.map(Into::into), credential.map(name));
    Change { cursor, session_id, credential, ..Change::default() }
}

/// The policy of these tests under another version.
fn spec_version(version: &str) -> Spec {
    Spec { version: version.into(), ..fixture::spec() }
}
