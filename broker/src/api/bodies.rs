//! How much of bodies each Envoy may have under way: one that sends as much as its connections hold fills no memory,
//! and waits for itself alone.

use crate::grants::Asker;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted, in bytes.
const UNIT: usize = 1024;
/// The longest body that any route takes, in bytes; one that does not say how long it is counts as that.
pub(super) const LONGEST: usize = attache_core::wire::MOST_AUDIT_BYTES;
/// What an Envoy may have under way, in bytes.
const OF_ENVOY: usize = 16 * LONGEST;
/// The same of one that is held to sessions.
const OF_SIDECAR: usize = 2 * LONGEST;

/// Who has how much left. There are as many as there are peers in the config.
#[derive(Default)]
pub(super) struct Bodies(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Bodies {
    /// Room for a body, as soon as there is; until it is dropped. Whoever calls bounds the wait.
    pub async fn room(&self, asker: &Asker, length: Option<usize>) -> Option<OwnedSemaphorePermit> {
        let units = length.unwrap_or(LONGEST).min(LONGEST).div_ceil(UNIT).max(1);
        let semaphore = self.of(asker);
        // The semaphore is never closed.
        semaphore.acquire_many_owned(u32::try_from(units).ok()?).await.ok()
    }

    fn of(&self, asker: &Asker) -> Arc<Semaphore> {
        let owner = asker.peer.as_ref().map(ToString::to_string).unwrap_or_default();
        let most = if asker.sight.is_narrow() { OF_SIDECAR } else { OF_ENVOY };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(owner).or_insert_with(|| Arc::new(Semaphore::new(most / UNIT))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Sight;
    use std::time::Duration;

    fn asker(id: &str, sight: Sight) -> Asker {
        Asker { sight, peer: Some(id.parse().unwrap()) }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_bodies_without_end_waits_for_himself_alone() {
        let (bodies, soon) = (Bodies::default(), Duration::from_millis(1));
        let (greedy, other) =
            (asker("spiffe://test/greedy", Sight::These(Arc::default())), asker("spiffe://test/other", Sight::All));
        let mut held = Vec::new();
        // Some say how long they are, and some do not.
        while let Ok(Some(room)) =
            tokio::time::timeout(soon, bodies.room(&greedy, [None, Some(LONGEST)][held.len() % 2])).await
        {
            held.push(room);
        }
        assert_eq!(held.len() * LONGEST, OF_SIDECAR);
        assert!(tokio::time::timeout(soon, bodies.room(&greedy, Some(0))).await.is_err());
        assert!(tokio::time::timeout(soon, bodies.room(&other, None)).await.is_ok());
        held.pop();
        assert!(tokio::time::timeout(soon, bodies.room(&greedy, Some(10))).await.is_ok());
    }
}
