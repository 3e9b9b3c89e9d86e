//! Sessions by id, by name, and by the digests of what they show.

use super::Session;
use attache_core::digest::Digest;
use attache_core::names::Name;
use std::collections::HashMap;
use std::sync::Arc;

/// Finds sessions.
#[derive(Default)]
pub struct Index {
    by_id: HashMap<String, Arc<Session>>,
    /// The one that has not ended.
    by_name: HashMap<Name, String>,
    by_evidence: HashMap<Digest, Holder>,
}

struct Holder {
    session_id: String,
    /// `None`: a session token.
    credential: Option<Name>,
}

impl Index {
    /// Enters a session, in the place of what it was before, with its placeholders and its token.
    pub fn enter(&mut self, session: Arc<Session>, evidence: impl Iterator<Item = (String, Option<Name>)>) {
        if session.ended_ms.is_none() {
            self.by_name.insert(session.name.clone(), session.id.clone());
        } else if self.by_name.get(&session.name) == Some(&session.id) {
            self.by_name.remove(&session.name);
        }
        for (text, credential) in evidence {
            let holder = Holder { session_id: session.id.clone(), credential };
            self.by_evidence.insert(Digest::of(text.as_bytes()), holder);
        }
        self.by_id.insert(session.id.clone(), session);
    }

    /// Puts a session in the place of what it was before, if that is what it is still.
    pub fn swap(&mut self, before: &Arc<Session>, session: Arc<Session>) -> bool {
        let unchanged = self.by_id.get(&before.id).is_some_and(|now| Arc::ptr_eq(now, before));
        if unchanged {
            self.enter(session, std::iter::empty());
        }
        unchanged
    }

    /// The session with this id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Session>> {
        self.by_id.get(id).cloned()
    }

    /// Whose placeholder (of which credential) or token this is.
    pub fn holder(&self, digest: &Digest) -> Option<(Arc<Session>, Option<Name>)> {
        let holder = self.by_evidence.get(digest)?;
        Some((self.by_id.get(&holder.session_id)?.clone(), holder.credential.clone()))
    }

    /// The session of this name that has not been ended; it may have expired.
    pub fn named(&self, name: &Name) -> Option<Arc<Session>> {
        self.by_id.get(self.by_name.get(name)?).cloned()
    }

    /// Forgets what was over before `before_ms` (Unix milliseconds).
    pub fn forget(&mut self, before_ms: u64) {
        let Self { by_id, by_name, by_evidence } = self;
        by_id.retain(|_, session| session.over_ms().is_none_or(|over| over >= before_ms));
        by_name.retain(|_, id| by_id.contains_key(id));
        by_evidence.retain(|_, holder| by_id.contains_key(&holder.session_id));
    }

    /// Those of which this holds. Ten thousand are looked through without one being copied.
    pub fn which(&self, holds: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.by_id.values().filter(|session| holds(session)).cloned().collect()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.by_id.values().cloned().collect()
    }
}
