//! One record a request, error paths included.

use super::{Grant, Tunnel, Worker, grant};
use crate::audit::{Json, escape_into};
use crate::refusal::Reason;
use crate::request::{Asked, Snapshot};
use crate::verdict::verdict_prefix;
use std::rc::Rc;

/// Most bytes of one text in a record: Envoy lets a path of 60 kB through, and no reader wants it.
const LONGEST: usize = 4096;

/// What stands before the word for a decision.
const USED: &str = ",\"kind\":\"use\",\"decision\":\"";
const TUNNELLED: &str = ",\"kind\":\"tunnel\",\"decision\":\"";
const DENIED: &str = ",\"kind\":\"deny\",\"decision\":\"";
/// What stands after it.
const RESPONSE_CODE: &str = "\",\"response_code\":";

/// What became of a request.
#[derive(Clone, Default)]
pub enum Outcome {
    /// Still held, or gone before a verdict.
    #[default]
    Undecided,
    /// Forwarded with a credential.
    Forwarded(Rc<Grant>),
    /// Forwarded as it was.
    Passed,
    /// Let in at the door of a forward proxy.
    Tunnelled(Rc<Tunnel>),
    /// Refused; with the grant, where there was one.
    Refused(Reason, Option<Rc<Grant>>),
}

/// A finished request, to be recorded.
pub struct Report<'a> {
    /// Its headers.
    pub snapshot: &'a Snapshot,
    /// What it asked for, where that was understood.
    pub asked: Option<&'a Asked>,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// Why it was cut short after that, if it was.
    pub cut: Option<Reason>,
    /// How often its answer held the credential, which was masked.
    pub masked: u64,
    /// The number under which it was announced, if it was.
    pub intent: Option<u64>,
    /// When it arrived: Unix milliseconds.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The status that the agent got; 0 if it left before.
    pub response_code: u16,
    /// What went through a tunnel, in bytes: from the agent, and to it.
    pub carried: Option<(u64, u64)>,
}

impl Worker {
    /// Records a finished request.
    pub fn record(&mut self, report: &Report<'_>) {
        let forwarded = matches!(report.outcome, Outcome::Forwarded(_) | Outcome::Passed | Outcome::Tunnelled(_));
        // A use is always kept: `admits` has bounded their number before the request went out.
        if !forwarded && !self.backlog.admits_refusal() {
            return;
        }
        let is_use = matches!(report.outcome, Outcome::Forwarded(_));
        let write = |out: &mut Vec<u8>, seq| {
            let (decided, decision, reason) = match report.outcome {
                Outcome::Forwarded(_) => (USED, "forward", report.cut.map(Reason::as_str)),
                Outcome::Passed => (USED, "pass", None),
                Outcome::Tunnelled(tunnel) => (TUNNELLED, tunnel.passage.as_str(), report.cut.map(Reason::as_str)),
                Outcome::Refused(reason, _) => (DENIED, "refuse", Some(reason.as_str())),
                Outcome::Undecided => (DENIED, "refuse", Some("aborted")),
            };
            begin(out, seq, report.at_ms, report.duration_ms, decided, decision);
            number(out, RESPONSE_CODE, u64::from(report.response_code));
            out.push_word(if is_use { ",\"auth_injected\":true" } else { ",\"auth_injected\":false" });
            if report.masked > 0 {
                number(out, ",\"masked\":", report.masked);
            }
            request_members(out, report.snapshot, report.asked);
            if let Some(intent) = report.intent {
                number(out, ",\"intent\":", intent);
            }
            if let Some(reason) = reason {
                grant::member(out, "reason", reason);
            }
            if let Some((sent, received)) = report.carried {
                number(out, ",\"bytes_in\":", sent);
                number(out, ",\"bytes_out\":", received);
            }
            match report.outcome {
                Outcome::Tunnelled(tunnel) => tunnel_members(out, tunnel),
                Outcome::Forwarded(grant) | Outcome::Refused(_, Some(grant)) => out.push_word(&grant.record_members),
                _ => {
                    let evidence = report.asked.map_or_else(|| "none".into(), |a| a.evidence.word(report.snapshot));
                    grant::member(out, "evidence", &evidence);
                    if let Some(destination) = report.asked.and_then(|asked| asked.destination.as_deref()) {
                        grant::member(out, "destination", destination);
                    }
                }
            }
            out.push(b'}');
        };
        match is_use {
            true => self.backlog.push_use(write),
            false => self.backlog.push(write),
        }
    }
}

fn tunnel_members(out: &mut impl Json, tunnel: &Tunnel) {
    let address = tunnel.address.to_string();
    for (name, value) in [
        ("evidence", tunnel.evidence.as_str()),
        ("destination", &tunnel.id),
        ("session_id", &tunnel.session_id),
        ("session", tunnel.session.as_str()),
        ("upstream", &address),
    ] {
        grant::member(out, name, value);
    }
}

/// The decision for Envoy's own eyes where there is no grant to prepare it: the access log prints
/// it, and a route guard finds in it the cluster of a request that passes as it is.
pub fn verdict(outcome: &Outcome, cluster: &str) -> String {
    let (cluster, decision, reason) = match outcome {
        Outcome::Forwarded(grant) => return grant.verdict.clone(),
        Outcome::Passed => (cluster, "pass", None),
        Outcome::Tunnelled(tunnel) => (tunnel.passage.cluster(), tunnel.passage.as_str(), None),
        Outcome::Refused(reason, _) => ("", "refuse", Some(*reason)),
        Outcome::Undecided => ("", "undecided", None),
    };
    let mut out = verdict_prefix(cluster);
    grant::member(&mut out, "decision", decision);
    if let Some(reason) = reason {
        grant::member(&mut out, "reason", reason.as_str());
    }
    out.push('}');
    out
}

/// The record that stands for refusals which were not kept.
pub(super) fn gap(out: &mut Vec<u8>, seq: u64, dropped: u64) {
    begin(out, seq, 0, 0, ",\"kind\":\"gap\",\"decision\":\"", "refuse");
    number(out, "\",\"response_code\":0,\"auth_injected\":false,\"reason\":\"", dropped);
    out.push_word(" refusals not kept\"");
    for name in ["request_id", "method", "authority", "path"] {
        grant::member(out, name, "");
    }
    grant::member(out, "evidence", "none");
    out.push(b'}');
}

/// The beginning of a record, up to the word for the decision: what stands before that names the kind.
fn begin(out: &mut impl Json, seq: u64, at_ms: u64, duration_ms: u64, decided: &str, decision: &str) {
    number(out, "{\"seq\":", seq);
    number(out, ",\"at_ms\":", at_ms);
    number(out, ",\"duration_ms\":", duration_ms);
    // Words of ours need no escapes.
    out.push_word(decided);
    out.push_word(decision);
}

pub(super) fn number(out: &mut impl Json, before: &str, value: u64) {
    out.push_word(before);
    // The formatting machinery costs ten times as much, four times a request.
    out.push_word(itoa::Buffer::new().format(value));
}

/// Appends what a request says of itself; of a value longer than [`LONGEST`], its beginning.
pub(super) fn request_members(out: &mut impl Json, snapshot: &Snapshot, asked: Option<&Asked>) {
    for (before, value) in [
        (",\"request_id\":\"", snapshot.request_id()),
        ("\",\"method\":\"", snapshot.method()),
        ("\",\"authority\":\"", snapshot.authority()),
        ("\",\"path\":\"", path(snapshot, asked)),
    ] {
        out.push_word(before);
        escape_into(out, value.get(..LONGEST).unwrap_or(value));
    }
    out.push_word("\"");
}

/// The path at the destination, or the target without its query where it was not understood.
fn path<'a>(snapshot: &'a Snapshot, asked: Option<&'a Asked>) -> &'a [u8] {
    let bytes = snapshot.bytes();
    match asked {
        Some(asked) => asked.path.of(bytes),
        None => snapshot.target().of(bytes).split(|b| *b == b'?').next().unwrap_or_default(),
    }
}
