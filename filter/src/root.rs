//! The root context: configuration, the tick, callouts and their answers.

use crate::flow::Flow;
use crate::gate::Gate;
use crate::host::{self, Buffer, Map};
use crate::judge::Judge;
use crate::metrics::Counter;
use crate::shared::{Shared, Step};
use attache_core::Millis;
use attache_core::names::Name;
use attache_core::refusal::Reason;
use attache_core::trace::TRACEPARENT;
use attache_core::wire::{Lack, Plugin, Role};
use attache_core::worker::{Answer, Call, Dispatch, Settings, Wake, Wakeup, Worker};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

/// The largest configuration that is read.
const MOST: usize = 16 << 20;

/// One entry of the filter chain, in one worker.
pub struct Root {
    id: u32,
    entry: Option<Entry>,
    /// Why the last policy that was none was not taken.
    complaint: String,
}

enum Entry {
    Gate { shared: Rc<Shared>, cluster: String, instance: Name },
    Judge { limit: usize },
}

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, entry: None, complaint: String::new() }
    }

    /// Performs what is due, then looks around again when the worker wants to.
    fn pump(&mut self) {
        // Waking requests has acted for them; callouts must belong to the root, which outlives them.
        if host::act_for(self.id).is_err() {
            return;
        }
        let Some(Entry::Gate { shared, cluster, instance }) = &self.entry else { return };
        let now = shared.now();
        let due = shared.worker.borrow_mut().due(now, || random_hex() + &random_hex());
        for dispatch in due {
            let sent = send(cluster, instance.as_str(), &dispatch);
            let mut worker = shared.worker.borrow_mut();
            shared.metrics.borrow_mut().count(Counter::Callouts);
            match sent {
                Ok(token) => worker.sent(dispatch.call, token, now),
                Err(_) => {
                    shared.metrics.borrow_mut().count(Counter::CalloutsFailed);
                    let woken = worker.unsent(dispatch.call, now);
                    drop(worker);
                    wake(shared, woken);
                    if host::act_for(self.id).is_err() {
                        return;
                    }
                }
            }
        }
        shared.schedule();
    }

    fn configure(&mut self, plugin: Plugin) {
        self.entry = Some(match plugin.role {
            Role::Judge => Entry::Judge { limit: plugin.body_limit as usize },
            Role::Gate | Role::Door => {
                tell_of_lacks(&plugin);
                let timeout = Millis(plugin.callout_timeout_ms);
                let settings = Settings {
                    instance: plugin.instance.clone(),
                    stale_after: Millis(plugin.stale_after_ms),
                    callout_timeout: timeout,
                };
                let id = random_hex().chars().take(8).collect();
                let worker = Worker::new(settings, id);
                let shared = Rc::new(Shared::new(worker, timeout, &plugin));
                Entry::Gate { shared, cluster: plugin.broker_cluster, instance: plugin.instance }
            }
        });
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("http_call_response");
        let Some(Entry::Gate { shared, .. }) = &self.entry else { return };
        // A torn answer has no headers, and asking for one would be the SDK's panic.
        let text = |name| if headers == 0 { None } else { host::header(Map::Callout, name).ok().flatten() };
        let status = text(":status").and_then(|digits| std::str::from_utf8(&digits).ok()?.parse().ok());
        let is_json = text("content-type").is_some_and(|kind| kind.starts_with(b"application/json"));
        if status != Some(200) {
            shared.metrics.borrow_mut().count(Counter::CalloutsFailed);
        }
        shared.turn();
        let now = shared.now();
        let mut longest = 0;
        if let Some((call, took)) = shared.worker.borrow().under_way(token, now) {
            shared.metrics.borrow_mut().answered(call, took.0);
            longest = call.longest_answer();
        }
        let is_read = (1..=longest).contains(&body_size);
        let body = if is_read { host::buffer(Buffer::Callout, body_size).unwrap_or_default() } else { Vec::new() };
        let woken = shared.worker.borrow_mut().answered(token, &Answer { status, is_json, body: &body }, now);
        if let Some(why) = shared.worker.borrow_mut().take_complaint() {
            shared.metrics.borrow_mut().count(Counter::CalloutsFailed);
            // It is asked for again five times a second.
            if why != self.complaint {
                log::error!("attache: the broker's policy is not taken, and nothing passes: {why}");
                self.complaint = why;
            }
        }
        // Before the next poll acknowledges it.
        shared.cut(now);
        wake(shared, woken);
        self.pump();
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let config = host::buffer(Buffer::Configuration, size.min(MOST)).unwrap_or_default();
        #[cfg(feature = "trap")]
        crate::trap::spring_configured(&config);
        match serde_json::from_slice(&config) {
            Ok(plugin) => self.configure(plugin),
            Err(error) => {
                log::error!("attache: plugin configuration: {error}");
                return false;
            }
        }
        match &self.entry {
            Some(Entry::Gate { shared, .. }) => shared.hurry(),
            // The judge has nothing to look after.
            _ => true,
        }
    }

    fn on_tick(&mut self) {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("tick");
        let Some(Entry::Gate { shared, .. }) = &self.entry else { return };
        shared.turn();
        let now = shared.now();
        shared.insist();
        shared.cut(now);
        let overdue = shared.worker.borrow_mut().overdue(now);
        let lost = shared.worker.borrow_mut().take_lost_count();
        shared.metrics.borrow_mut().add(Counter::CalloutsFailed, lost);
        wake(shared, overdue);
        shared.read_wall_clock();
        shared.tell_metrics(now);
        self.pump();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("context_create");
        Some(match self.entry.as_ref()? {
            Entry::Gate { shared, .. } => Box::new(Gate::new(id, Rc::clone(shared))),
            Entry::Judge { limit } => Box::new(Judge::new(*limit)),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Says what this entry does without, once for each worker.
fn tell_of_lacks(plugin: &Plugin) {
    if cfg!(feature = "unrecorded") {
        log::error!("attache: this build records no use: it is for benchmarks alone");
    }
    if plugin.lacks.contains(&Lack::Judge) {
        let reason = Reason::BodyUnreadable.as_str();
        log::warn!(
            "attache: no judge stands before this gate: where a rule needs a body, requests are refused ({reason})"
        );
    }
    if !plugin.guarded {
        let reason = Reason::DestinationMismatch.as_str();
        log::warn!(
            "attache: no route here asks for the verdict: one that leads to another cluster is refused before anything \
             is injected ({reason}), and nothing looks again behind this gate"
        );
    }
}

/// Wakes held requests, as many as this callback may; those that are gone by now are passed over.
fn wake(shared: &Shared, wakeups: Vec<Wakeup>) {
    let mut waiting = shared.waiting.take();
    for Wakeup { contexts, wake } in wakeups {
        waiting.extend(contexts.into_iter().map(|context| (context, wake.clone())));
    }
    while let Some((context, wake)) = waiting.pop_front() {
        let Some(flow) = shared.take(context) else { continue };
        if !shared.may_act() {
            shared.keep(context, flow);
            waiting.push_front((context, wake));
            break;
        }
        wake_one(shared, context, flow, wake);
    }
    // What was learnt may be void when it is their turn: they look it up again.
    for (_, wake) in &mut waiting {
        if let Wake::Granted(_) | Wake::Tunnel(_) = wake {
            *wake = Wake::Again;
        }
    }
    *shared.waiting.borrow_mut() = waiting;
}

fn wake_one(shared: &Shared, context: u32, mut flow: Box<Flow>, wake: Wake) {
    if act_for(context).is_err() {
        // It is here still, so it is answered, and recorded, as soon as Envoy lets us.
        shared.strand(context, flow);
        return;
    }
    let step = match wake {
        Wake::Granted(grant) => shared.conclude(context, &mut flow, grant, shared.now()),
        Wake::Tunnel(tunnel) => {
            let entered = shared.enter(&mut flow, tunnel, shared.now());
            entered.unwrap_or_else(|reason| shared.refuse(&mut flow, reason, None))
        }
        Wake::Refused(reason) => shared.refuse(&mut flow, reason, None),
        Wake::Again => shared.again(context, &mut flow),
        Wake::Recorded(lease) => {
            flow.announced.is_recorded(lease);
            shared.again(context, &mut flow)
        }
    };
    if let Step::Go = step
        && host::resume().is_err()
    {
        shared.failed(&mut flow);
    }
    // Kept until it is over, held or not.
    shared.keep(context, flow);
}

fn act_for(context: u32) -> host::Result<()> {
    #[cfg(feature = "trap")]
    crate::trap::fail("wake")?;
    host::act_for(context)
}

fn send(cluster: &str, instance: &str, dispatch: &Dispatch) -> host::Result<u32> {
    let mut lines = vec![(":method", dispatch.method), (":path", &*dispatch.path), (":authority", instance)];
    if !dispatch.body.is_empty() {
        let kind = if dispatch.call == Call::Audit { "application/x-ndjson" } else { "application/json" };
        lines.push(("content-type", kind));
    }
    if let Some(trace) = &dispatch.trace {
        lines.push((TRACEPARENT, trace.as_str()));
    }
    host::dispatch(cluster, lines, &dispatch.body, Duration::from_millis(dispatch.timeout.0))
}

/// 16 hex digits nobody can foresee: std seeds its hashers from WASI's random_get.
fn random_hex() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
