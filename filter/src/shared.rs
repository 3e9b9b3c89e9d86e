//! What all requests of one worker share, and the way of one request through it.

use crate::host::{self, Map};
use crate::metrics::Metrics;
use attache_core::Millis;
use attache_core::access::Body;
use attache_core::connection::Connection;
use attache_core::evidence::SESSION_HEADER;
use attache_core::names::Name;
use attache_core::refusal::Reason;
use attache_core::request::{Asked, Forward, Snapshot, Way, authorise, identify};
use attache_core::worker::{Entry, Grant, Outcome, Report, Worker, verdict};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Filter state that the gate writes: the verdict, for route guards and Envoy's access log.
const VERDICT: &str = "attache";
/// Filter state that the judge writes: a request's body, or that it is too large.
pub const BODY: &str = "attache_body";
/// Marks the two things the judge can say.
pub const BODY_WHOLE: u8 = b'=';
pub const BODY_TOO_LARGE: u8 = b'>';

/// One worker's state. Lives as long as its root context.
pub struct Shared {
    pub worker: RefCell<Worker>,
    pub metrics: RefCell<Metrics>,
    held: RefCell<HashMap<u32, Flow>>,
    timeout: Millis,
    guarded: bool,
    listener: Option<Name>,
    origin: Instant,
    unix_origin: Cell<u64>,
    tick: Cell<u32>,
}

/// One request on its way.
#[derive(Default)]
pub struct Flow {
    snapshot: Snapshot,
    asked: Option<Asked>,
    outcome: Outcome,
    started: Millis,
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

impl Flow {
    /// Whether the verdict let it go.
    pub fn is_released(&self) -> bool {
        matches!(self.outcome, Outcome::Forwarded(_) | Outcome::Passed)
    }
}

enum Considered {
    Wait,
    Pass(Asked),
    Granted(Rc<Grant>),
    Refused(Reason),
}

impl Shared {
    pub fn new(worker: Worker, timeout: Millis, guarded: bool, listener: Option<Name>) -> Self {
        Self {
            worker: RefCell::new(worker),
            metrics: RefCell::default(),
            held: RefCell::default(),
            timeout,
            guarded,
            listener,
            origin: Instant::now(),
            unix_origin: Cell::new(unix_millis()),
            tick: Cell::new(0),
        }
    }

    /// Now, on the VM's monotonic clock.
    pub fn now(&self) -> Millis {
        Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Follows the wall clock, which only dates records: one reading a tick rather than one a request.
    pub fn read_wall_clock(&self) {
        self.unix_origin.set(unix_millis().saturating_sub(self.now().0));
    }

    /// Has the root called again when the worker wants to look around.
    pub fn schedule(&self) {
        let period = u32::try_from(self.worker.borrow().next_tick().0).unwrap_or(1);
        if period != self.tick.get() && host::set_tick(period).is_ok() {
            self.tick.set(period);
        }
    }

    /// Has the root called as soon as can be.
    pub fn hurry(&self) -> bool {
        self.tick.set(1);
        host::set_tick(1).is_ok()
    }

    /// Reads a new request and takes it as far as it goes.
    pub fn begin(&self, context: u32, headers: host::Result<Vec<u8>>) -> (Flow, Step) {
        let now = self.now();
        let mut flow = Flow { started: now, ..Flow::default() };
        let Ok(headers) = headers else {
            let step = self.refuse(&mut flow, Reason::Internal, None);
            return (flow, step);
        };
        flow.snapshot = self.read(headers);
        let step = self.advance(context, &mut flow, now);
        (flow, step)
    }

    /// Keeps a held request until it is woken.
    pub fn keep(&self, context: u32, flow: Flow) {
        self.held.borrow_mut().insert(context, flow);
    }

    /// Takes a held request back.
    pub fn take(&self, context: u32) -> Option<Flow> {
        self.held.borrow_mut().remove(&context)
    }

    /// Whether a request that was held has been let go.
    pub fn has_released(&self, context: u32) -> bool {
        self.held.borrow().get(&context).is_some_and(Flow::is_released)
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
        let mut connection = Connection::of(self.listener.clone().filter(|_| policy.needs_listener()));
        for property in policy.properties() {
            // What Envoy does not say stays unknown: a session that is bound to it is refused.
            if let Ok(Some(said)) = host::property(property.path()) {
                connection.learn(*property, &said);
            }
        }
        Snapshot::read(headers, &policy).on(connection)
    }

    fn advance(&self, context: u32, flow: &mut Flow, now: Millis) -> Step {
        // The worker is borrowed for `consider` alone: what follows borrows it again.
        match self.consider(context, flow, now) {
            Considered::Wait => Step::Hold,
            Considered::Pass(asked) => self.pass(flow, asked),
            Considered::Granted(grant) => self.conclude(flow, grant, now),
            Considered::Refused(reason) => self.refuse(flow, reason, None),
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
        if let Way::Unclaimed(_) | Way::Unmatched = asked.way {
            return Considered::Pass(asked);
        }
        let entry = worker.find(&flow.snapshot, &asked, now);
        if entry.is_none() && may_wait {
            worker.hold(context, &flow.snapshot, &asked, flow.started);
        }
        flow.asked = Some(asked);
        match entry {
            Some(Entry::Granted(grant)) => Considered::Granted(grant),
            Some(Entry::Refused(reason, _)) => Considered::Refused(reason),
            None if may_wait => Considered::Wait,
            None => Considered::Refused(Reason::BrokerUnavailable),
        }
    }

    /// A grant is there: the verdict.
    pub fn conclude(&self, flow: &mut Flow, grant: Rc<Grant>, now: Millis) -> Step {
        let policy = self.worker.borrow().policy();
        let verdict = match &flow.asked {
            _ if now >= grant.expires => Err(Reason::BrokerUnavailable),
            _ if !self.worker.borrow().admits(&grant) => Err(Reason::AuditBacklog),
            Some(asked) => {
                let mut body = Vec::new();
                authorise(&policy, &flow.snapshot, asked, &grant, || read_body(&mut body))
            }
            None => Err(Reason::Internal),
        };
        let applied = verdict.and_then(|forward| {
            self.check_cluster(&grant)?;
            inject(&forward, &grant)
        });
        match applied {
            Ok(()) => {
                self.metrics.borrow_mut().forwarded += 1;
                self.worker.borrow_mut().begin_use();
                flow.outcome = Outcome::Forwarded(grant);
                Step::Go
            }
            Err(reason) => self.refuse(flow, reason, Some(grant)),
        }
    }

    /// Without a route guard, the route that stands now is the one that will be taken (`doctor`
    /// refuses routes that match on what is injected): it must lead to the cluster decided on.
    fn check_cluster(&self, grant: &Grant) -> Result<(), Reason> {
        if self.guarded {
            return Ok(());
        }
        match host::property("xds\0cluster_name") {
            Ok(Some(cluster)) if cluster == grant.cluster.as_bytes() => Ok(()),
            _ => Err(Reason::DestinationMismatch),
        }
    }

    /// Lets a request go as it is, where the config says so.
    fn pass(&self, flow: &mut Flow, asked: Asked) -> Step {
        if !self.worker.borrow().has_room() {
            return self.refuse(flow, Reason::AuditBacklog, None);
        }
        let policy = self.worker.borrow().policy();
        let cluster = match asked.way {
            Way::Managed(index) | Way::Unclaimed(index) => policy.destination(index).map_or("", |d| &d.cluster),
            Way::Unmatched => "",
        };
        flow.asked = Some(asked);
        // Removing a header, present or not, makes Envoy select the route again, under its guard.
        let done = host::set_property(VERDICT, verdict(&Outcome::Passed, cluster).as_bytes())
            .and_then(|()| host::remove_header(SESSION_HEADER))
            // A JWT is for us: whoever else gets it could show it to us.
            .and_then(|()| policy.identity_headers().try_for_each(host::remove_header));
        match done {
            Ok(()) => {
                self.metrics.borrow_mut().passed += 1;
                flow.outcome = Outcome::Passed;
                Step::Go
            }
            Err(_) => self.refuse(flow, Reason::Internal, None),
        }
    }

    /// Answers a request with the reason why it goes no further.
    pub fn refuse(&self, flow: &mut Flow, reason: Reason, grant: Option<Rc<Grant>>) -> Step {
        flow.outcome = Outcome::Refused(reason, grant);
        self.metrics.borrow_mut().refused += 1;
        // If this fails, Envoy's access log says what was decided before; the request goes no further.
        let _ = host::set_property(VERDICT, verdict(&flow.outcome, "").as_bytes());
        let mut lines: Vec<(&str, &[u8])> =
            vec![("content-type", b"application/json"), ("x-attache-reason", reason.as_str().as_bytes())];
        if reason == Reason::IdentityRequired && self.wants_challenge(flow) {
            lines.push(("www-authenticate", b"Basic realm=\"attache\", charset=\"UTF-8\""));
        }
        let body = reason.body(flow.snapshot.request_id());
        if host::respond(reason.status(), reason.as_str(), &lines, body.as_bytes()).is_err() {
            // The request stays held; Envoy's stream timeouts answer it.
            log::error!("envoy refused a local response");
        }
        Step::Answered
    }

    fn wants_challenge(&self, flow: &Flow) -> bool {
        let policy = self.worker.borrow().policy();
        policy.wants_challenge(flow.snapshot.authority(), flow.snapshot.target().of(flow.snapshot.bytes()))
    }

    /// Records a request that is over.
    pub fn finish(&self, context: u32, flow: &Flow) {
        let mut worker = self.worker.borrow_mut();
        match flow.outcome {
            Outcome::Undecided => worker.leave(context),
            // Whatever became of it upstream, or at the route guard: it is under way no more.
            Outcome::Forwarded(_) => worker.end_use(),
            _ => {}
        }
        let duration = self.now().since(flow.started).0;
        let response_code = response_code();
        let mismatch = Outcome::Refused(Reason::DestinationMismatch, None);
        let turned_away = response_code == Reason::DestinationMismatch.status() && was_turned_away();
        worker.record(&Report {
            snapshot: &flow.snapshot,
            asked: flow.asked.as_ref(),
            outcome: if turned_away { &mismatch } else { &flow.outcome },
            at_ms: self.unix_origin.get().saturating_add(flow.started.0),
            duration_ms: duration,
            response_code,
        });
    }

    /// A request is gone without a record: its context was deleted.
    pub fn forget(&self, context: u32, flow: Option<Flow>) {
        let Some(flow) = flow.or_else(|| self.take(context)) else { return };
        let mut worker = self.worker.borrow_mut();
        worker.leave(context);
        if let Outcome::Forwarded(_) = flow.outcome {
            worker.end_use();
        }
    }
}

/// Strips, sets, and makes sure that what was set stands there alone.
fn inject(forward: &Forward, grant: &Grant) -> Result<(), Reason> {
    let done = apply(forward, grant).is_ok_and(|()| stands_alone(grant));
    if done {
        return Ok(());
    }
    // What was set goes nowhere, but neither should it stand in a header any longer.
    for (name, _) in grant.headers() {
        let _ = host::remove_header(name.as_bytes());
    }
    Err(Reason::Internal)
}

fn apply(forward: &Forward, grant: &Grant) -> host::Result<()> {
    // First the verdict: the header changes below make Envoy select the route again, and its
    // guard looks at it.
    host::set_property(VERDICT, grant.verdict.as_bytes())?;
    forward.remove().try_for_each(host::remove_header)?;
    if let Some(target) = forward.target() {
        host::set_header(b":path", target)?;
    }
    // Exposed to become the header's value: this is the injection.
    grant.headers().try_for_each(|(name, value)| host::set_header(name.as_bytes(), value.expose().as_bytes()))
}

/// One value in each header: a second line would show as `first,second`.
fn stands_alone(grant: &Grant) -> bool {
    grant.headers().all(|(name, value)| {
        let found = host::header(Map::Request, name).ok().flatten();
        // Exposed to be compared with what now stands in the request.
        found.as_deref() == Some(value.expose().as_bytes())
    })
}

fn read_body(bytes: &mut Vec<u8>) -> Body<'_> {
    let Ok(Some(said)) = host::property(BODY) else { return Body::Unread };
    *bytes = said;
    match bytes.split_first() {
        Some((&BODY_WHOLE, body)) => Body::Whole(body),
        Some((&BODY_TOO_LARGE, _)) => Body::TooLarge,
        _ => Body::Unread,
    }
}

fn response_code() -> u16 {
    let status = host::header(Map::Response, ":status").ok().flatten();
    status.and_then(|digits| std::str::from_utf8(&digits).ok()?.parse().ok()).unwrap_or(0)
}

/// Whether Envoy's route guard answered, rather than an upstream.
fn was_turned_away() -> bool {
    host::property("response\0code_details").ok().flatten().is_some_and(|details| details == b"direct_response")
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
