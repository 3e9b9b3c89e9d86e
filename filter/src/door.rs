//! The door of a forward proxy: one request to the proxy itself. Until it opens, all of it holds.

use crate::flow::Flow;
use crate::host::{self, Map};
use crate::shared::{PROXY_AUTHORIZATION, Shared, Step, VERDICT};
use attache_core::Millis;
use attache_core::door::{self, Call, Passage, Tunnel};
use attache_core::refusal::Reason;
use attache_core::worker::{Entry, Outcome, verdict};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// Filter state that the door writes: whom it let in where to ([`Tunnel::inside`]), the host, and the
/// address that may be dialled. Envoy's own filter behind it hands them on, from connection to connection.
const INSIDE: &str = "attache_tunnel";
const HOST: &str = "attache_host";
const ADDRESS: &str = "attache_address";

/// One request at the door.
pub struct Door {
    id: u32,
    shared: Rc<Shared>,
}

impl Door {
    pub fn new(id: u32, shared: Rc<Shared>) -> Self {
        Self { id, shared }
    }

    /// Whether what follows the head may follow: only where the door has opened.
    fn action(&self) -> Action {
        if self.shared.has_released(self.id) { Action::Continue } else { Action::Pause }
    }
}

impl Context for Door {}

impl HttpContext for Door {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring("door_headers");
        match self.shared.begin(self.id, host::header_pairs(Map::Request)) {
            Step::Go => Action::Continue,
            Step::Answered => Action::Pause,
            Step::Hold => {
                self.shared.schedule();
                Action::Pause
            }
        }
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.action()
    }

    fn on_log(&mut self) {
        if let Some(flow) = self.shared.take(self.id) {
            self.shared.finish(self.id, &flow);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

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
        match worker.find_tunnel(&call, &evidence, now) {
            Some(Entry::Tunnel(tunnel)) => {
                drop(worker);
                self.enter(flow, tunnel, now)
            }
            Some(Entry::Refused(reason, _)) => Err(reason),
            None if may_wait => {
                worker.hold_for_tunnel(context, &call, &evidence, flow.started);
                Ok(Step::Hold)
            }
            _ => Err(Reason::BrokerUnavailable),
        }
    }

    /// The way is known: the door opens.
    pub fn enter(&self, flow: &mut Flow, tunnel: Rc<Tunnel>, now: Millis) -> Result<Step, Reason> {
        if now >= tunnel.expires {
            return Err(Reason::BrokerUnavailable);
        }
        let worker = self.worker.borrow();
        if !worker.has_room() {
            return Err(Reason::AuditBacklog);
        }
        if !worker.has_policy() || Call::read(&flow.snapshot, &worker.policy())?.passage != tunnel.passage {
            return Err(Reason::Internal);
        }
        flow.outcome = Outcome::Tunnelled(Rc::clone(&tunnel));
        let is_tunnel = tunnel.passage != Passage::Plain;
        // The verdict opens the tunnel's route; plain requests have theirs from the gate. A changed head
        // makes Envoy select the route again.
        let opened = host::set_property(INSIDE, tunnel.inside.as_bytes())
            .and_then(|()| host::set_property(ADDRESS, tunnel.address.to_string().as_bytes()))
            .and_then(|()| host::set_property(HOST, tunnel.host.as_bytes()))
            .and_then(|()| match is_tunnel {
                true => host::set_property(VERDICT, verdict(&flow.outcome, "").as_bytes()),
                false => Ok(()),
            })
            .and_then(|()| host::remove_header(PROXY_AUTHORIZATION));
        if opened.is_err() {
            flow.outcome = Outcome::Undecided;
            return Err(Reason::Internal);
        }
        self.metrics.borrow_mut().tunnels += u64::from(is_tunnel);
        Ok(Step::Go)
    }
}

/// What went through a tunnel: from the agent, and to it.
pub fn carried() -> (u64, u64) {
    let size = |path| {
        let said = host::property(path).ok().flatten().unwrap_or_default();
        // An integer of CEL: eight bytes, little-endian.
        <[u8; 8]>::try_from(said.as_slice()).map_or(0, |bytes| u64::try_from(i64::from_le_bytes(bytes)).unwrap_or(0))
    };
    (size("request\0size"), size("response\0size"))
}
