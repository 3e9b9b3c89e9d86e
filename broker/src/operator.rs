//! What an operator does to sessions and credentials: recorded, stored, in force, and told to every worker.
//!
//! More rights are given only after the record of it is durable. Rights are taken away whatever the
//! disk says: first in memory and at the workers, then on record.

mod hold;

pub use hold::{HELD, Release};

use crate::audit::{AuditLog, Decision, Kind, Record, Unavailable};
use crate::changes::{Applied, Feed, Scope};
use crate::clock::{Now, rfc3339};
use crate::leases::{Leases, Standing};
use crate::publication::Publication;
use crate::sessions::{NewSession, Session, SessionError, Sessions};
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use std::sync::Arc;
use std::time::Duration;

/// How long giving more rights waits for the workers: nobody is harmed by a late one.
const BRIEF: Duration = Duration::from_secs(1);

/// How often the end of an elevation is told to a log, or a database, that cannot be written.
const RETRY: Duration = Duration::from_secs(1);

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
    /// The credentials.
    pub leases: Arc<Leases>,
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
        self.audit.append(record(Kind::Mode, Decision::Create, &session, now)).await?;
        self.policy.demand(&session.bind);
        let session = self.sessions.change().await.begin(session, now).await?;
        self.told_rivals(&session).await;
        Ok(session)
    }

    /// What only a connection named, and now names two, is in conflict: at once for who asks anew, and
    /// for who was granted something before when this returns.
    async fn told_rivals(&self, session: &Session) {
        let all = self.sessions.all();
        let told = session.rivals(&all, Now::read()).map(|rival| {
            tracing::warn!(session = %session.name, rival = %rival.name, "one connection names both sessions");
            self.feed.publish(Scope::Rivalled(&rival.id))
        });
        if let Some(cursor) = told.max() {
            let (applied, ()) =
                tokio::join!(self.feed.applied(cursor, self.stale_after), self.feed.written(cursor, BRIEF));
            tracing::info!(session = %session.name, %applied, "its rivals were told");
        }
    }

    /// Sets what a session may do.
    pub async fn set_access_mode(&self, name: &Name, mode: AccessMode) -> Result<Done, OperatorError> {
        let now = Now::read();
        let set = |session: &Session| Session { access_mode: mode, elevated_until: None, ..session.clone() };
        match mode {
            AccessMode::ReadOnly => {
                let session = self.sessions.narrow(name, now, set)?;
                let scope = Scope::Narrowed(&session.id);
                self.taken_away(&session, scope, record(Kind::Mode, Decision::Set, &session, now)).await
            }
            AccessMode::ReadWrite => {
                let change = self.sessions.change().await;
                let before = self.sessions.live(name, now)?;
                let wider = set(&before);
                self.audit.append(record(Kind::Mode, Decision::Set, &wider, now)).await?;
                let session = change.widen(&before, wider).await?;
                drop(change);
                Ok(self.given(session).await)
            }
        }
    }

    /// Looks for another version of a credential, and returns when no worker uses one of before.
    pub async fn reload(&self, credential: &Name) -> Option<(Standing, Applied)> {
        let (standing, cursor) = self.leases.reload(credential).await?;
        let (applied, ()) = tokio::join!(self.feed.applied(cursor, self.stale_after), self.feed.written(cursor, BRIEF));
        Some((standing, applied))
    }

    /// Lets a read-only session read and write for a time. [`Self::revert`] ends it.
    pub async fn elevate(&self, name: &Name, length: Duration) -> Result<Done, OperatorError> {
        let now = Now::read();
        let change = self.sessions.change().await;
        let before = self.sessions.live(name, now)?;
        let elevated = Sessions::elevated(&before, length, now)?;
        self.audit.append(elevation(Decision::Elevate, &elevated, now)).await?;
        let session = change.elevate(&before, elevated).await?;
        drop(change);
        Ok(self.given(session).await)
    }

    /// Ends elevations when their time is over, for ever. The sessions themselves end them, and no
    /// lease outlives one: what is left is to tell the workers, the audit log and the database.
    pub async fn revert(&self) {
        loop {
            let over = self.sessions.over().await;
            let told = over.iter().map(|session| self.feed.publish(Scope::Narrowed(&session.id))).max();
            let applied = self.feed.applied(told.unwrap_or_default(), self.stale_after).await;
            for session in over {
                let Applied { applied, total, took_ms, .. } = applied;
                tracing::info!(session = %session.name, applied, total, took_ms, "an elevation is over");
                // On record first: who dies in between does it once more, and never leaves it out.
                while self.audit.append(elevation(Decision::Revert, &session, Now::read())).await.is_err() {
                    tokio::time::sleep(RETRY).await;
                }
                while let Err(error) = self.sessions.change().await.settle(&session).await {
                    tracing::warn!(session = %session.name, %error, "the end of an elevation is not stored");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Ends a session.
    pub async fn revoke(&self, name: &Name) -> Result<Done, OperatorError> {
        let now = Now::read();
        let ended = |session: &Session| Session { ended_ms: Some(now.wall_ms), ..session.clone() };
        let session = self.sessions.narrow(name, now, ended)?;
        self.taken_away(&session, Scope::Ended(&session.id), record(Kind::Revoke, Decision::End, &session, now)).await
    }

    /// Tells the workers of more rights.
    async fn given(&self, session: Arc<Session>) -> Done {
        let cursor = self.feed.publish(Scope::Widened(&session.id));
        let (applied, ()) = tokio::join!(self.feed.applied(cursor, BRIEF), self.feed.written(cursor, BRIEF));
        Done { session, applied, recorded: true }
    }

    /// Tells the workers at once, whatever disk and log are doing, then waits for all of them.
    async fn taken_away(
        &self,
        session: &Arc<Session>,
        scope: Scope<'_>,
        record: Record,
    ) -> Result<Done, OperatorError> {
        let cursor = self.feed.publish(scope);
        let (applied, recorded, stored, ()) = tokio::join!(
            self.feed.applied(cursor, self.stale_after),
            self.audit.append(record),
            self.sessions.keep(&session.id),
            self.feed.written(cursor, BRIEF),
        );
        stored.map_err(SessionError::from)?;
        Ok(Done { session: session.clone(), applied, recorded: recorded.is_ok() })
    }
}

/// The record of what was done to a session.
pub fn record(kind: Kind, decision: Decision, session: &Session, now: Now) -> Record {
    Record {
        session_id: Some(session.id.clone()),
        session: Some(session.name.clone()),
        decision: Some(decision.as_str().into()),
        access_mode: Some(session.mode(now)),
        ..Record::new(kind, now.wall_ms)
    }
}

/// The record of an elevation, or of its end.
fn elevation(decision: Decision, session: &Session, now: Now) -> Record {
    let until = session.elevated_until.map(|until| format!("until {}", rfc3339(until.wall_ms)));
    Record { reason: until, ..record(Kind::Mode, decision, session, now) }
}
