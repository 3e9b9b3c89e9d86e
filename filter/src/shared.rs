//! What all requests of one worker share, and the way of one request through it.

use crate::flow::{Flow, Flows, read_body};
use crate::host;
use crate::inject::inject;
use crate::metrics::{Counter, Metrics};
use attache_core::Millis;
use attache_core::connection::{Connection, Property};
use attache_core::door::{PROXY_AUTHORIZATION, UNMATCHED_PLAIN_CLUSTER, UNMATCHED_TLS_CLUSTER};
use attache_core::evidence::SESSION_HEADER;
use attache_core::names::Name;
use attache_core::refusal::{Form, REASON_HEADER, Reason};
use attache_core::request::{Asked, Snapshot, Way, authorise, identify};
use attache_core::verdict::VERDICT_STATE;
use attache_core::wire::{Lack, Plugin, Role, Transport};
use attache_core::worker::{Entry, Grant, Intended, Outcome, Question, Wake, Worker, verdict};
use proxy_wasm::types::Action;
use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What makes clients that ask first without a credential ask again with one.
const CHALLENGE: (&str, &[u8]) = ("www-authenticate", BASIC);
/// The same for clients of a proxy (RFC 9110, 11.7.1).
const PROXY_CHALLENGE: (&str, &[u8]) = ("proxy-authenticate", BASIC);
const BASIC: &[u8] = b"Basic realm=\"attache\", charset=\"UTF-8\"";
/// The status that goes with it.
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;

/// Most requests that one callback of the root answers, ends or lets go. Envoy does it when the callback has returned,
/// each of them inside of the callbacks that the one before it causes: of some hundreds the VM's stack is full.
const MOST_AT_ONCE: u32 = 32;

/// One worker's state. Lives as long as its root context.
pub struct Shared {
    pub worker: RefCell<Worker>,
    pub metrics: RefCell<Metrics>,
    /// Every request from its head to its record, by context: a change may concern any of them.
    pub flows: RefCell<Flows>,
    /// Destinations that have sent a credential back: each is told of once.
    pub echoing: RefCell<HashSet<Arc<str>>>,
    pub timeout: Millis,
    pub guarded: bool,
    unjudged: bool,
    is_door: bool,
    transport: Transport,
    listener: Option<Name>,
    origin: Instant,
    pub unix_origin: Cell<u64>,
    tick: Cell<u32>,
    /// When the worker last looked around.
    looked: Cell<Millis>,
    /// Whether Envoy has failed to do something that is to be tried again.
    pub owing: Cell<bool>,
    /// Who is to be woken in the next callback, as this one has done enough.
    pub waiting: RefCell<VecDeque<(u32, Wake)>>,
    /// How many this callback may still act for.
    room: Cell<u32>,
    /// Whether there were more.
    is_behind: Cell<bool>,
}

/// What the shell does next. There is no "released but undecided".
pub enum Step {
    /// Wait for the broker.
    Hold,
    /// The request goes on.
    Go,
    /// It has been answered.
    Answered,
}

enum Considered {
    Wait,
    /// To this destination, or to a host that none names.
    Pass(Asked, Option<usize>),
    Granted(Rc<Grant>),
    Refused(Reason),
}

impl Shared {
    pub fn new(worker: Worker, timeout: Millis, plugin: &Plugin) -> Self {
        Self {
            worker: RefCell::new(worker),
            metrics: RefCell::default(),
            flows: RefCell::default(),
            echoing: RefCell::default(),
            timeout,
            guarded: plugin.guarded,
            unjudged: plugin.lacks.contains(&Lack::Judge),
            is_door: plugin.role == Role::Door,
            transport: plugin.transport,
            listener: plugin.listener.clone(),
            origin: Instant::now(),
            unix_origin: Cell::new(unix_millis()),
            tick: Cell::new(0),
            looked: Cell::default(),
            owing: Cell::new(false),
            waiting: RefCell::default(),
            room: Cell::default(),
            is_behind: Cell::default(),
        }
    }

    /// Whether this is the door of a forward proxy, rather than a gate.
    #[cfg(feature = "trap")]
    pub fn is_door(&self) -> bool {
        self.is_door
    }

    /// Now, on the VM's monotonic clock.
    pub fn now(&self) -> Millis {
        let since = self.origin.elapsed();
        // In 64 bits: those of `as_millis` are twice as many, and calls in wasm.
        Millis(since.as_secs().saturating_mul(1000).saturating_add(u64::from(since.subsec_millis())))
    }

    /// Follows the wall clock, which only dates records: one reading a tick rather than one a request.
    pub fn read_wall_clock(&self) {
        self.unix_origin.set(unix_millis().saturating_sub(self.now().0));
    }

    /// Hands Envoy what was counted.
    pub fn tell_metrics(&self, now: Millis) {
        let (worker, mut metrics) = (self.worker.borrow(), self.metrics.borrow_mut());
        let elapsed = now.since(self.looked.replace(now));
        if worker.stale_since(now).is_some() {
            metrics.add(Counter::StaleMilliseconds, elapsed.0);
        }
        metrics.records(worker.records());
        metrics.flush();
    }

    /// Has the root called again when the worker wants to look around.
    pub fn schedule(&self) {
        let wanted = if self.is_behind.get() { 1 } else { self.worker.borrow().next_tick().0 };
        let period = u32::try_from(wanted).unwrap_or(1);
        if period != self.tick.get() && host::set_tick(period).is_ok() {
            self.tick.set(period);
        }
    }

    /// A callback of the root has begun.
    pub fn turn(&self) {
        self.room.set(MOST_AT_ONCE);
        self.is_behind.set(false);
    }

    /// Whether this callback may act for one more; if not, the root is called again at once.
    pub fn may_act(&self) -> bool {
        let left = self.room.get().checked_sub(1);
        left.map_or_else(|| self.is_behind.set(true), |left| self.room.set(left));
        left.is_some()
    }

    /// Has the root called as soon as can be.
    pub fn hurry(&self) -> bool {
        self.tick.set(1);
        host::set_tick(1).is_ok()
    }

    /// Reads a new request and takes it as far as it goes.
    pub fn begin(&self, context: u32, headers: host::Result<Vec<u8>>) -> Step {
        let now = self.now();
        let mut flow = Box::new(Flow { started: now, unjudged: self.unjudged, ..Flow::default() });
        let step = match headers {
            Ok(headers) => {
                flow.snapshot = self.read(headers);
                self.advance(context, &mut flow, now)
            }
            Err(_) => self.refuse(&mut flow, Reason::Internal, None),
        };
        if let Step::Hold = step {
            // For Envoy's access log, should it go no further: the filter knew of it, and a record follows.
            let _ = host::set_property(VERDICT_STATE, verdict(&flow.outcome, "").as_bytes());
        }
        self.keep(context, flow);
        step
    }

    /// Keeps a request until it is over.
    pub fn keep(&self, context: u32, flow: Box<Flow>) {
        self.flows.borrow_mut().insert(context, flow);
    }

    /// Takes a request back.
    pub fn take(&self, context: u32) -> Option<Box<Flow>> {
        self.flows.borrow_mut().remove(&context)
    }

    /// Whether a request has been let go.
    pub fn has_released(&self, context: u32) -> bool {
        self.flows.borrow().get(&context).is_some_and(|flow| flow.is_released())
    }

    /// Does something with a request that is under way; an answer to one that is not goes on: it is
    /// Envoy's own, or to a request that never came here.
    pub fn with_flow(&self, context: u32, act: impl FnOnce(&mut Flow) -> Action) -> Action {
        self.flows.borrow_mut().get_mut(&context).map_or(Action::Continue, |flow| act(flow))
    }

    /// Begins again under whatever policy is in force now.
    pub fn again(&self, context: u32, flow: &mut Flow) -> Step {
        let bytes = std::mem::take(&mut flow.snapshot).into_bytes();
        flow.snapshot = self.read(bytes);
        self.advance(context, flow, self.now())
    }

    /// A request's head under the policy in force, and of its connection what that policy needs.
    fn read(&self, headers: Vec<u8>) -> Snapshot {
        let policy = self.worker.borrow().policy();
        let behind = Property::behind_the_door(self.transport);
        let listener = (behind.is_none() && policy.needs_listener()).then(|| self.listener.clone()).flatten();
        let mut connection = Connection::of(listener).by(self.transport);
        for property in behind.unwrap_or(policy.properties()) {
            // What Envoy does not say stays unknown: a session that is bound to it is refused.
            if let Ok(Some(said)) = host::property(property.path()) {
                connection.learn(*property, &said);
            }
        }
        Snapshot::read(headers, &policy).on(connection)
    }

    fn advance(&self, context: u32, flow: &mut Flow, now: Millis) -> Step {
        if self.is_door {
            return self.knock(context, flow, now).unwrap_or_else(|reason| self.refuse(flow, reason, None));
        }
        // The worker is borrowed for `consider` alone: what follows borrows it again.
        match self.consider(context, flow, now) {
            Considered::Wait => Step::Hold,
            Considered::Pass(asked, destination) => self.pass(flow, asked, destination),
            Considered::Granted(grant) => self.conclude(context, flow, grant, now),
            Considered::Refused(reason) => self.refuse(flow, reason, None),
        }
    }

    /// Counts, once a request however often it begins again, whether what the worker knew was enough.
    pub fn found(&self, flow: &mut Flow, known: bool) {
        if !std::mem::replace(&mut flow.looked_up, true) {
            self.metrics.borrow_mut().count(if known { Counter::CacheHits } else { Counter::CacheMisses });
        }
    }

    fn consider(&self, context: u32, flow: &mut Flow, now: Millis) -> Considered {
        let mut worker = self.worker.borrow_mut();
        let may_wait = now.since(flow.started) < self.timeout;
        if !worker.has_policy() {
            if may_wait {
                worker.hold_for_policy(context, flow.started);
                return Considered::Wait;
            }
            return Considered::Refused(Reason::PolicyMissing);
        }
        let asked = match identify(&flow.snapshot, &worker.policy()) {
            Ok(asked) => asked,
            Err(reason) => return Considered::Refused(reason),
        };
        let destination = match asked.way {
            Way::Managed(destination) => destination,
            Way::Unclaimed(destination) => return Considered::Pass(asked, Some(destination)),
            Way::Unmatched => return Considered::Pass(asked, None),
        };
        let question = Question { snapshot: &flow.snapshot, destination, evidence: &asked.evidence };
        let entry = worker.find(question, now);
        if entry.is_none() && may_wait {
            worker.hold(context, question, flow.started);
        }
        flow.asked = Some(asked);
        self.found(flow, entry.is_some());
        match entry {
            Some(Entry::Granted(grant)) => Considered::Granted(grant),
            Some(Entry::Refused(reason, _)) => Considered::Refused(reason),
            None if may_wait => Considered::Wait,
            // A way is no grant; no key is one of both.
            None | Some(Entry::Tunnel(_)) => Considered::Refused(Reason::BrokerUnavailable),
        }
    }

    /// A grant is there: the verdict. Where the log must have the request first, it is held for that, and
    /// everything is looked at again when the log has it.
    pub fn conclude(&self, context: u32, flow: &mut Flow, grant: Rc<Grant>, now: Millis) -> Step {
        let policy = self.worker.borrow().policy();
        let verdict = match &flow.asked {
            _ if now >= grant.expires => Err(Reason::BrokerUnavailable),
            _ if !self.worker.borrow().admits(&grant) => Err(Reason::AuditBacklog),
            Some(asked) => {
                let mut body = Vec::new();
                authorise(&policy, &flow.snapshot, asked, &grant, || read_body(flow.unjudged, &mut body))
            }
            None => Err(Reason::Internal),
        };
        let step = verdict.and_then(|forward| {
            self.check_cluster(&grant)?;
            match flow.announced.covers(&grant) {
                true => inject(&forward, &grant).map(|()| Step::Go),
                false => self.announce(context, flow, &grant, now).map(|()| Step::Hold),
            }
        });
        match step {
            Ok(Step::Go) => {
                self.metrics.borrow_mut().count(Counter::Forwarded);
                self.worker.borrow_mut().begin_use();
                flow.outcome = Outcome::Forwarded(grant);
                flow.policy = Some(policy);
                Step::Go
            }
            Ok(held) => held,
            Err(reason) => self.refuse(flow, reason, Some(grant)),
        }
    }

    /// Holds a request until the log has its intent.
    fn announce(&self, context: u32, flow: &mut Flow, grant: &Grant, now: Millis) -> Result<(), Reason> {
        let Flow { snapshot, asked: Some(asked), announced, started, .. } = flow else { return Err(Reason::Internal) };
        let at_ms = self.unix_origin.get().saturating_add(started.0);
        let intended = Intended { context, snapshot, asked, grant, at_ms, since: *started };
        self.worker.borrow_mut().announce(announced, &intended, now)
    }

    /// Lets a request go as it is, where the config says so.
    fn pass(&self, flow: &mut Flow, asked: Asked, destination: Option<usize>) -> Step {
        if !self.worker.borrow().has_room() {
            return self.refuse(flow, Reason::AuditBacklog, None);
        }
        let policy = self.worker.borrow().policy();
        let cluster = match destination {
            Some(index) => policy.destination(index).map_or("", |d| &d.cluster),
            None => match self.transport {
                Transport::Gateway => "",
                Transport::Plain => UNMATCHED_PLAIN_CLUSTER,
                Transport::Intercepted => UNMATCHED_TLS_CLUSTER,
            },
        };
        flow.asked = Some(asked);
        // Removing a header, present or not, makes Envoy select the route again, under its guard.
        let done = host::set_property(VERDICT_STATE, verdict(&Outcome::Passed, cluster).as_bytes())
            .and_then(|()| host::remove_header(SESSION_HEADER))
            .and_then(|()| host::remove_header(PROXY_AUTHORIZATION))
            // A JWT is for us: whoever else gets it could show it to us.
            .and_then(|()| policy.identity_headers().try_for_each(host::remove_header));
        match done {
            Ok(()) => {
                self.metrics.borrow_mut().count(Counter::Passed);
                flow.outcome = Outcome::Passed;
                Step::Go
            }
            Err(_) => self.refuse(flow, Reason::Internal, None),
        }
    }

    /// Answers a request with the reason why it goes no further.
    pub fn refuse(&self, flow: &mut Flow, reason: Reason, grant: Option<Rc<Grant>>) -> Step {
        flow.outcome = Outcome::Refused(reason, grant);
        self.metrics.borrow_mut().refused(reason);
        // If this fails, Envoy's access log says what was decided before; the request goes no further.
        let _ = host::set_property(VERDICT_STATE, verdict(&flow.outcome, "").as_bytes());
        let challenge = reason == Reason::IdentityRequired && self.wants_challenge(flow);
        if self.answer(flow, reason, challenge.then_some(CHALLENGE)).is_err() {
            // The request stays held.
            self.failed(flow);
        }
        Step::Answered
    }

    fn wants_challenge(&self, flow: &Flow) -> bool {
        let policy = self.worker.borrow().policy();
        policy.wants_challenge(flow.snapshot.authority(), flow.snapshot.target().of(flow.snapshot.bytes()))
    }

    /// Answers in the upstream's stead. Who has to say who they are to a proxy is told so as a proxy does.
    pub fn answer(&self, flow: &Flow, reason: Reason, more: Option<(&str, &[u8])>) -> host::Result<()> {
        let (status, more) = match reason.status() {
            401 if self.is_door => (PROXY_AUTHENTICATION_REQUIRED, Some(PROXY_CHALLENGE)),
            status => (status, more),
        };
        let form = Form::of(flow.snapshot.bytes());
        let mut lines: Vec<(&str, &[u8])> =
            vec![("content-type", form.content_type().as_bytes()), (REASON_HEADER, reason.as_str().as_bytes())];
        lines.extend(more);
        let body = reason.body_in(form, flow.snapshot.request_id());
        host::respond(status, reason.as_str(), &lines, body.as_bytes())
    }
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
