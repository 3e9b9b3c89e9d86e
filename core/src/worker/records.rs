//! One record a request, error paths included.

use super::{Grant, Tunnel, Worker, grant};
use crate::audit::escape_into;
use crate::refusal::Reason;
use crate::request::{Asked, Snapshot};
use crate::verdict::verdict_prefix;
use std::rc::Rc;

/// Most bytes of one text in a record: Envoy lets a path of 60 kB through, and no reader wants it.
const LONGEST: usize = 4096;

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
        let write = |out: &mut String, seq| {
            let (kind, decision, reason) = match report.outcome {
                Outcome::Forwarded(_) => ("use", "forward", report.cut.map(Reason::as_str)),
                Outcome::Passed => ("use", "pass", None),
                Outcome::Tunnelled(tunnel) => ("tunnel", tunnel.passage.as_str(), report.cut.map(Reason::as_str)),
                Outcome::Refused(reason, _) => ("deny", "refuse", Some(reason.as_str())),
                Outcome::Undecided => ("deny", "refuse", Some("aborted")),
            };
            begin(out, seq, kind, report.at_ms, report.duration_ms, decision);
            number(out, ",\"response_code\":", u64::from(report.response_code));
            out.push_str(if is_use { ",\"auth_injected\":true" } else { ",\"auth_injected\":false" });
            if report.masked > 0 {
                number(out, ",\"masked\":", report.masked);
            }
            bytes_member(out, "request_id", report.snapshot.request_id());
            bytes_member(out, "method", report.snapshot.method());
            bytes_member(out, "authority", report.snapshot.authority());
            bytes_member(out, "path", path(report.snapshot, report.asked));
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
                Outcome::Forwarded(grant) | Outcome::Refused(_, Some(grant)) => out.push_str(&grant.record_members),
                _ => {
                    let evidence = report.asked.map_or_else(|| "none".into(), |a| a.evidence.word(report.snapshot));
                    grant::member(out, "evidence", &evidence);
                    if let Some(destination) = report.asked.and_then(|asked| asked.destination.as_deref()) {
                        grant::member(out, "destination", destination);
                    }
                }
            }
            out.push('}');
        };
        match is_use {
            true => self.backlog.push_use(write),
            false => self.backlog.push(write),
        }
    }
}

fn tunnel_members(out: &mut String, tunnel: &Tunnel) {
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
pub(super) fn gap(out: &mut String, seq: u64, dropped: u64) {
    begin(out, seq, "gap", 0, 0, "refuse");
    number(out, ",\"response_code\":0,\"auth_injected\":false,\"reason\":\"", dropped);
    out.push_str(" refusals not kept\"");
    for name in ["request_id", "method", "authority", "path"] {
        grant::member(out, name, "");
    }
    grant::member(out, "evidence", "none");
    out.push('}');
}

fn begin(out: &mut String, seq: u64, kind: &str, at_ms: u64, duration_ms: u64, decision: &str) {
    number(out, "{\"seq\":", seq);
    number(out, ",\"at_ms\":", at_ms);
    number(out, ",\"duration_ms\":", duration_ms);
    // Words of ours need no escapes.
    for part in [",\"kind\":\"", kind, "\",\"decision\":\"", decision, "\""] {
        out.push_str(part);
    }
}

pub(super) fn number(out: &mut String, before: &str, value: u64) {
    out.push_str(before);
    // The formatting machinery costs ten times as much, four times a request.
    out.push_str(itoa::Buffer::new().format(value));
}

/// Appends a member; of a value longer than [`LONGEST`], its beginning.
pub(super) fn bytes_member(out: &mut String, name: &str, value: &[u8]) {
    let value = value.get(..LONGEST).unwrap_or(value);
    for part in [",\"", name, "\":\""] {
        out.push_str(part);
    }
    escape_into(out, value);
    out.push('"');
}

/// The path at the destination, or the target without its query where it was not understood.
pub(super) fn path<'a>(snapshot: &'a Snapshot, asked: Option<&'a Asked>) -> &'a [u8] {
    let bytes = snapshot.bytes();
    match asked {
        Some(asked) => asked.path.of(bytes),
        None => snapshot.target().of(bytes).split(|b| *b == b'?').next().unwrap_or_default(),
    }
}
