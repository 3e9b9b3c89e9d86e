//! The oracle: reconciles what upstreams received, what agents received, and what the audit says.
//!
//! Run it after every attack and every fault. It shares no code with what it judges: it reads the
//! audit log as the operator would, and verifies the chain by itself.

mod audit;
mod hits;
mod leaks;
#[cfg(test)]
mod tests;
mod violation;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use audit::{Audit, Record};
pub use violation::Violation;

use crate::agent::{Agent, Ledger, Outcome};
use crate::secrets::Secrets;
use crate::upstream::{Recorded, Upstream};

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
}

/// An upstream and the credentials that are bound to it.
struct WatchedUpstream {
    name: String,
    bound: Vec<String>,
    requests: Arc<dyn Fn() -> Vec<Recorded> + Send + Sync>,
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

    /// An upstream, and the only credentials that may arrive there. It must know the same secrets;
    /// with the audit log as its [witness](crate::upstream::Builder::witness) it also proves that
    /// the issue record was written before the request arrived.
    pub fn upstream(&self, name: &str, upstream: &Upstream, bound: &[&str]) {
        let records = upstream.records();
        self.watched().upstreams.push(WatchedUpstream {
            name: name.to_owned(),
            bound: bound.iter().map(ToString::to_string).collect(),
            requests: Arc::new(move || records.requests()),
        });
    }

    /// A log file that must hold no secret.
    pub fn log(&self, name: &str, path: impl Into<PathBuf>) {
        self.watched().logs.push((name.to_owned(), path.into()));
    }

    /// A text that must hold no secret: a config dump, metrics, a process's output.
    pub fn text(&self, name: &str, text: impl Into<String>) {
        self.watched().texts.push((name.to_owned(), text.into()));
    }

    /// Requests whose first line contains this may stay unanswered.
    pub fn excuse(&self, first_line: &str) {
        self.watched().excused.push(first_line.to_owned());
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
        violations.extend(hits::reconcile(&watched.upstreams, &audit));
        violations.extend(self.unanswered(&watched.excused));
        for transcript in self.ledger.transcripts() {
            violations.extend(leaks::in_transcript(&self.secrets, &transcript));
        }
        let files = watched.logs.iter().map(|(name, path)| (name.as_str(), path));
        for (name, path) in files.chain(watched.audit.as_ref().map(|path| ("the audit log", path))) {
            let bytes = std::fs::read(path).unwrap_or_default();
            violations.extend(leaks::in_bytes(&self.secrets, name, &bytes));
        }
        for (name, text) in &watched.texts {
            violations.extend(leaks::in_bytes(&self.secrets, name, text.as_bytes()));
        }
        violations
    }

    fn unanswered(&self, excused: &[String]) -> Vec<Violation> {
        let mut violations = Vec::new();
        for transcript in self.ledger.transcripts() {
            for exchange in transcript.exchanges() {
                let what = format!("{} ({})", exchange.what, transcript.label());
                let excused = excused.iter().any(|part| exchange.what.contains(part));
                match exchange.outcome {
                    _ if excused => {}
                    Outcome::Pending => violations.push(Violation::Unanswered { what, why: None }),
                    Outcome::Lost(why) => violations.push(Violation::Unanswered { what, why: Some(why) }),
                    Outcome::Answered(_) | Outcome::Refused(_) | Outcome::Aborted => {}
                }
            }
        }
        violations
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
