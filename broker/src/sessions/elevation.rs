//! Elevation: more rights for a time, then the mode that a session has anyway.
//!
//! What is stored is the mode, and until when more is allowed: whatever becomes of the process, of
//! its timers or of its disk, a session whose time is over is what it was before.

use super::{Change, Session, SessionError, Sessions};
use crate::clock::Now;
use attache_core::policy::AccessMode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// No elevation is longer.
pub const MOST: Duration = Duration::from_secs(365 * 86_400);

/// How often the clocks are looked at while somebody is elevated: the wall clock may jump.
const LOOK: Duration = Duration::from_secs(1);

impl Sessions {
    /// A session as it is while it is elevated; not in force before [`Change::elevate`].
    pub fn elevated(session: &Session, length: Duration, now: Now) -> Result<Session, SessionError> {
        if session.access_mode == AccessMode::ReadWrite {
            return Err(SessionError::NothingToElevate(session.name.clone()));
        }
        if length.is_zero() || length > MOST {
            return Err(SessionError::NoElevation);
        }
        // Not beyond the session's own end.
        let until = now.plus(length.min(session.remaining(now)));
        Ok(Session { elevated_until: Some(until), ..session.clone() })
    }

    /// Waits until the time of some elevated sessions is over, and answers with them.
    pub async fn over(&self) -> Vec<Arc<Session>> {
        loop {
            let now = Now::read();
            let (over, left): (Vec<_>, Vec<_>) =
                self.marked().into_iter().partition(|session| session.elevation(now).is_zero());
            if !over.is_empty() {
                return over;
            }
            let told = self.elevated.notified();
            match left.iter().map(|session| session.elevation(now)).min() {
                None => told.await,
                // Told or not: look again.
                Some(next) => drop(tokio::time::timeout(next.min(LOOK), told).await),
            }
        }
    }

    /// The sessions that stand under their name and are marked as elevated, in time or not.
    fn marked(&self) -> Vec<Arc<Session>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = index.which(|session| session.elevated_until.is_some());
        all.retain(|session| index.named(&session.name).is_some_and(|now| now.id == session.id));
        all
    }
}

impl Change<'_> {
    /// Puts [an elevation](Sessions::elevated) in force, stored first: what is not stored would end
    /// unseen with the process.
    pub async fn elevate(&self, before: &Arc<Session>, elevated: Session) -> Result<Arc<Session>, SessionError> {
        let session = self.widen(before, elevated).await?;
        self.sessions.elevated.notify_one();
        Ok(session)
    }

    /// Takes the mark off a session whose elevation is over, unless an operator has changed it since.
    pub async fn settle(&self, over: &Session) -> Result<(), SessionError> {
        let until = |session: &Session| session.elevated_until.map(|until| until.wall_ms);
        let unchanged = self.sessions.named(&over.name).filter(|now| now.id == over.id && until(now) == until(over));
        let Some(before) = unchanged else { return Ok(()) };
        let settled = Arc::new(Session { elevated_until: None, ..(*before).clone() });
        self.sessions.index.write().unwrap_or_else(PoisonError::into_inner).swap(&before, settled);
        Ok(self.keep(&over.id).await?)
    }
}
