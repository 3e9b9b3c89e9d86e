//! Sessions: who may use what, until when.
//!
//! Placeholders and session tokens are derived from the instance key and a session's id, known in
//! memory by their SHA-256 alone, and stored nowhere. A session that has ended stays known for a
//! while, so that its placeholder is told apart from one that never was.

mod declared;
mod identify;
mod index;
mod session;

pub use identify::Identified;
pub use session::Session;

use crate::clock::Now;
use crate::config::{Bind, Config};
use crate::random::NoRandomness;
use crate::state_dir::InstanceKey;
use crate::store::{SessionRow, Store, StoreError};
use attache_core::names::Name;
use attache_core::placeholder::Shape;
use attache_core::policy::AccessMode;
use index::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How long a session that is over stays known.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// How often that is looked at.
const TIDY: Duration = Duration::from_secs(3600);

/// The shape of a session token.
fn token_shape() -> Shape {
    Shape { prefix: "attache-session_".into(), length: 60 }
}

/// What a session token is derived from in a credential's place: no credential can have this name.
const TOKEN_PART: &str = ":session-token";

/// Why a session cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No live session of this name.
    #[error("no live session is called {0}: see `attache session list`")]
    Unknown(Name),
    /// The name belongs to the config.
    #[error("session {0} is declared in the config: change it there, or choose another name")]
    Declared(Name),
    /// A live session has it.
    #[error("a session called {0} is alive already: revoke it, or choose another name")]
    NameTaken(Name),
    /// A credential that the config does not name.
    #[error("no credential is called {0}: see `attache credential list`")]
    NoSuchCredential(Name),
    /// A session that could use nothing.
    #[error("name at least one credential")]
    NoCredential,
    /// A lifetime of nothing.
    #[error("a session must live for some time")]
    NoTime,
    /// The change could not be saved. Where it takes rights away, it is in force all the same, until a restart.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No session id.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its name.
    pub name: Name,
    /// What it may use.
    pub credentials: Vec<Name>,
    /// What it may do.
    pub access_mode: AccessMode,
    /// How long it lives; `None`: until it is revoked.
    pub ttl: Option<Duration>,
    /// What it demands besides its placeholder.
    pub bind: Bind,
}

/// All sessions of an instance.
pub struct Sessions {
    key: Arc<InstanceKey>,
    /// The shape of each credential's placeholders.
    shapes: BTreeMap<Name, Shape>,
    declared: BTreeSet<Name>,
    index: RwLock<Index>,
    store: Store,
    changing: Mutex<()>,
}

impl Sessions {
    /// Loads what is stored and brings it in line with what the config declares. Also answers with
    /// the sessions that this has begun, changed or ended.
    pub async fn load(
        config: &Config,
        key: Arc<InstanceKey>,
        store: Store,
        now: Now,
    ) -> Result<(Self, Vec<Session>), SessionError> {
        let shapes = config.credentials.iter().map(|c| (c.name.clone(), c.placeholder.clone())).collect();
        let sessions = Self {
            key,
            shapes,
            declared: config.sessions.iter().map(|session| session.name.clone()).collect(),
            index: RwLock::default(),
            store,
            changing: Mutex::default(),
        };
        sessions.forget(now).await?;
        let rows = sessions.store.sessions().await?;
        let changed = declared::reconcile(&rows, &config.sessions, now)?;
        for row in &changed {
            sessions.store.save(row).await?;
        }
        for row in sessions.store.sessions().await? {
            sessions.enter(Session::of_row(row, now));
        }
        Ok((sessions, changed.into_iter().map(|row| Session::of_row(row, now)).collect()))
    }

    /// A session as asked for: nobody knows it and it may do nothing before it [begins](Change::begin).
    pub fn draft(&self, new: NewSession, now: Now) -> Result<Session, SessionError> {
        if self.declared.contains(&new.name) {
            return Err(SessionError::Declared(new.name));
        }
        if let Some(unknown) = new.credentials.iter().find(|name| !self.shapes.contains_key(name)) {
            return Err(SessionError::NoSuchCredential(unknown.clone()));
        }
        if new.credentials.is_empty() {
            return Err(SessionError::NoCredential);
        }
        if new.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(SessionError::NoTime);
        }
        self.expired(&new.name, now)?;
        let credentials: BTreeSet<_> = new.credentials.into_iter().collect();
        Ok(Session {
            id: session::fresh_id()?,
            name: new.name,
            credentials: credentials.into_iter().collect(),
            access_mode: new.access_mode,
            bind: new.bind,
            created_ms: now.wall_ms,
            expires: new.ttl.map(|ttl| now.plus(ttl)),
            ended_ms: None,
            declaration: None,
        })
    }

    /// Holds the sessions still for a change.
    pub async fn change(&self) -> Change<'_> {
        Change { sessions: self, _one_at_a_time: self.changing.lock().await }
    }

    /// The live session of this name.
    pub fn live(&self, name: &Name, now: Now) -> Result<Arc<Session>, SessionError> {
        self.named(name).filter(|session| session.is_live(now)).ok_or_else(|| SessionError::Unknown(name.clone()))
    }

    /// All sessions that are known, oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all = self.index.read().unwrap_or_else(PoisonError::into_inner).all();
        all.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        all
    }

    /// The placeholder of a session for one of its credentials.
    pub fn placeholder(&self, session: &Session, credential: &Name) -> Option<String> {
        let shape = self.shapes.get(credential).filter(|_| session.credentials.contains(credential))?;
        Some(self.key.mint(shape, &session.id, credential.as_str()))
    }

    /// The token of a session.
    pub fn token(&self, session: &Session) -> String {
        self.key.mint(&token_shape(), &session.id, TOKEN_PART)
    }

    /// Forgets the sessions that have been over for long.
    pub async fn forget(&self, now: Now) -> Result<(), StoreError> {
        let before_ms = now.wall_ms.saturating_sub(crate::clock::millis(REMEMBERED));
        self.index.write().unwrap_or_else(PoisonError::into_inner).forget(before_ms);
        self.store.forget(before_ms).await
    }

    /// Forgets, over and over.
    pub async fn tidy(&self) {
        let mut tick = tokio::time::interval(TIDY);
        loop {
            tick.tick().await;
            if let Err(error) = self.forget(Now::read()).await {
                tracing::warn!(%error, "old sessions could not be forgotten");
            }
        }
    }

    /// Lets go of the database.
    pub async fn close(&self) {
        self.store.close().await;
    }

    fn named(&self, name: &Name) -> Option<Arc<Session>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).named(name)
    }

    /// Whose name this was until it expired; an error if a live session has it.
    fn expired(&self, name: &Name, now: Now) -> Result<Option<Arc<Session>>, SessionError> {
        match self.named(name) {
            Some(holder) if holder.is_live(now) => Err(SessionError::NameTaken(name.clone())),
            holder => Ok(holder),
        }
    }

    /// Makes a session known, in the place of what it was before.
    fn enter(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        // Credentials that it may not use, too: their placeholders may have been its own once.
        let placeholders = self.shapes.iter().map(|(credential, shape)| {
            (self.key.mint(shape, &session.id, credential.as_str()), Some(credential.clone()))
        });
        let evidence = placeholders.chain([(self.token(&session), None)]);
        self.index.write().unwrap_or_else(PoisonError::into_inner).enter(session.clone(), evidence);
        session
    }
}

/// A change in progress: no other begins before it is done.
pub struct Change<'a> {
    sessions: &'a Sessions,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl Change<'_> {
    /// Puts a drafted session in force: stored first, then known.
    pub async fn begin(&self, session: Session, now: Now) -> Result<Arc<Session>, SessionError> {
        let sessions = self.sessions;
        if let Some(before) = sessions.expired(&session.name, now)? {
            sessions.store.save(&SessionRow { ended_ms: Some(now.wall_ms), ..before.row() }).await?;
        }
        sessions.store.save(&session.row()).await?;
        Ok(sessions.enter(session))
    }

    /// Sets a session's access mode, in force when this returns, stored as well if it returns `Ok`.
    pub async fn set_access_mode(
        &self,
        session: &Session,
        access_mode: AccessMode,
    ) -> Result<Arc<Session>, SessionError> {
        self.replace(Session { access_mode, ..session.clone() }).await
    }

    /// Ends a session, in force when this returns, stored as well if it returns `Ok`.
    pub async fn revoke(&self, session: &Session, now: Now) -> Result<Arc<Session>, SessionError> {
        self.replace(Session { ended_ms: Some(now.wall_ms), ..session.clone() }).await
    }

    async fn replace(&self, session: Session) -> Result<Arc<Session>, SessionError> {
        // Memory first: rights that are taken away are gone even when the disk is full.
        let session = self.sessions.enter(session);
        self.sessions.store.save(&session.row()).await?;
        Ok(session)
    }
}

#[cfg(test)]
mod tests;
