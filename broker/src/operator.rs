//! What an operator does to sessions: recorded, stored, in force, and told to every worker.
//!
//! More rights are given only after the record of it is durable. Rights are taken away whatever the
//! disk says: first in memory and at the workers, then on record.

use crate::audit::{AuditLog, Kind, Record, Unavailable};
use crate::changes::{Applied, Feed, Scope};
use crate::clock::Now;
use crate::publication::Publication;
use crate::sessions::{NewSession, Session, SessionError, Sessions};
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use std::sync::Arc;
use std::time::Duration;

/// How long giving more rights waits for the workers: nobody is harmed by a late one.
const BRIEF: Duration = Duration::from_secs(1);

/// Why an operator's wish was not done, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The session cannot be made or changed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No record, no new rights.
    #[error(transparent)]
    Audit(#[from] Unavailable),
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// The session as it is now.
    pub session: Arc<Session>,
    /// Where the change is in force.
    pub applied: Applied,
    /// Whether the change is on record; only taking rights away goes on without.
    pub recorded: bool,
}

/// Acts for the operator.
pub struct Operator {
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// Tells the workers.
    pub feed: Arc<Feed>,
    /// What filters read, which a new session may add to.
    pub policy: Arc<Publication>,
    /// The record.
    pub audit: Arc<AuditLog>,
    /// After this long a worker that does not answer injects nothing.
    pub stale_after: Duration,
}

impl Operator {
    /// Makes a session.
    pub async fn create(&self, new: NewSession) -> Result<Arc<Session>, OperatorError> {
        let now = Now::read();
        let session = self.sessions.draft(new, now)?;
        // Nobody is held still meanwhile: a revocation never waits for a new session's record.
        self.audit.append(record(Kind::Mode, "create", &session, now)).await?;
        self.policy.demand(&session.bind);
        Ok(self.sessions.change().await.begin(session, now).await?)
    }

    /// Sets what a session may do.
    pub async fn set_access_mode(&self, name: &Name, mode: AccessMode) -> Result<Done, OperatorError> {
        let now = Now::read();
        let change = self.sessions.change().await;
        let session = self.sessions.live(name, now)?;
        let record = record(Kind::Mode, "set", &Session { access_mode: mode, ..(*session).clone() }, now);
        match mode {
            AccessMode::ReadOnly => {
                let stored = change.set_access_mode(&session, mode).await;
                drop(change);
                self.taken_away(stored, &session.id, record).await
            }
            AccessMode::ReadWrite => {
                self.audit.append(record).await?;
                let session = change.set_access_mode(&session, mode).await?;
                drop(change);
                let cursor = self.feed.publish(Scope::Session(&session.id));
                Ok(Done { session, applied: self.feed.applied(cursor, BRIEF).await, recorded: true })
            }
        }
    }

    /// Ends a session.
    pub async fn revoke(&self, name: &Name) -> Result<Done, OperatorError> {
        let now = Now::read();
        let change = self.sessions.change().await;
        let session = self.sessions.live(name, now)?;
        let stored = change.revoke(&session, now).await;
        drop(change);
        self.taken_away(stored, &session.id, record(Kind::Revoke, "end", &session, now)).await
    }

    /// Tells the workers, whether or not the change could be stored, and waits for them.
    async fn taken_away(
        &self,
        stored: Result<Arc<Session>, SessionError>,
        session_id: &str,
        record: Record,
    ) -> Result<Done, OperatorError> {
        let cursor = self.feed.publish(Scope::Session(session_id));
        let (applied, recorded) = tokio::join!(self.feed.applied(cursor, self.stale_after), self.audit.append(record));
        Ok(Done { session: stored?, applied, recorded: recorded.is_ok() })
    }
}

/// The record of what was done to a session.
pub fn record(kind: Kind, decision: &str, session: &Session, now: Now) -> Record {
    Record {
        session_id: Some(session.id.clone()),
        session: Some(session.name.clone()),
        decision: Some(decision.into()),
        access_mode: Some(session.access_mode),
        ..Record::new(kind, now.wall_ms)
    }
}
