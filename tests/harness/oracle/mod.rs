//! The oracle: reconciles what upstreams received, what agents received, and what the audit says.
//!
//! Run it after every attack and every fault. It shares no code with what it judges: it reads the
//! audit log as the operator would, and verifies the chain by itself.

mod asker;
mod audit;
mod bindings;
mod evidence;
mod hits;
mod leaks;
#[cfg(test)]
mod tests;
mod violation;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use audit::{Audit, Record};
pub use evidence::Evidence;
pub use violation::Violation;

use crate::agent::{Agent, Ledger, Outcome};
use crate::rotated;
use crate::secrets::Secrets;
use crate::upstream::{Upstream, Watch};
use asker::Askers;
use bindings::WatchedUpstream;

/// Use records travel in batches: how long they may take to arrive.
const SETTLE: Duration = Duration::from_secs(5);

/// Watches one deployment.
#[derive(Default)]
pub struct Oracle {
    secrets: Secrets,
    ledger: Ledger,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    audit: Option<PathBuf>,
    upstreams: Vec<WatchedUpstream>,
    logs: Vec<(String, PathBuf)>,
    texts: Vec<(String, String)>,
    excused: Vec<String>,
    unmasked: Vec<String>,
    evidence: Option<Evidence>,
    variables: BTreeMap<String, String>,
}

impl Oracle {
    /// Knows these secrets, by the names of their credentials.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        Self { secrets: secrets.clone(), ..Self::default() }
    }

    /// An agent whose every byte and every request the oracle sees.
    #[must_use]
    pub fn agent(&self) -> Agent {
        Agent::writing_to(&self.ledger)
    }

    /// The audit log. Without one, any credential that reaches an upstream is a violation.
    pub fn audit(&self, path: impl Into<PathBuf>) {
        self.watched().audit = Some(path.into());
    }

    /// An upstream, and the only credentials that may arrive there, each with the `host:port` it is
    /// bound to: the authority and the TLS name it must come with, and the [door] where there are
    /// several. From now on the upstream looks for this oracle's secrets, and has the audit log, which
    /// must be known before, as its witness: so it proves that the issue was on record when the request
    /// arrived.
    ///
    /// [door]: crate::upstream::Builder::doors
    ///
    /// # Panics
    /// When it has received requests unwatched.
    pub fn upstream(&self, name: &str, upstream: &Upstream, bound: &[(&str, &str)]) {
        let mut watched = self.watched();
        upstream.records().watch(Watch { secrets: self.secrets.clone(), witness: watched.audit.clone() });
        watched.upstreams.push(WatchedUpstream::new(name, upstream, bound));
    }

    /// Who is who. From then on each hit must be the doing of a watched agent that showed what belongs
    /// to the session on record.
    pub fn evidence(&self, evidence: &Evidence) {
        self.watched().evidence = Some(evidence.clone());
    }

    /// Agents have a placeholder of this credential in this variable.
    pub fn exports(&self, credential: &str, variable: &str) {
        self.watched().variables.insert(variable.to_owned(), credential.to_owned());
    }

    /// A log file that must hold no secret.
    pub fn log(&self, name: &str, path: impl Into<PathBuf>) {
        self.watched().logs.push((name.to_owned(), path.into()));
    }

    /// A text that must hold no secret: a config dump, metrics, a process's output.
    pub fn text(&self, name: &str, text: impl Into<String>) {
        self.watched().texts.push((name.to_owned(), text.into()));
    }

    /// Requests whose first line contains this may stay unanswered, or have an answer that is reset or
    /// cut off.
    pub fn excuse(&self, first_line: &str) {
        self.watched().excused.push(first_line.to_owned());
    }

    /// Agents may receive this credential: its echoes are not masked.
    pub fn unmasked(&self, credential: &str) {
        self.watched().unmasked.push(credential.to_owned());
    }

    /// Waits until everything adds up.
    ///
    /// # Panics
    /// With a readable account, when something cannot add up or does not within seconds.
    pub async fn reconcile(&self) {
        let end = Instant::now() + SETTLE;
        loop {
            let violations = self.violations();
            if violations.is_empty() {
                return;
            }
            let hopeless = violations.iter().any(|violation| !violation.may_heal());
            if hopeless || Instant::now() > end {
                let account: Vec<String> = violations.iter().map(|violation| format!("  - {violation}")).collect();
                panic!("{} violation(s):\n{}", violations.len(), account.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What does not add up at this moment.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let watched = self.watched();
        let (audit, mut violations) = Audit::read(watched.audit.as_deref());
        let askers = |evidence| Askers::new(evidence, &watched.variables, &self.ledger);
        let askers = watched.evidence.as_ref().map(askers);
        violations.extend(hits::reconcile(&watched.upstreams, &audit, askers.as_ref()));
        violations.extend(self.unanswered(&watched.excused, &audit));
        for transcript in self.ledger.transcripts() {
            let mut leaks = leaks::in_transcript(&self.secrets, &transcript);
            leaks.retain(|leak| !matches!(leak, Violation::Leak { secret, .. } if watched.unmasked.contains(secret)));
            violations.extend(leaks);
        }
        let files = watched.logs.iter().map(|(name, path)| (name.as_str(), path));
        for (name, path) in files.chain(watched.audit.as_ref().map(|path| ("the audit log", path))) {
            let bytes = rotated::read(path);
            violations.extend(leaks::in_bytes(&self.secrets, name, &bytes));
        }
        for (name, text) in &watched.texts {
            violations.extend(leaks::in_bytes(&self.secrets, name, text.as_bytes()));
        }
        violations
    }

    /// Requests without a whole answer, but for those that were cut off on purpose: then the record of
    /// their use says why.
    fn unanswered(&self, excused: &[String], audit: &Audit) -> Vec<Violation> {
        let cut_on_purpose = |id: &String| audit.named("use", id).any(|used| !used.text("reason").is_empty());
        let mut violations = Vec::new();
        for transcript in self.ledger.transcripts() {
            for exchange in transcript.exchanges() {
                let what = format!("{} ({})", exchange.what, transcript.label());
                let excused = excused.iter().any(|part| exchange.what.contains(part));
                match exchange.outcome {
                    _ if excused => {}
                    Outcome::Cut(_) if exchange.recorded_as.as_ref().is_some_and(cut_on_purpose) => {}
                    Outcome::Pending => violations.push(Violation::Unanswered { what, why: None }),
                    Outcome::Lost(why) => violations.push(Violation::Unanswered { what, why: Some(why) }),
                    Outcome::Refused(why) => violations.push(Violation::Unanswered { what, why: Some(why) }),
                    Outcome::Cut(status) => {
                        let why = Some(format!("the answer {status} {}", violation::CUT));
                        violations.push(Violation::Unanswered { what, why });
                    }
                    Outcome::Answered(_) | Outcome::Aborted => {}
                }
            }
        }
        violations
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
