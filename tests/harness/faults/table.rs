//! The table itself.

use std::time::Duration;

use super::{Fault, Row};
use crate::fake_broker::Behaviour;

const MB: usize = 1 << 20;
/// As many as keep two cores busy.
const AGENTS: usize = 24;
/// More than the questions that a worker has under way at a time (192).
const CROWD: usize = 240;
/// A decision: one callout timeout and a tick of the worker.
const DECISION: Duration = Duration::from_millis(2_050);
/// What is refused at once.
const SOON: Duration = Duration::from_secs(1);
/// How long recovery may take once its cause is gone.
const RECOVERY: Duration = Duration::from_secs(2);
/// How long until the next VM is there.
const RELOAD: Duration = Duration::from_secs(1);
/// A decision, and the bound of a stream on which nothing moves, as these rows set it: the shipped one is 15 s.
const STRANDED: Duration = Duration::from_secs(4);

const UNAVAILABLE: &[&str] = &["broker_unavailable"];
/// Who has waited until its time was over, and nobody could be asked for it yet, is told so.
const HUNG: &[&str] = &["broker_unavailable", "rate_limited"];
const HUNG_AND_SILENT: &[&str] = &["broker_unavailable", "rate_limited", "stale"];
const SILENT: &[&str] = &["broker_unavailable", "stale"];
/// What was granted may go on, as far as the filter may believe it and its records are taken.
const WITHOUT_BROKER: &[&str] = &["broker_unavailable", "audit_backlog", "stale"];
const WITHOUT_SOURCE: &[&str] = &["broker_unavailable", "audit_backlog", "stale", "source_unavailable"];
const TRAP: &[&str] = &["503", "cut", "broker_unavailable"];
const TRAP_OR_CLOSED: &[&str] = &["503", "cut", "broker_unavailable", "closed"];

/// A broker's answer that counts for nothing.
const fn answer(name: &'static str, behaviour: Behaviour) -> Row {
    Row {
        name,
        fault: Fault::Answers(behaviour),
        may: UNAVAILABLE,
        bites: true,
        answers: SOON,
        back: Some(RECOVERY),
        short: false,
        agents: AGENTS,
    }
}

/// No answer of the broker's. All questions that a worker may have are under way, and more wait.
const fn silence(name: &'static str, behaviour: Behaviour) -> Row {
    Row { answers: DECISION, may: HUNG, agents: CROWD, ..answer(name, behaviour) }
}

/// A trap of the filter.
const fn trap(name: &'static str, callback: &'static str) -> Row {
    Row {
        name,
        fault: Fault::Traps(callback),
        may: TRAP,
        bites: false,
        answers: STRANDED,
        back: Some(RELOAD),
        short: false,
        agents: AGENTS,
    }
}

/// What the real broker, or what is around it, meets with.
const fn real(name: &'static str, fault: Fault, may: &'static [&'static str]) -> Row {
    Row { name, fault, may, bites: true, answers: DECISION, back: Some(RECOVERY), short: false, agents: AGENTS }
}

/// All of it. Names are those of the page.
pub const ROWS: &[Row] = &[
    // Of these the worker hears nothing more of changes, either.
    Row {
        fault: Fault::Behaves(Behaviour::Close),
        may: SILENT,
        ..answer("broker closes connections", Behaviour::Close)
    },
    Row {
        fault: Fault::Behaves(Behaviour::Reset),
        may: SILENT,
        ..answer("broker resets connections", Behaviour::Reset)
    },
    Row { fault: Fault::Refuses, may: SILENT, ..answer("broker refuses connections", Behaviour::Close) },
    Row {
        fault: Fault::Behaves(Behaviour::Status(503)),
        may: SILENT,
        ..answer("broker answers 503", Behaviour::Status(503))
    },
    answer("broker answers 500", Behaviour::Status(500)),
    answer("broker answers 429", Behaviour::Status(429)),
    answer("broker answers 302", Behaviour::Redirect302),
    answer("broker answers 204", Behaviour::Status(204)),
    answer("a grant under 201", Behaviour::RightUnder(201)),
    answer("a page for people", Behaviour::Html200),
    answer("a grant as text", Behaviour::AsText),
    answer("a grant that is cut", Behaviour::Truncated),
    answer("bytes that are not HTTP", Behaviour::Garbage),
    answer("headers that no proxy takes", Behaviour::ZeroHeaders),
    answer("a grant to another question", Behaviour::WrongNonce),
    answer("a member twice", Behaviour::DuplicateKeys),
    answer("a member of no name", Behaviour::UnknownMember),
    answer("members of other types", Behaviour::WrongType),
    answer("a lease without time", Behaviour::ExpiredLease),
    Row { answers: DECISION, ..answer("a grant of 200 MB", Behaviour::Oversized(200 * MB)) },
    Row { fault: Fault::Behaves(Behaviour::Hang), may: HUNG_AND_SILENT, ..silence("broker hangs", Behaviour::Hang) },
    silence("a head and then silence", Behaviour::HeadersOnly),
    silence("200 MB announced, then silence", Behaviour::Announced(200 * MB)),
    silence("broker answers after 4 s", Behaviour::Delay(Duration::from_secs(4))),
    Row {
        may: &[],
        bites: false,
        ..silence("broker answers after 500 ms", Behaviour::Delay(Duration::from_millis(500)))
    },
    real("broker takes no records", Fault::TakesNoRecords, &["audit_backlog"]),
    real("broker killed", Fault::Killed, WITHOUT_BROKER),
    real("broker killed 200 times", Fault::Kills(200), WITHOUT_BROKER),
    real("broker stopped", Fault::Stopped, WITHOUT_BROKER),
    real("disk full", Fault::DiskFull, WITHOUT_BROKER),
    Row { short: true, ..real("disk read-only", Fault::DiskReadOnly, WITHOUT_BROKER) },
    Row { short: true, ..real("disk cannot sync", Fault::DiskFailsToSync, WITHOUT_BROKER) },
    real("a credential's file is gone", Fault::SourceGone, &["source_unavailable", "credential_not_granted"]),
    real("broker killed, its last record torn", Fault::TornLog, WITHOUT_BROKER),
    real("broker with the certificate of another authority", Fault::StrangeCertificate, WITHOUT_BROKER),
    real("OpenBao sealed as the broker starts", Fault::Sealed, WITHOUT_SOURCE),
    Row { bites: false, ..real("OpenBao revokes the broker's token", Fault::TokenRevoked, &[]) },
    real("upstream rejects a secret, and OpenBao has another", Fault::SecretRejected, &["401"]),
    Row { bites: false, ..real("clock one hour ahead", Fault::ClockJumps(3_600), &[]) },
    Row { bites: false, ..real("clock one hour back", Fault::ClockJumps(-3_600), &[]) },
    trap("trap: context_create", "context_create"),
    trap("trap: request_headers", "request_headers"),
    trap("trap: request_body", "request_body"),
    trap("trap: request_trailers", "request_trailers"),
    trap("trap: judge_request_headers", "judge_request_headers"),
    trap("trap: judge_request_body", "judge_request_body"),
    trap("trap: judge_request_trailers", "judge_request_trailers"),
    trap("trap: response_headers", "response_headers"),
    trap("trap: response_body", "response_body"),
    trap("trap: response_trailers", "response_trailers"),
    Row { may: TRAP_OR_CLOSED, ..trap("trap: delete", "delete") },
    trap("trap: tick", "tick"),
    trap("trap: http_call_response", "http_call_response"),
    Row { bites: false, short: true, ..real("agents leave", Fault::AgentsLeave, &[]) },
    Row { bites: false, ..real("10,000 idle connections", Fault::Idle(10_000), &[]) },
    Row { short: true, ..real("upstream breaks connections", Fault::UpstreamResets, &["503", "502"]) },
    Row { short: true, ..real("upstream cuts its answers", Fault::UpstreamCuts, &["cut", "502", "503"]) },
    Row { bites: false, ..real("upstream answers after 500 ms", Fault::UpstreamSlow(500), &[]) },
    Row { bites: false, short: true, ..real("endless answers that nobody reads", Fault::UpstreamEndless, &[]) },
    Row { bites: false, short: true, ..real("Envoy stopped", Fault::EnvoyStopped, UNAVAILABLE) },
    Row { bites: false, short: true, back: None, ..real("Envoy drains", Fault::EnvoyDrains, &["503", "not asked"]) },
];
