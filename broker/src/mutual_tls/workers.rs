//! Whose worker is whose: a worker's id belongs to the peer that first used it. Nobody acknowledges, or tells
//! what was done, in another's name.

use crate::config::PeerId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Workers that one peer may have at once: replicas times threads. Fewer than the feed takes of all together.
const MOST_OF_PEER: usize = 1024;
/// The same of a peer that is held to sessions: it has no more than one Envoy or a few.
const MOST_OF_SIDECAR: usize = 64;
/// A worker that has said nothing for so long makes way for another of its peer.
const QUIET: Duration = Duration::from_secs(600);

/// The worker is another's, or one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotYours {
    /// Somebody else used it first.
    #[error("this worker is another peer's")]
    Anothers,
    /// One too many.
    #[error("this peer has as many workers as it may")]
    TooMany,
}

/// The workers of one life of the broker.
#[derive(Default)]
pub struct Workers(Mutex<State>);

#[derive(Default)]
struct State {
    owners: HashMap<String, Owned>,
    counts: HashMap<PeerId, usize>,
}

struct Owned {
    by: PeerId,
    used: Instant,
}

impl Workers {
    /// Whether a worker is this peer's; nobody's becomes his.
    pub fn claim(&self, worker: &str, peer: &PeerId, narrow: bool) -> Result<(), NotYours> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let most = if narrow { MOST_OF_SIDECAR } else { MOST_OF_PEER };
        if let Some(owned) = state.owners.get_mut(worker) {
            if owned.by != *peer {
                return Err(NotYours::Anothers);
            }
            owned.used = now;
            return Ok(());
        }
        if state.counts.get(peer).is_some_and(|count| *count >= most) {
            state.make_way(peer, now)?;
        }
        state.owners.insert(worker.to_owned(), Owned { by: peer.clone(), used: now });
        *state.counts.entry(peer.clone()).or_default() += 1;
        Ok(())
    }
}

impl State {
    /// Forgets the peer's worker that has been quiet for longest.
    fn make_way(&mut self, peer: &PeerId, now: Instant) -> Result<(), NotYours> {
        let own = self.owners.iter().filter(|(_, owned)| owned.by == *peer);
        let oldest = own.min_by_key(|(_, owned)| owned.used).map(|(id, owned)| (id.clone(), owned.used));
        let (id, _) = oldest.filter(|(_, used)| now.duration_since(*used) >= QUIET).ok_or(NotYours::TooMany)?;
        self.owners.remove(&id);
        if let Some(count) = self.counts.get_mut(peer) {
            *count -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        format!("spiffe://test/{name}").parse().unwrap()
    }

    #[test]
    fn a_worker_is_whose_it_was_first() {
        let (workers, one, other) = (Workers::default(), peer("one"), peer("other"));
        assert_eq!(workers.claim("0000000a", &one, false), Ok(()));
        assert_eq!(workers.claim("0000000a", &one, false), Ok(()));
        assert_eq!(workers.claim("0000000a", &other, false), Err(NotYours::Anothers));
        assert_eq!(workers.claim("0000000b", &other, false), Ok(()));
    }

    #[test]
    fn a_peer_that_makes_workers_up_takes_none_from_others() {
        let (workers, one, other) = (Workers::default(), peer("one"), peer("other"));
        workers.claim("ffffffff", &other, false).unwrap();
        for n in 0..MOST_OF_PEER {
            workers.claim(&format!("{n:08x}"), &one, false).unwrap();
        }
        assert_eq!(workers.claim("eeeeeeee", &one, false), Err(NotYours::TooMany));
        assert_eq!(workers.claim("00000001", &one, false), Ok(()));
        assert_eq!(workers.claim("eeeeeeee", &other, false), Ok(()));
        assert_eq!(workers.claim("ffffffff", &one, false), Err(NotYours::Anothers));
        let sidecar = peer("sidecar");
        let taken = (0..MOST_OF_PEER).filter(|n| workers.claim(&format!("a{n:07x}"), &sidecar, true).is_ok());
        assert_eq!(taken.count(), MOST_OF_SIDECAR);
    }
}
