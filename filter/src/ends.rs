//! Streams that are ended before their end, and what Envoy is asked for until it does it.

use crate::flow::Flow;
use crate::host;
use crate::metrics::Counter;
use crate::shared::Shared;
use attache_core::Millis;
use attache_core::refusal::Reason;
use attache_core::worker::Outcome;

/// How often Envoy is asked to do what it failed to do, once a tick; then its stream timeouts do it.
const MOST_FAILURES: u8 = 20;

impl Shared {
    /// Ends a stream whose answer must not go on: with another answer while nothing of it has.
    pub fn stop(&self, flow: &mut Flow, reason: Reason, nothing_has_gone: bool) {
        flow.cut = Some(reason);
        let stopped = if nothing_has_gone { self.answer(flow, reason, None) } else { host::reset() };
        self.settle(flow, stopped);
    }

    /// Envoy has ended a stream, or is asked again.
    fn settle(&self, flow: &mut Flow, ended: host::Result<()>) {
        match ended {
            Ok(()) => {
                flow.failures = 0;
                self.metrics.borrow_mut().count(Counter::Cut);
            }
            Err(_) => self.failed(flow),
        }
    }

    /// Ends the streams that may go on no longer: with an answer where none has begun, else with a
    /// reset. Call it before anything is woken: what was let go in this very callback must not be
    /// reset in it.
    pub fn cut(&self, now: Millis) {
        let mut worker = self.worker.borrow_mut();
        let (cuts, stale_since) = (worker.take_cuts(), worker.stale_since(now));
        if cuts.is_empty() && stale_since.is_none() {
            return;
        }
        for (context, flow) in self.flows.borrow_mut().iter_mut() {
            let Some(reason) = flow.ends(*context, &cuts, stale_since) else { continue };
            // From here on its body is held, whatever Envoy makes of the reset.
            flow.cut = Some(reason);
            if !self.may_act() {
                flow.failures = 1;
                self.owing.set(true);
                continue;
            }
            let ended = self.end(*context, flow, reason);
            self.settle(flow, ended);
        }
    }

    /// Whether a piece of an answer came first, where a stream is to end and has not yet ([`Self::cut`]): it goes no
    /// further, and the stream ends by it.
    pub fn ends_here(&self, flow: &mut Flow, nothing_has_gone: bool) -> bool {
        let Some(reason) = flow.cut.filter(|_| flow.failures > 0) else { return false };
        self.stop(flow, reason, nothing_has_gone);
        true
    }

    /// Envoy did not do what was decided: it is asked again on the next tick ([`Self::insist`]).
    pub fn failed(&self, flow: &mut Flow) {
        flow.failures = flow.failures.saturating_add(1);
        self.owing.set(true);
        if flow.failures == MOST_FAILURES {
            log::error!("attache: envoy did not answer, end or resume a request; its timeouts will");
        }
    }

    /// A request that cannot be acted for when its answer is there goes no further.
    pub fn strand(&self, context: u32, mut flow: Box<Flow>) {
        self.metrics.borrow_mut().refused(Reason::Internal);
        flow.outcome = Outcome::Refused(Reason::Internal, None);
        self.failed(&mut flow);
        self.keep(context, flow);
    }

    /// Asks Envoy once more for what it has failed to do. Call it before anything is decided: what was
    /// done in this very callback must not be done twice.
    pub fn insist(&self) {
        if !self.owing.replace(false) {
            return;
        }
        for (context, flow) in self.flows.borrow_mut().iter_mut() {
            if !(1..MOST_FAILURES).contains(&flow.failures) {
                continue;
            }
            if !self.may_act() {
                self.owing.set(true);
                break;
            }
            self.metrics.borrow_mut().count(Counter::Retried);
            let done = match flow.is_over() {
                Some(reason) => self.end(*context, flow, reason),
                None => host::act_for(*context).and_then(|()| host::resume()),
            };
            match done {
                Ok(()) => {
                    flow.failures = 0;
                    self.metrics.borrow_mut().add(Counter::Cut, u64::from(flow.cut.is_some()));
                }
                Err(_) => self.failed(flow),
            }
        }
    }

    /// Ends a stream: with an answer where none has begun, else with a reset.
    fn end(&self, context: u32, flow: &Flow, reason: Reason) -> host::Result<()> {
        #[cfg(feature = "trap")]
        crate::trap::fail("end")?;
        host::act_for(context)?;
        match host::property("response\0code")? {
            None => self.answer(flow, reason, None),
            Some(_) => host::reset(),
        }
    }
}
