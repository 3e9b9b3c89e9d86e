//! Who asked for a hit: the agent's own request, and whether the session on record is its.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::audit::{Audit, Record};
use super::evidence::{self, Evidence, Kind, Known};
use super::hits::{Hit, ROUNDING_MS};
use super::violation::Violation;
use crate::agent::{Exchange, Ledger};

/// Every request of the watched agents, and what they have shown.
pub(super) struct Askers {
    known: Vec<Known>,
    variables: BTreeMap<String, String>,
    asked: Vec<Asked>,
    /// Where in `asked` the request is whose hit has this name.
    recorded: HashMap<String, usize>,
}

/// One request of an agent.
struct Asked {
    at: Instant,
    ended: Option<Instant>,
    shown: Vec<String>,
    /// The label of its connection.
    connection: String,
    recorded_as: Option<String>,
}

/// Where an agent has its session token, which stands for no credential.
const TOKEN: &str = "ATTACHE_SESSION_TOKEN";

/// The default `stale_after`, in milliseconds: longer serves nobody who is revoked, whether the
/// test knows when the command returned or not.
const STALE_AFTER_MS: u64 = 10_000;
/// What was sent upstream before an answer ended may lie there unread for so long: this test runs on a busy machine.
const UNREAD: Duration = Duration::from_secs(1);

impl Askers {
    /// `variables` says for which credential each variable holds a placeholder.
    pub(super) fn new(evidence: &Evidence, variables: &BTreeMap<String, String>, ledger: &Ledger) -> Self {
        let known = evidence.known();
        let jwts: Vec<&String> =
            known.iter().filter(|known| known.kind == Kind::Jwt).map(|known| &known.text).collect();
        let asked = |label: &str, Exchange { at, ended, sent, recorded_as, .. }| {
            let jwts = jwts.iter().filter(|jwt| memchr::memmem::find(&sent, jwt.as_bytes()).is_some());
            // A connection's label says what it was opened with.
            let before = evidence::shown(label.as_bytes());
            let shown = evidence::shown(&sent).into_iter().chain(before).chain(jwts.map(|jwt| (*jwt).clone()));
            Asked { at, ended, shown: shown.collect(), connection: label.to_owned(), recorded_as }
        };
        let mut all = Vec::new();
        for transcript in ledger.transcripts() {
            all.extend(transcript.exchanges().into_iter().map(|exchange| asked(transcript.label(), exchange)));
        }
        let named = all.iter().enumerate().rev();
        let recorded = named.filter_map(|(at, asked)| Some((asked.recorded_as.clone()?, at))).collect();
        Self { variables: variables.clone(), asked: all, recorded, known }
    }

    /// The agent's request of this hit: the one whose answer bore the hit's name, or, when no answer
    /// came through, any that was under way.
    pub(super) fn judge(&self, hit: &Hit<'_>, used: &Record, audit: &Audit) -> Option<Violation> {
        let named = hit.request.request_id().and_then(|id| self.recorded.get(&id));
        if let Some(at) = named {
            return self.fits(&self.asked[*at], hit, used, audit).err();
        }
        let mut nearest = None;
        let unnamed = self.asked.iter().filter(|asked| asked.recorded_as.is_none());
        for asked in unnamed.filter(|asked| asked.was_under_way(hit.request.at)) {
            match self.fits(asked, hit, used, audit) {
                Ok(()) => return None,
                Err(why) => nearest = Some(why),
            }
        }
        Some(nearest.unwrap_or_else(|| hit.unasked("no request of an agent was under way")))
    }

    fn fits(&self, asked: &Asked, hit: &Hit<'_>, used: &Record, audit: &Audit) -> Result<(), Violation> {
        let lease = used.text("lease_id");
        let issue = audit.named("issue", &lease).next();
        match issue.and_then(|issue| issue.json.get("asked")) {
            Some(digests) => granted_for(asked, digests).map_err(|why| hit.unasked(why))?,
            None => self.belongs(asked, hit, used)?,
        }
        let begun = hit.wall_ms_of(asked.at);
        let end = issue.and_then(|issue| Some(issue.at_ms()? + issue.ttl_ms()?));
        if let Some(end) = end.filter(|end| begun > end + ROUNDING_MS) {
            return Err(hit.expired(lease, begun - end));
        }
        let ended = audit.named("revoke", &used.text("session_id")).next().and_then(Record::at_ms);
        if ended.is_some_and(|ended| begun > ended + STALE_AFTER_MS) {
            return Err(hit.revoked(used));
        }
        Ok(())
    }

    /// What was shown is known to the test, and belongs to the session and credential on record.
    fn belongs(&self, asked: &Asked, hit: &Hit<'_>, used: &Record) -> Result<(), Violation> {
        let mut known: Vec<&Known> = self.known.iter().filter(|known| asked.shown.contains(&known.text)).collect();
        if asked.shown.is_empty() {
            // Nothing in the request: then the connection may speak for it.
            let speaks = |known: &&Known| known.kind == Kind::Connection && asked.connection.contains(&known.text);
            known.extend(self.known.iter().filter(speaks));
        }
        if known.is_empty() {
            return Err(hit.unasked("the agent showed nothing that the test knows"));
        }
        for known in known {
            if known.session != used.text("session") {
                return Err(hit.unasked("what the agent showed is another session's"));
            }
            if let Kind::Given(variable) = &known.kind
                && variable != TOKEN
                && self.variables.get(variable) != Some(&used.text("credential"))
            {
                return Err(hit.unasked("what the agent showed stands for another credential"));
            }
            if known.over.is_some_and(|over| over < asked.at) {
                return Err(hit.revoked(used));
            }
        }
        Ok(())
    }
}

impl Asked {
    /// Whether it had begun by then, and not ended: where no end was seen, it may have gone on.
    fn was_under_way(&self, then: Instant) -> bool {
        self.at <= then && self.ended.is_none_or(|ended| then <= ended + UNREAD)
    }
}

/// A broker that holds no session says for which evidence it granted.
fn granted_for(asked: &Asked, digests: &serde_json::Value) -> Result<(), &'static str> {
    let hex = |text: &String| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let shown: Vec<String> = asked.shown.iter().map(hex).collect();
    let wanted = ["placeholder", "session_token"].map(|kind| digests[kind].as_str());
    let all = wanted.into_iter().flatten().all(|digest| shown.iter().any(|own| own == digest));
    if all && wanted != [None, None] { Ok(()) } else { Err("it was granted for something that the agent did not show") }
}
