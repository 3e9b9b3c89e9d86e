//! The record of a request that is over.

use crate::door::carried;
use crate::flow::Flow;
use crate::host;
use crate::metrics::Counter;
use crate::shared::Shared;
use attache_core::door::Passage;
use attache_core::refusal::Reason;
use attache_core::worker::{Outcome, Report};

impl Shared {
    /// Records a request that is over.
    pub fn finish(&self, context: u32, flow: &Flow) {
        if matches!(&flow.outcome, Outcome::Tunnelled(tunnel) if tunnel.passage == Passage::Plain) {
            // The gate has recorded it.
            return;
        }
        let mut worker = self.worker.borrow_mut();
        match flow.outcome {
            Outcome::Undecided => worker.leave(context),
            // Whatever became of it upstream, or at the route guard: it is under way no more.
            Outcome::Forwarded(_) => worker.end_use(),
            _ => {}
        }
        self.note_echoes(flow);
        if cfg!(feature = "unrecorded") && matches!(flow.outcome, Outcome::Forwarded(_)) {
            return;
        }
        let duration = self.now().since(flow.started).0;
        let response_code = flow.echoes.status.unwrap_or_else(response_code);
        let turned_away = Reason::of_local_reply(response_code, details).map(|reason| Outcome::Refused(reason, None));
        worker.record(&Report {
            snapshot: &flow.snapshot,
            asked: flow.asked.as_ref(),
            outcome: turned_away.as_ref().unwrap_or(&flow.outcome),
            cut: flow.cut,
            masked: flow.echoes.masked,
            intent: flow.announced.number(),
            at_ms: self.unix_origin.get().saturating_add(flow.started.0),
            duration_ms: duration,
            response_code,
            carried: matches!(flow.outcome, Outcome::Tunnelled(_)).then(carried),
        });
    }

    /// An upstream that sends credentials back does so for a reason; the operator should know it.
    fn note_echoes(&self, flow: &Flow) {
        let masked = flow.echoes.masked;
        if masked == 0 {
            return;
        }
        self.metrics.borrow_mut().add(Counter::Masked, masked);
        if let Some(destination) = flow.asked.as_ref().and_then(|asked| asked.destination.clone())
            && self.echoing.borrow_mut().insert(destination.clone())
        {
            log::warn!("attache: {destination} has sent back the credential it was given; that was masked");
        }
    }
}

/// The status that the agent got, whoever has answered; 0 if nobody has.
fn response_code() -> u16 {
    u16::try_from(number("response\0code")).unwrap_or(0)
}

/// What Envoy says of the answer: that an upstream gave it, or why it is its own.
pub fn details() -> Vec<u8> {
    host::property("response\0code_details").ok().flatten().unwrap_or_default()
}

/// A number that Envoy knows of the request; 0 where it knows none.
pub fn number(path: &str) -> u64 {
    let said = host::property(path).ok().flatten().unwrap_or_default();
    // An integer of CEL: eight bytes, little-endian.
    <[u8; 8]>::try_from(said.as_slice()).map_or(0, |bytes| u64::try_from(i64::from_le_bytes(bytes)).unwrap_or(0))
}
