//! The door of a forward proxy: a request to the proxy itself. Its callbacks are those of a gate.

use crate::flow::Flow;
use crate::host;
use crate::metrics::Counter;
use crate::record::number;
use crate::shared::{Shared, Step};
use attache_core::Millis;
use attache_core::door::{self, ADDRESS_STATE, Call, HOST_STATE, INSIDE_STATE, PROXY_AUTHORIZATION, Passage};
use attache_core::refusal::Reason;
use attache_core::verdict::VERDICT_STATE;
use attache_core::worker::{Entry, Outcome, Tunnel, verdict};
use std::rc::Rc;

impl Shared {
    /// A request at the door of a forward proxy.
    pub fn knock(&self, context: u32, flow: &mut Flow, now: Millis) -> Result<Step, Reason> {
        let mut worker = self.worker.borrow_mut();
        let may_wait = now.since(flow.started) < self.timeout;
        if !worker.has_policy() {
            if !may_wait {
                return Err(Reason::PolicyMissing);
            }
            worker.hold_for_policy(context, flow.started);
            return Ok(Step::Hold);
        }
        let call = Call::read(&flow.snapshot, &worker.policy())?;
        let evidence = door::evidence(&flow.snapshot)?;
        if !door::names_a_session(&evidence) {
            return Err(Reason::IdentityRequired);
        }
        let entry = worker.find_tunnel(&call, &evidence, now);
        self.found(flow, entry.is_some());
        match entry {
            Some(Entry::Tunnel(tunnel)) => {
                drop(worker);
                self.open(flow, &call, tunnel, now)
            }
            Some(Entry::Refused(reason, _)) => Err(reason),
            None if may_wait => {
                worker.hold_for_tunnel(context, &call, &evidence, flow.started);
                Ok(Step::Hold)
            }
            // A grant is no way; no key is one of both.
            None | Some(Entry::Granted(_)) => Err(Reason::BrokerUnavailable),
        }
    }

    /// The way that a request was held for is known.
    pub fn enter(&self, flow: &mut Flow, tunnel: Rc<Tunnel>, now: Millis) -> Result<Step, Reason> {
        let policy = {
            let worker = self.worker.borrow();
            worker.has_policy().then(|| worker.policy()).ok_or(Reason::Internal)?
        };
        let call = Call::read(&flow.snapshot, &policy)?;
        self.open(flow, &call, tunnel, now)
    }

    /// The door opens.
    fn open(&self, flow: &mut Flow, call: &Call, tunnel: Rc<Tunnel>, now: Millis) -> Result<Step, Reason> {
        if now >= tunnel.expires {
            return Err(Reason::BrokerUnavailable);
        }
        if !self.worker.borrow().has_room() {
            return Err(Reason::AuditBacklog);
        }
        if call.passage != tunnel.passage {
            return Err(Reason::Internal);
        }
        flow.outcome = Outcome::Tunnelled(Rc::clone(&tunnel));
        let is_tunnel = tunnel.passage != Passage::Plain;
        // The verdict opens the tunnel's route; plain requests have theirs from the gate. A changed head
        // makes Envoy select the route again.
        let opened = host::set_property(INSIDE_STATE, tunnel.inside.as_bytes())
            .and_then(|()| host::set_property(ADDRESS_STATE, tunnel.address.to_string().as_bytes()))
            .and_then(|()| host::set_property(HOST_STATE, tunnel.host.as_bytes()))
            .and_then(|()| match is_tunnel {
                true => host::set_property(VERDICT_STATE, verdict(&flow.outcome, "").as_bytes()),
                false => Ok(()),
            })
            .and_then(|()| host::remove_header(PROXY_AUTHORIZATION));
        if opened.is_err() {
            flow.outcome = Outcome::Undecided;
            return Err(Reason::Internal);
        }
        self.metrics.borrow_mut().add(Counter::Tunnelled, u64::from(is_tunnel));
        Ok(Step::Go)
    }
}

/// What went through a tunnel: from the agent, and to it.
pub fn carried() -> (u64, u64) {
    (number("request\0size"), number("response\0size"))
}
