//! Sessions that somebody holds: they live for as long as their holder stays, and end when it is gone,
//! however it went. `attache run` holds the session that it made.
//!
//! While it is held, a session's time is moved on by the broker, a little at a time: one whose holder
//! went while no broker was there to see it ends by itself.

use super::{Operator, OperatorError, record};
use crate::audit::{Decision, Kind, Record};
use crate::clock::Now;
use crate::sessions::{Session, SessionError};
use attache_core::names::Name;
use std::sync::Arc;
use std::time::Duration;

/// How long a session lives on when neither its holder nor the broker is there.
pub const HELD: Duration = Duration::from_secs(120);

/// How often its time is moved on.
const MOVE_ON: Duration = Duration::from_secs(30);

/// How a hold came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The holder is gone: so is the session.
    Gone,
    /// The broker ends, and the holder will come again: the session lives on until then.
    BrokerEnds,
}

impl Operator {
    /// Begins to hold the live session of this name. That it may outlive its time from now on is on
    /// record before it does.
    pub async fn hold(&self, name: &Name) -> Result<Arc<Session>, OperatorError> {
        let now = Now::read();
        let session = self.sessions.live(name, now)?;
        if session.declaration.is_some() {
            return Err(SessionError::Declared(name.clone()).into());
        }
        if session.expires.is_none() {
            return Err(SessionError::NothingToHold(name.clone()).into());
        }
        let reason = Some("for as long as it is held".to_owned());
        self.audit.append(Record { reason, ..record(Kind::Mode, Decision::Hold, &session, now) }).await?;
        Ok(self.move_on(&session).await?)
    }

    /// Holds a session until `released`, then ends it. Comes back earlier when it has ended.
    pub async fn keep(&self, session: &Session, released: impl Future<Output = Release>) {
        let mut released = std::pin::pin!(released);
        let release = loop {
            tokio::select! {
                release = &mut released => break release,
                () = tokio::time::sleep(MOVE_ON) => match self.move_on(session).await {
                    Err(SessionError::Unknown(_)) => return,
                    Err(error) => tracing::warn!(session = %session.name, %error, "a held session is not moved on"),
                    Ok(_) => {}
                },
            }
        };
        // Its name may be another's by now.
        if release == Release::Gone && self.held(session, Now::read()).is_ok() {
            tracing::info!(session = %session.name, "its holder is gone");
            if let Err(error) = self.revoke(&session.name).await {
                tracing::warn!(session = %session.name, %error, "the end of a held session");
            }
        }
    }

    /// Moves a session's end on, never back.
    async fn move_on(&self, session: &Session) -> Result<Arc<Session>, SessionError> {
        let change = self.sessions.change().await;
        let now = Now::read();
        let before = self.held(session, now)?;
        if before.remaining(now) >= HELD {
            return Ok(before);
        }
        let later = Session { expires: Some(now.plus(HELD)), ..(*before).clone() };
        change.widen(&before, later).await
    }

    fn held(&self, session: &Session, now: Now) -> Result<Arc<Session>, SessionError> {
        let unknown = || SessionError::Unknown(session.name.clone());
        self.sessions.live(&session.name, now).ok().filter(|found| found.id == session.id).ok_or_else(unknown)
    }
}
