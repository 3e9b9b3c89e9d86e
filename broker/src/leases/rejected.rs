//! Secrets that their service no longer takes: a use of one was answered 401 (RFC 9110, 15.5.2).
//!
//! Who changes a secret at its service and in its source need not wait until the source is asked the next time: the
//! first use that is answered 401 has it asked at once. The request itself is not sent again: what it did is not known
//! here. An agent can make a service answer 401, so a source is asked for that once a minute, and half as often each
//! time it has nothing new: questions may be counted where it stands.

use super::slot::Slot;
use super::{Leases, Scope};
use attache_core::names::Name;
use attache_core::wire::UseRecord;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};

/// The status that says so.
const UNAUTHORIZED: u16 = 401;
/// How soon a source is asked again, at first, and at most.
const AGAIN: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(60 * 60);
/// Credentials that may wait until their sources are asked. One that finds no room is asked after the next 401.
const WAITING: usize = 256;

/// What is to be asked for anew: a credential, and of which session where each has its own.
type Rejected = (Name, Option<String>);

/// Those that wait.
#[derive(Debug)]
pub(super) struct Rejections {
    sender: mpsc::Sender<Rejected>,
    receiver: Mutex<mpsc::Receiver<Rejected>>,
}

/// A secret that took the place of one which its service rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The credential.
    pub credential: Name,
    /// The service that it is for.
    pub service: String,
    /// The session's id, where each has its own.
    pub session_id: Option<String>,
    /// The fingerprint of the secret that is in force now; `None`: there is none any more.
    pub fingerprint: Option<String>,
    /// That of the one that was rejected.
    pub replaced: String,
}

/// When a source may be asked because a service has rejected what it gave.
#[derive(Debug, Default)]
pub struct Pace(std::sync::Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    last: Option<Instant>,
    /// How often it had nothing new, one time after the other.
    fruitless: u32,
}

impl Pace {
    /// Whether it may be asked now; then it is.
    fn is_due(&self, now: Instant) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = AGAIN.saturating_mul(1 << asked.fruitless.min(8)).min(MOST);
        let is_due = asked.last.is_none_or(|last| now.saturating_duration_since(last) >= pause);
        if is_due {
            asked.last = Some(now);
        }
        is_due
    }

    /// Whether it had something new.
    fn note(&self, changed: bool) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.fruitless = if changed { 0 } else { asked.fruitless.saturating_add(1) };
    }
}

impl Default for Rejections {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl Leases {
    /// Hears of a use. Where its service has rejected the secret that is in force, its source will be asked.
    /// Never waits.
    pub fn heard(&self, record: &UseRecord) {
        if record.response_code != UNAUTHORIZED || !record.auth_injected {
            return;
        }
        let (Some(credential), Some(fingerprint)) = (&record.credential, &record.fingerprint) else { return };
        let session_id = record.session_id.clone().filter(|_| self.apart.contains_key(credential));
        let own = self.own(credential, session_id.as_deref());
        let Some(slot) = own.as_deref().or_else(|| self.slots.get(credential)) else { return };
        let is_in_force = slot.current().is_ok_and(|version| version.fingerprint == *fingerprint);
        if is_in_force && slot.pace.is_due(Instant::now()) {
            // Whatever finds no room comes again.
            let _ = self.rejections.sender.try_send((credential.clone(), session_id));
        }
    }

    /// Waits for a secret that was rejected, asks its source, and makes a change known. Answers with the change;
    /// `None`: there is no other one.
    pub async fn renew_rejected(&self) -> Option<Renewed> {
        let (credential, session_id) = self.rejections.receiver.lock().await.recv().await?;
        let own = self.own(&credential, session_id.as_deref());
        let slot = own.as_deref().or_else(|| self.slots.get(&credential))?;
        let replaced = slot.current().ok()?.fingerprint.clone();
        let changed = self.renew(&credential, slot).await;
        slot.pace.note(changed);
        if !changed {
            tracing::warn!(%credential, "an upstream answers 401, and the credential's source has no other secret");
            return None;
        }
        let scope = match &session_id {
            Some(id) => Scope::Renewed(id),
            None => Scope::Credential(&credential),
        };
        let cursor = self.feed.publish(scope);
        slot.told(cursor);
        self.feed.follow(cursor, format!("credential {credential}, which an upstream rejected, on every worker"));
        let fingerprint = slot.current().ok().map(|version| version.fingerprint.clone());
        let service = slot.service().to_owned();
        Some(Renewed { credential, service, session_id, fingerprint, replaced })
    }

    /// What this session has of a credential of which each has its own.
    fn own(&self, credential: &Name, session_id: Option<&str>) -> Option<Arc<Slot>> {
        let loaded = self.apart.get(credential)?.loaded();
        loaded.into_iter().find(|(id, _)| Some(&**id) == session_id).map(|(_, slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_nothing_new_is_asked_half_as_often_each_time() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut asked = Vec::new();
        for second in 0..6 * 3600 {
            if pace.is_due(start + Duration::from_secs(second)) {
                pace.note(false);
                asked.push(second);
            }
        }
        let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses, [120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]);
        pace.note(true);
        assert!(!pace.is_due(start + Duration::from_secs(asked[9] + 59)));
        assert!(pace.is_due(start + Duration::from_secs(asked[9] + 60)));
    }
}
