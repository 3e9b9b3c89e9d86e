//! What a worker asks the broker, and what the answers do.
//!
//! A broker's failure looks like an answer: a refused connection is a 503, a timeout a 504, a torn
//! answer has no headers at all. So an answer counts only with status 200, the JSON media type, a
//! body that fits its type, and, for a grant or an intent, the nonce of this very question.

use super::feed::News;
use super::flights::{Landed, What};
use super::{Cut, Entry, Grant, Standing, Tunnel, Worker, grant, intents};
use crate::door::Passage;
use crate::policy::{Policy, Spec};
use crate::refusal::Reason;
use crate::time::Millis;
use crate::trace::TraceParent;
use crate::wire::{AUDIT_PATH, AuditAnswer, Changes, EvidenceDigests, GRANTS_PATH, GrantAnswer, GrantRequest, Granted};
use crate::wire::{INTENTS_PATH, IntentAnswer, MOST_ANSWER_BYTES, MOST_POLICY_BYTES, POLICY_PATH};
use crate::wire::{TUNNELS_PATH, TunnelAnswer, TunnelRequest};
use serde::de::DeserializeOwned;
use std::rc::Rc;

/// Failed policy fetches are repeated after this.
const POLICY_RETRY: Millis = Millis(200);

/// A flight that outlives its callout's timeout by this much was lost by the proxy.
const LOST: Millis = Millis(500);

/// A question to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The policy.
    Policy,
    /// The next changes.
    Changes,
    /// Records on their way.
    Audit,
    /// A grant, by its cache key and the nonce of the question: an answer that comes after its
    /// flight was ended must not land the next one.
    Grant(Vec<u8>, String),
    /// A way through the door, likewise.
    Tunnel(Vec<u8>, String),
    /// An intent, by the context that is held for it and the nonce.
    Intent(u32, String),
}

impl Call {
    /// The longest answer to it that is read, in bytes. A longer one says nothing.
    pub fn longest_answer(&self) -> usize {
        if matches!(self, Self::Policy) { MOST_POLICY_BYTES } else { MOST_ANSWER_BYTES }
    }
}

/// A callout to perform now.
pub struct Dispatch {
    /// What for.
    pub call: Call,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The body; empty for none.
    pub body: Vec<u8>,
    /// The trace that the question belongs to.
    pub trace: Option<TraceParent>,
    /// After this the proxy gives up.
    pub timeout: Millis,
}

/// A callout's answer, as far as it may count.
pub struct Answer<'a> {
    /// `:status`; `None` where there were no headers.
    pub status: Option<u16>,
    /// Whether the media type is JSON.
    pub is_json: bool,
    /// The body.
    pub body: &'a [u8],
}

/// Held requests to wake, and with what.
pub struct Wakeup {
    /// Their contexts.
    pub contexts: Vec<u32>,
    /// What they learn.
    pub wake: Wake,
}

/// What a held request learns.
#[derive(Clone)]
pub enum Wake {
    /// The grant: authorise with it.
    Granted(Rc<Grant>),
    /// The way through the door.
    Tunnel(Rc<Tunnel>),
    /// There is none.
    Refused(Reason),
    /// Something changed: begin again.
    Again,
    /// The intent is on disk, for this lease: begin again, as time has passed.
    Recorded(Rc<str>),
}

impl Worker {
    /// All callouts to perform now. `nonce` gives 32 fresh hex digits.
    pub fn due(&mut self, now: Millis, mut nonce: impl FnMut() -> String) -> Vec<Dispatch> {
        let timeout = self.settings.callout_timeout;
        let mut due = Vec::new();
        if self.policy_wanted && now >= self.policy_retry_at {
            self.policy_wanted = false;
            due.push(get(Call::Policy, POLICY_PATH.into(), timeout));
        }
        while let Some(key) = self.flights.next() {
            let Some(flight) = self.flights.get(&key) else { continue };
            let (nonce, worker, evidence) = (nonce(), self.id.clone(), flight.evidence.clone());
            let trace = flight.trace;
            // A struct of strings always serialises; were it not so, the empty body is refused.
            let dispatch = match &flight.what {
                What::Grant(index) => {
                    let Some(destination) = self.policy.destination(*index) else { continue };
                    let destination = destination.id.to_string();
                    let request = GrantRequest { nonce: nonce.clone(), worker, destination, evidence };
                    let body = serde_json::to_vec(&request).unwrap_or_default();
                    post(Call::Grant(key.to_vec(), nonce.clone()), GRANTS_PATH.into(), body, timeout)
                }
                What::Tunnel(call) => {
                    let (host, plaintext) = (call.host.to_string(), call.passage == Passage::Plain);
                    let request =
                        TunnelRequest { nonce: nonce.clone(), worker, host, port: call.port, plaintext, evidence };
                    let body = serde_json::to_vec(&request).unwrap_or_default();
                    post(Call::Tunnel(key.to_vec(), nonce.clone()), TUNNELS_PATH.into(), body, timeout)
                }
            };
            self.flights.send(&key, &nonce, now);
            due.push(Dispatch { trace, ..dispatch });
        }
        while let Some((context, held)) = self.intents.next() {
            let (nonce, left) = (nonce(), (held.since + timeout).since(now));
            let body = intents::body(&nonce, &self.id, &held.members);
            self.intents.send(context, &nonce, now);
            due.push(post(Call::Intent(context, nonce), INTENTS_PATH.into(), body, left.max(Millis(1))));
        }
        if let Some(path) = self.feed.poll(&self.id, now) {
            due.push(get(Call::Changes, path, self.feed.hold() + timeout));
        }
        if let Some(lines) = self.backlog.batch(now, super::records::gap) {
            let path = format!("{AUDIT_PATH}?worker={}", self.id);
            due.push(post(Call::Audit, path, lines, timeout));
        }
        due
    }

    /// A callout is under way; its answer will carry `token`.
    pub fn sent(&mut self, call: Call, token: u32, now: Millis) {
        self.calls.insert(token, (call, now));
    }

    /// What a callout that is under way asks for, and how long ago it was sent.
    pub fn under_way(&self, token: u32, now: Millis) -> Option<(&Call, Millis)> {
        self.calls.get(&token).map(|(call, sent)| (call, now.since(*sent)))
    }

    /// A callout could not even be sent.
    pub fn unsent(&mut self, call: Call, now: Millis) -> Vec<Wakeup> {
        self.settle(call, None, now)
    }

    /// A callout was answered, somehow.
    pub fn answered(&mut self, token: u32, answer: &Answer<'_>, now: Millis) -> Vec<Wakeup> {
        let Some((call, _)) = self.calls.remove(&token) else { return Vec::new() };
        let counts = answer.status == Some(200) && answer.is_json;
        self.settle(call, counts.then_some(answer.body), now)
    }

    /// Requests that have been held for as long as a decision may take.
    pub fn overdue(&mut self, now: Millis) -> Vec<Wakeup> {
        let timeout = self.settings.callout_timeout;
        let late = |since: Millis| now.since(since) >= timeout;
        let (lost, waiting) = self.waiting_for_policy.drain(..).partition::<Vec<_>, _>(|(_, since)| late(*since));
        self.waiting_for_policy = waiting;
        let mut wakeups =
            wake(lost.into_iter().map(|(context, _)| context).collect(), Wake::Refused(Reason::PolicyMissing));
        // However often a request began again: a decision takes no longer.
        if now >= timeout {
            let late = self.flights.take_late(now.since(timeout));
            let unasked = if self.feed.is_fresh(now) { Reason::RateLimited } else { self.why_unanswered(now) };
            wakeups.extend(wake(late.unasked, Wake::Refused(unasked)));
            wakeups.extend(wake(late.unanswered, Wake::Refused(self.why_unanswered(now))));
            let unrecorded = self.intents.take_late(now.since(timeout));
            wakeups.extend(wake(unrecorded, Wake::Refused(self.why_unanswered(now))));
        }
        for call in self.take_lost(now) {
            wakeups.extend(self.settle(call, None, now));
        }
        if now > timeout + LOST {
            self.intents.give_up(now.since(timeout + LOST));
            for (key, nonce) in self.flights.overdue(now.since(timeout + LOST)) {
                wakeups.extend(match self.flights.get(&key).map(|flight| &flight.what) {
                    Some(What::Tunnel(_)) => self.settle_tunnel(&key, &nonce, None, now),
                    _ => self.settle_grant(&key, &nonce, None, now),
                });
            }
        }
        wakeups
    }

    /// What was sent so long ago that Envoy has lost its answer: an answer that comes after all says nothing. Those are
    /// left out that have clocks of their own (grants, tunnels, intents).
    fn take_lost(&mut self, now: Millis) -> Vec<Call> {
        let (timeout, hold) = (self.settings.callout_timeout + LOST, self.feed.hold());
        let is_lost = |call: &Call, sent: Millis| {
            let held = if matches!(call, Call::Changes) { hold } else { Millis(0) };
            now.since(sent) > timeout + held
        };
        let lost: Vec<_> = self.calls.extract_if(|_, (call, sent)| is_lost(call, *sent)).collect();
        self.lost += lost.len() as u64;
        let calls = lost.into_iter().map(|(_, (call, _))| call);
        calls.filter(|call| matches!(call, Call::Policy | Call::Changes | Call::Audit)).collect()
    }

    fn settle(&mut self, call: Call, body: Option<&[u8]>, now: Millis) -> Vec<Wakeup> {
        match call {
            Call::Policy => self.settle_policy(body, now),
            Call::Changes => self.settle_changes(body.and_then(parse::<Changes>), now),
            Call::Audit => {
                match body.and_then(parse::<AuditAnswer>) {
                    Some(answer) => self.backlog.acknowledged(answer.acked, now),
                    None => self.backlog.failed(now),
                }
                Vec::new()
            }
            Call::Grant(key, nonce) => self.settle_grant(&key, &nonce, body.and_then(parse::<GrantAnswer>), now),
            Call::Tunnel(key, nonce) => self.settle_tunnel(&key, &nonce, body.and_then(parse::<TunnelAnswer>), now),
            Call::Intent(context, nonce) => {
                self.settle_intent(context, &nonce, body.and_then(parse::<IntentAnswer>), now)
            }
        }
    }

    fn settle_policy(&mut self, body: Option<&[u8]>, now: Millis) -> Vec<Wakeup> {
        let policy = match body.map(|body| self.read_policy(body)) {
            Some(Ok(policy)) => policy,
            refused => {
                self.complaint = refused.and_then(Result::err);
                self.policy_wanted = true;
                self.policy_retry_at = now + POLICY_RETRY;
                return Vec::new();
            }
        };
        let is_newest = self.announced.as_deref().is_none_or(|newest| newest == policy.version());
        if !is_newest && self.standing == Standing::InForce {
            // An answer that was overtaken by the newest policy's.
            return Vec::new();
        }
        // Destinations are known by their index: nothing that was asked under the old policy holds.
        self.cache.clear();
        let held = self.flights.take_all();
        self.policy = Rc::new(policy);
        if self.standing != Standing::None {
            // What is open was let through by another: it goes on if this one lets it through, too.
            self.cuts.push(Cut::by(Rc::clone(&self.policy)));
        }
        let mut wakeups = wake(held, Wake::Again);
        if is_newest {
            wakeups.extend(self.open());
        } else {
            // It was sent before the feed named another one.
            self.policy_wanted = true;
            self.policy_retry_at = now + POLICY_RETRY;
        }
        wakeups
    }

    fn read_policy(&self, body: &[u8]) -> Result<Policy, String> {
        let spec: Spec = serde_json::from_slice(body).map_err(|error| unread(&error))?;
        if spec.instance != self.settings.instance {
            return Err(format!("it is that of instance {}", spec.instance));
        }
        Policy::compile(spec).map_err(|error| error.to_string())
    }

    /// Why what has arrived is not taken as a policy. It names instances and destinations, and repeats no other word of it.
    pub fn take_complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// How many callouts Envoy has lost without a word since this was asked last.
    pub fn take_lost_count(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// The newest policy is in force: who waited for it begins again.
    fn open(&mut self) -> Vec<Wakeup> {
        self.standing = Standing::InForce;
        wake(self.waiting_for_policy.drain(..).map(|(context, _)| context).collect(), Wake::Again)
    }

    fn settle_changes(&mut self, answer: Option<Changes>, now: Millis) -> Vec<Wakeup> {
        let Some(answer) = answer else {
            self.feed.failed(now);
            return Vec::new();
        };
        let mut wakeups = Vec::new();
        // Before the first policy, one is wanted or under way already.
        if self.standing != Standing::None {
            if answer.policy == self.policy.version() {
                wakeups = self.open();
            } else {
                // It may take rights away: until it is here, nothing is decided.
                self.standing = Standing::Outdated;
                self.policy_wanted = true;
            }
        }
        self.announced = Some(answer.policy.clone());
        match self.feed.answered(answer) {
            News::NewEpoch(changes) => {
                self.cache.clear();
                self.flights.void_all();
                let life = self.feed.life();
                self.cuts.extend(changes.into_iter().filter_map(|change| Cut::of(change, life)));
            }
            News::Changes(changes) => {
                for change in changes {
                    self.cache.void(&change);
                    self.cuts.extend(Cut::of(change, self.feed.life()));
                }
            }
        }
        wakeups
    }

    fn settle_grant(&mut self, key: &[u8], nonce: &str, answer: Option<GrantAnswer>, now: Millis) -> Vec<Wakeup> {
        let Some(Landed { flight, sent, contexts }) = self.flights.land(key, nonce) else { return Vec::new() };
        let What::Grant(destination) = flight.what else { return Vec::new() };
        if flight.void || !self.has_policy() {
            return wake(contexts, Wake::Again);
        }
        let answer = answer.filter(|answer| self.is_in_time(sent, now) && answer.nonce == nonce);
        let learnt = match answer.map(|answer| (answer.granted, answer.denied)) {
            Some((Some(granted), None)) => {
                let as_of = granted.as_of;
                let grant = self.accept(destination, &flight.evidence, granted, sent);
                let is_void = |grant: &Grant| self.feed.voids(as_of, |change| grant.is_voided_by(change));
                // Or it ended on its way, as the last one before the end of a session's rights does.
                if grant.as_ref().is_some_and(|grant| is_void(grant) || grant.expires <= now) {
                    return wake(contexts, Wake::Again);
                }
                grant
            }
            Some((None, Some(denied))) => {
                self.cache.refuse(key.to_vec(), denied.reason, now);
                return wake(contexts, Wake::Refused(denied.reason));
            }
            _ => None,
        };
        match learnt {
            Some(grant) => {
                let grant = Rc::new(grant);
                self.cache.insert(key.to_vec(), Entry::Granted(Rc::clone(&grant)), now);
                wake(contexts, Wake::Granted(grant))
            }
            None => wake(contexts, Wake::Refused(self.why_unanswered(now))),
        }
    }

    fn settle_intent(&mut self, context: u32, nonce: &str, answer: Option<IntentAnswer>, now: Millis) -> Vec<Wakeup> {
        let Some(held) = self.intents.land(context, nonce) else { return Vec::new() };
        let in_time = now.since(held.since) < self.settings.callout_timeout;
        let learnt = match answer.filter(|answer| in_time && answer.nonce == nonce) {
            Some(IntentAnswer { recorded: true, .. }) => Wake::Recorded(held.lease),
            Some(IntentAnswer { recorded: false, .. }) => Wake::Refused(Reason::AuditBacklog),
            None => Wake::Refused(self.why_unanswered(now)),
        };
        wake(vec![context], learnt)
    }

    fn accept(
        &mut self,
        destination: usize,
        evidence: &EvidenceDigests,
        granted: Granted,
        sent: Millis,
    ) -> Option<Grant> {
        let destination = self.policy.destination(destination)?;
        let service = destination.binding(&granted.credential).map_or("", |binding| &binding.service);
        // What cannot be masked is not used.
        let masker = self.maskers.of(&granted.lease.fingerprint, &granted.mask).ok()?;
        let (id, cluster) = (&destination.id, &destination.cluster);
        let facts = grant::Facts { destination: id, cluster, service, evidence, masker, life: self.feed.life() };
        Grant::accept(granted, sent, facts)
    }

    /// A VM that stood still hears what Envoy has long given up; others have begun to ask anew.
    pub(super) fn is_in_time(&self, sent: Millis, now: Millis) -> bool {
        now.since(sent) <= self.settings.callout_timeout + LOST
    }

    /// A worker that has been in touch lately misses one answer; one that has not is stale.
    pub(super) fn why_unanswered(&self, now: Millis) -> Reason {
        if self.feed.was_fresh() && !self.feed.is_fresh(now) { Reason::Stale } else { Reason::BrokerUnavailable }
    }
}

fn get(call: Call, path: String, timeout: Millis) -> Dispatch {
    Dispatch { call, method: "GET", path, body: Vec::new(), trace: None, timeout }
}

fn post(call: Call, path: String, body: Vec<u8>, timeout: Millis) -> Dispatch {
    Dispatch { call, method: "POST", path, body, trace: None, timeout }
}

pub(super) fn wake(contexts: Vec<u32>, wake: Wake) -> Vec<Wakeup> {
    if contexts.is_empty() { Vec::new() } else { vec![Wakeup { contexts, wake }] }
}

/// Where a text is no policy. Its words are not repeated: who knows whose answer it is.
fn unread(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("it is none of this filter's version (line {line}, column {column})")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}
