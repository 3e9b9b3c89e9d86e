//! Every hit has its records, and every record at most one hit.

use std::collections::BTreeMap;
use std::time::Instant;

use super::asker::Askers;
use super::audit::{Audit, Record};
use super::bindings::WatchedUpstream;
use super::violation::Violation;
use crate::upstream::Recorded;

/// One upstream request that carries a secret.
pub(super) struct Hit<'a> {
    upstream: &'a WatchedUpstream,
    pub(super) request: Recorded,
    secret: String,
}

/// What two readings of a clock in whole milliseconds may be apart.
pub(super) const ROUNDING_MS: u64 = 2;
/// What Envoy may take from the verdict until the upstream has the head: `connect_timeout` of the
/// bootstrap's clusters, in milliseconds.
const CONNECTING_MS: u64 = 5_000;

/// `askers` are known where the test's agents are watched.
pub(super) fn reconcile(upstreams: &[WatchedUpstream], audit: &Audit, askers: Option<&Askers>) -> Vec<Violation> {
    let hits = hits(upstreams);
    let mut violations: Vec<Violation> = hits.iter().flat_map(|hit| hit.account(audit, askers)).collect();
    violations.extend(sent_twice(&hits));
    violations.extend(issued_twice(audit));
    violations
}

fn hits(upstreams: &[WatchedUpstream]) -> Vec<Hit<'_>> {
    let mut hits = Vec::new();
    for upstream in upstreams {
        for request in (upstream.requests)() {
            for secret in request.secrets.clone() {
                hits.push(Hit { upstream, request: request.clone(), secret });
            }
        }
    }
    hits
}

fn sent_twice(hits: &[Hit<'_>]) -> Vec<Violation> {
    let mut sent = BTreeMap::new();
    for hit in hits {
        if let Some(id) = hit.request.request_id() {
            *sent.entry((id, &hit.secret)).or_insert(0) += 1;
        }
    }
    let twice = sent.into_iter().filter(|(_, hits)| *hits > 1);
    twice.map(|((request_id, _), hits)| Violation::SentTwice { request_id, hits }).collect()
}

fn issued_twice(audit: &Audit) -> Vec<Violation> {
    let mut issued = BTreeMap::new();
    for record in audit.of_kind("issue") {
        *issued.entry(record.text("lease_id")).or_insert(0) += 1;
    }
    let twice = issued.into_iter().filter(|(_, records)| *records > 1);
    twice.map(|(lease, records)| Violation::IssuedTwice { lease, records }).collect()
}

impl Hit<'_> {
    fn account(&self, audit: &Audit, askers: Option<&Askers>) -> Vec<Violation> {
        let mut violations = Vec::new();
        if let Some(how) = self.upstream.astray(&self.secret, &self.request) {
            violations.push(Violation::Astray { hit: self.to_string(), secret: self.secret.clone(), how });
        }
        let Some(id) = self.request.request_id() else {
            violations.push(Violation::Unidentified { hit: self.to_string() });
            return violations;
        };
        let uses: Vec<&Record> = audit.named("use", &id).collect();
        match uses[..] {
            [] => violations.push(Violation::Unrecorded { hit: self.to_string() }),
            [record] => {
                violations.extend(self.misrecorded(record));
                violations.extend(self.issue(audit, record));
                violations.extend(self.intent(audit, record));
                violations.extend(askers.and_then(|askers| askers.judge(self, record, audit)));
            }
            _ => violations.push(Violation::RecordedTwice { hit: self.to_string(), records: uses.len() }),
        }
        violations
    }

    fn misrecorded(&self, record: &Record) -> Vec<Violation> {
        let (authority, method) = (escaped(&self.request.authority), escaped(&self.request.method));
        let path = escaped(self.request.path.split(|byte| *byte == b'?').next().unwrap_or_default());
        // A gateway is called by an address of its own: then only the destination names the host.
        let field = if record.text("destination").is_empty() { "authority" } else { "destination" };
        let reached = same_place(&authority, &record.text(field));
        let checks = [
            ("decision", "forward".to_owned(), record.text("decision") == "forward"),
            ("auth_injected", "true".to_owned(), record.text("auth_injected") == "true"),
            ("credential", self.secret.clone(), record.text("credential") == self.secret),
            (field, authority, reached),
            ("method", method.clone(), record.text("method") == method),
            // A gateway removes the prefix of the route.
            ("path", path.clone(), record.text("path").ends_with(&path)),
        ];
        let wrong = checks.into_iter().filter(|(_, _, fits)| !fits);
        wrong.map(|(field, happened, _)| self.differs(record, field, happened)).collect()
    }

    fn differs(&self, record: &Record, field: &'static str, happened: String) -> Violation {
        Violation::Misrecorded { hit: self.to_string(), field, happened, recorded: record.text(field) }
    }

    /// The one issue record of the lease that the use record names, and whether it came first.
    fn issue(&self, audit: &Audit, used: &Record) -> Option<Violation> {
        let (hit, lease) = (self.to_string(), used.text("lease_id"));
        let same = |record: &&Record| {
            let named = !used.text("session_id").is_empty() && record.text("credential") == self.secret;
            record.text("session_id") == used.text("session_id") && named
        };
        let Some(issue) = audit.named("issue", &lease).find(same) else {
            return Some(Violation::Unissued { hit, lease });
        };
        let late = |how| Some(Violation::IssuedLate { hit: hit.clone(), lease: lease.clone(), how });
        if self.request.witness_len.is_some_and(|length| issue.end > length) {
            return late("the log did not hold it when the request arrived");
        }
        if issue.at_ms().is_none_or(|at| at > self.request.wall_ms) {
            return late("by its timestamp");
        }
        if issue.line > used.line {
            return late("it follows the use record");
        }
        for (field, of_use) in SAME {
            let (issued, used) = (issue.text(field), used.text(of_use));
            if issued != used {
                return Some(Violation::Misissued { hit, field, issued, used });
            }
        }
        let Some(ttl) = issue.ttl_ms() else { return Some(Violation::Endless { lease }) };
        let end = issue.at_ms()? + ttl + CONNECTING_MS;
        (self.request.wall_ms > end).then(|| self.expired(lease, self.request.wall_ms - end + CONNECTING_MS))
    }

    /// Where the lease says that each use of it is announced: the one intent that the use record names, and
    /// whether the log had it when the request arrived.
    fn intent(&self, audit: &Audit, used: &Record) -> Option<Violation> {
        let unannounced = |how| Some(Violation::Unannounced { hit: self.to_string(), how });
        let lease = used.text("lease_id");
        let strict = audit.named("issue", &lease).any(|issue| issue.text("count") == "0");
        let fits = |own: &Record| {
            let same =
                ["request_id", "lease_id", "session_id", "credential", "destination", "method", "path", "intent"];
            own.text("issued_to") == used.text("worker") && same.iter().all(|name| own.text(name) == used.text(name))
        };
        let own: Vec<_> = audit.named("intent", &used.text("request_id")).filter(|intent| fits(intent)).collect();
        match (strict, &own[..]) {
            (false, []) => None,
            (false, _) => unannounced("announced, though nothing asks for that"),
            (true, [intent]) if self.request.witness_len.is_none_or(|length| intent.end <= length) => None,
            (true, [_]) => unannounced("its intent was not in the log when the request arrived"),
            (true, []) => unannounced("no intent of its own"),
            (true, _) => unannounced("announced more than once"),
        }
    }

    /// A moment of this test's clock as records have it, in milliseconds since the epoch.
    pub(super) fn wall_ms_of(&self, moment: Instant) -> u64 {
        let before = self.request.at.saturating_duration_since(moment).as_millis();
        self.request.wall_ms.saturating_sub(u64::try_from(before).unwrap_or(u64::MAX))
    }

    pub(super) fn unasked(&self, why: &'static str) -> Violation {
        Violation::Unasked { hit: self.to_string(), why }
    }

    pub(super) fn expired(&self, lease: String, late_ms: u64) -> Violation {
        Violation::Expired { hit: self.to_string(), lease, late_ms }
    }

    pub(super) fn revoked(&self, used: &Record) -> Violation {
        Violation::Revoked { hit: self.to_string(), session: used.text("session") }
    }
}

/// Members of an issue, and those of the use that say the same.
const SAME: [(&str, &str); 5] = [
    ("destination", "destination"),
    ("issued_to", "worker"),
    ("session", "session"),
    ("access_mode", "access_mode"),
    ("fingerprint", "fingerprint"),
];

impl std::fmt::Display for Hit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Recorded { method, authority, path, .. } = &self.request;
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let (method, authority, path) = (escaped(method), escaped(authority), escaped(path));
        let id = self.request.request_id().unwrap_or_default();
        let (secret, upstream) = (&self.secret, &self.upstream.name);
        write!(f, "{method} {authority}{path} with the secret of {secret} at {upstream}, request {id:?}")
    }
}

/// Bytes as an audit record shows them after its JSON is read: one character a byte.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Whether an authority names this place: the same host, and the same port where it names one.
fn same_place(authority: &str, place: &str) -> bool {
    let ((host, port), (expected, expected_port)) = (host_and_port(authority), host_and_port(place));
    host == expected && (port.is_none() || expected_port.is_none() || port == expected_port)
}

fn host_and_port(authority: &str) -> (String, Option<String>) {
    let lower = authority.to_ascii_lowercase();
    let (host, port) = match lower.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port.to_owned())),
        _ => (&lower[..], None),
    };
    (host.strip_suffix('.').unwrap_or(host).to_owned(), port)
}
