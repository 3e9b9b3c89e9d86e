//! What agents sent for and what they received, kept for the oracle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Response, Unanswered};
use crate::upstream::RECORDED_AS;
use crate::wire::Event;

/// The transcripts of all connections of some agents.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Arc<Transcript>>>>);

/// One connection: the bytes received, the same bytes decoded, and the requests made on it.
#[derive(Default)]
pub struct Transcript {
    label: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    raw: Vec<u8>,
    decoded: BTreeMap<u32, Decoded>,
    exchanges: Vec<Exchange>,
}

/// What one stream (HTTP/2) or answer (HTTP/1) said, framing and header compression removed.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Heads and trailers as `name: value` lines.
    pub lines: Vec<u8>,
    /// The value of Content-Encoding.
    pub encoding: Option<String>,
    pub body: Vec<u8>,
}

/// One request that an agent made.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// For people: its first line.
    pub what: String,
    pub at: Instant,
    /// When its answer had come whole, or the peer had ended it. `None` where that was not seen: it may be under way
    /// still, as what an agent gave up may be.
    pub ended: Option<Instant>,
    pub outcome: Outcome,
    /// Its first bytes: the head, and no more than [`MOST_SENT`].
    pub sent: Vec<u8>,
    /// The id under which the upstream has it on record, if the upstream's answer came.
    pub recorded_as: Option<String>,
}

/// So much of a request is kept: more than any head.
const MOST_SENT: usize = 128 << 10;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pending,
    Answered(u16),
    /// An answer began with this status and broke off before its end.
    Cut(u16),
    /// HTTP/2 said definitely that there is no answer: a reset or the end of the connection.
    Refused(String),
    /// The agent itself gave up.
    Aborted,
    /// Nothing came: a timeout, or a connection closed without a word.
    Lost(String),
}

impl Ledger {
    /// Begins the transcript of a new connection.
    pub fn open(&self, label: impl Into<String>) -> Arc<Transcript> {
        let transcript = Arc::new(Transcript { label: label.into(), kept: Mutex::default() });
        self.0.lock().expect("no panic while opening").push(Arc::clone(&transcript));
        transcript
    }

    /// All transcripts so far.
    #[must_use]
    pub fn transcripts(&self) -> Vec<Arc<Transcript>> {
        self.0.lock().expect("no panic while opening").clone()
    }
}

impl Transcript {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What connection this is.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Every byte received, TLS removed.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        self.kept().raw.clone()
    }

    /// What each stream said.
    #[must_use]
    pub fn decoded(&self) -> Vec<Decoded> {
        self.kept().decoded.values().cloned().collect()
    }

    /// Every request made.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.kept().exchanges.clone()
    }

    /// These bytes were received.
    pub fn received(&self, bytes: &[u8]) {
        self.kept().raw.extend_from_slice(bytes);
    }

    /// They say this.
    pub fn note(&self, event: &Event) {
        let mut kept = self.kept();
        match event {
            Event::Head { stream, fields } | Event::Trailers { stream, fields } => {
                let decoded = kept.decoded.entry(*stream).or_default();
                decoded.lines.extend(fields.to_lines());
                decoded.encoding = fields.text("content-encoding").or(decoded.encoding.take());
            }
            Event::Data { stream, bytes } => {
                kept.decoded.entry(*stream).or_default().body.extend_from_slice(bytes);
            }
            Event::End { .. } | Event::Reset { .. } | Event::GoAway { .. } | Event::Garbage(_) => {}
        }
    }

    /// A request is being made.
    pub fn begin(self: &Arc<Self>, what: impl Into<String>) -> Open {
        let (at, outcome) = (Instant::now(), Outcome::Pending);
        let exchange = Exchange { what: what.into(), at, ended: None, outcome, sent: Vec::new(), recorded_as: None };
        let mut kept = self.kept();
        kept.exchanges.push(exchange);
        Open { transcript: Arc::clone(self), index: kept.exchanges.len() - 1 }
    }

    pub(super) fn raw_len(&self) -> usize {
        self.kept().raw.len()
    }

    pub(super) fn raw_between(&self, from: usize, to: usize) -> Vec<u8> {
        self.kept().raw[from..to].to_vec()
    }
}

/// A request whose outcome is not known yet; dropping it means that the agent gave up.
pub struct Open {
    transcript: Arc<Transcript>,
    index: usize,
}

impl Open {
    /// The outcome is known.
    pub fn settle(&self, outcome: Outcome) {
        self.transcript.kept().exchanges[self.index].outcome = outcome;
    }

    /// Of its connection.
    pub(super) fn transcript(&self) -> Arc<Transcript> {
        Arc::clone(&self.transcript)
    }

    /// These bytes are being sent for it.
    pub fn sent(&self, bytes: &[u8]) {
        let sent = &mut self.transcript.kept().exchanges[self.index].sent;
        let room = MOST_SENT.saturating_sub(sent.len());
        sent.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Nothing more comes for it, as was seen at this moment; the first counts.
    pub(crate) fn ended(&self, at: Instant) {
        self.transcript.kept().exchanges[self.index].ended.get_or_insert(at);
    }

    /// What was sent for the request before it: an answer nobody asked for belongs to that, which had not ended then.
    pub(super) fn sent_before(&self) {
        let mut kept = self.transcript.kept();
        let Some(before) = self.index.checked_sub(1) else { return };
        kept.exchanges[before].ended = None;
        kept.exchanges[self.index].sent = kept.exchanges[before].sent.clone();
    }

    /// The outcome once the head of an answer is there, as an agent's method returns it: whether the
    /// rest comes is seen by who reads it.
    pub(super) fn begun(&self, answer: Result<Response, Unanswered>) -> Result<Response, Unanswered> {
        if let Ok(response) = &answer {
            self.recorded_as(response);
            self.settle(Outcome::Answered(response.status));
            return answer;
        }
        self.settled(answer)
    }

    /// Its answer has broken off.
    pub(super) fn cut(&self) {
        self.ended(Instant::now());
        let outcome = &mut self.transcript.kept().exchanges[self.index].outcome;
        if let Outcome::Answered(status) = *outcome {
            *outcome = Outcome::Cut(status);
        }
    }

    fn recorded_as(&self, response: &Response) {
        self.transcript.kept().exchanges[self.index].recorded_as = response.header(RECORDED_AS);
    }

    /// The outcome as an agent's method returns it.
    pub(super) fn settled(&self, answer: Result<Response, Unanswered>) -> Result<Response, Unanswered> {
        if let Ok(response) = &answer {
            self.recorded_as(response);
        }
        // Who waits no longer has not seen an end.
        if !matches!(&answer, Err(Unanswered::TimedOut(_) | Unanswered::Broken(_))) {
            self.ended(Instant::now());
        }
        self.settle(match &answer {
            Ok(response) if response.complete => Outcome::Answered(response.status),
            Ok(response) => Outcome::Cut(response.status),
            Err(why @ (Unanswered::Reset(_) | Unanswered::GoAway(_))) => Outcome::Refused(why.to_string()),
            Err(why) => Outcome::Lost(why.to_string()),
        });
        answer
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let outcome = &mut self.transcript.kept().exchanges[self.index].outcome;
        if *outcome == Outcome::Pending {
            *outcome = Outcome::Aborted;
        }
    }
}
