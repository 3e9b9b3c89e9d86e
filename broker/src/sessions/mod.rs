//! Sessions: who may use what, until when.
//!
//! Placeholders and session tokens are derived from the instance key and a session's id: who has the
//! key can derive them again. They are found by their SHA-256, in memory all of them, in the store
//! those that were given out. A session that has ended stays known for a while, and what was given
//! out of it for ever, so that its placeholder is told apart from one that never was.

mod declared;
mod elevation;
mod identify;
mod index;
mod session;
mod sight;

pub use elevation::MOST as ELEVATION;
pub use identify::Identified;
pub use session::Session;
pub use sight::Sight;

use crate::clock::Now;
use crate::config::peers::PeerRule;
use crate::config::{Bind, Config, NotWithin, TokenScope};
use crate::random::NoRandomness;
use crate::state_dir::InstanceKey;
use crate::store::{Store, StoreError};
use attache_core::digest::Digest;
use attache_core::names::Name;
use attache_core::placeholder::Shape;
use attache_core::policy::AccessMode;
use attache_core::refusal::Reason;
use attache_core::wire::EvidenceDigests;
use index::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify};

/// How long a session that is over stays known.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// How often that is looked at.
const TIDY: Duration = Duration::from_secs(3600);

/// The shape of a session token.
fn token_shape() -> Shape {
    Shape::new("attache-session_", 60)
}

/// What a session token is derived from in a credential's place: no credential can have this name.
const TOKEN_PART: &str = ":session-token";

/// Why a session cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No live session of this name.
    #[error("no live session is called {0}: see `attache session list --all`")]
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
    /// A scope for a credential that it may not use.
    #[error("a scope is given for {0}, which the session may not use: name the credential, or leave the scope out")]
    ScopeUnused(Name),
    /// A scope for a secret that is what it is.
    #[error("what {0}'s source has is the same for every session, and cannot be narrowed")]
    NotScopable(Name),
    /// A scope that is wider than the credential's.
    #[error("{credential}: {why}: a session narrows what its credential has, and never widens it")]
    NotWithin {
        /// The credential.
        credential: Name,
        /// What is too much.
        why: NotWithin,
    },
    /// A session that could use nothing.
    #[error("name at least one credential")]
    NoCredential,
    /// A lifetime of nothing.
    #[error("a session must live for some time")]
    NoTime,
    /// An elevation of what may write already.
    #[error(
        "session {0} may read and write already, for as long as it lives: set it to read-only, then elevate it for a time"
    )]
    NothingToElevate(Name),
    /// An elevation for no time.
    #[error("a session is elevated for some time, a year at most")]
    NoElevation,
    /// A session that needs nobody to stay alive.
    #[error("session {0} lives until it is revoked: there is nothing to hold")]
    NothingToHold(Name),
    /// Rights were taken from the session while it was being given more.
    #[error("session {0} has changed meanwhile: look at it, and ask again if it still stands")]
    ChangedMeanwhile(Name),
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
    /// What its tokens may reach, where that is less than the credential's may.
    pub scopes: BTreeMap<Name, TokenScope>,
}

/// All sessions of an instance.
pub struct Sessions {
    key: Arc<InstanceKey>,
    /// The shape of each credential's placeholders.
    shapes: BTreeMap<Name, Shape>,
    /// What each credential's tokens may reach at most, where a session has one of its own.
    scopes: BTreeMap<Name, TokenScope>,
    declared: BTreeSet<Name>,
    /// Which workload is which session.
    peers: Vec<PeerRule>,
    index: RwLock<Index>,
    store: Arc<Store>,
    changing: Mutex<()>,
    /// Told when a session is elevated.
    elevated: Notify,
}

impl Sessions {
    /// Loads what is stored and brings it in line with what the config declares. Also answers with
    /// the sessions that this has begun, changed or ended.
    pub async fn load(
        config: &Config,
        key: Arc<InstanceKey>,
        store: impl Into<Arc<Store>>,
        now: Now,
    ) -> Result<(Self, Vec<Session>), SessionError> {
        let shapes = config.credentials.iter().map(|c| (c.name.clone(), c.placeholder.clone())).collect();
        let scopes = config.credentials.iter().filter_map(|c| Some((c.name.clone(), c.scope()?.clone())));
        let sessions = Self {
            key,
            shapes,
            scopes: scopes.collect(),
            declared: config.sessions.iter().map(|session| session.name.clone()).collect(),
            peers: config.peers.clone(),
            index: RwLock::default(),
            store: store.into(),
            changing: Mutex::default(),
            elevated: Notify::new(),
        };
        sessions.forget(now).await?;
        let rows = sessions.store.sessions().await?;
        let changed = declared::reconcile(&rows, &config.sessions, now)?;
        sessions.store.save_all(&changed).await?;
        for row in sessions.store.sessions().await? {
            sessions.enter(Session::of_row(row, now));
        }
        sessions.end_expired(now).await?;
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
        self.check_scopes(&new)?;
        self.expired(&new.name, now)?;
        let credentials: BTreeSet<_> = new.credentials.into_iter().collect();
        Ok(Session {
            id: session::fresh_id()?,
            name: new.name,
            credentials: credentials.into_iter().collect(),
            access_mode: new.access_mode,
            elevated_until: None,
            bind: new.bind,
            scopes: new.scopes,
            created_ms: now.wall_ms,
            expires: new.ttl.map(|ttl| now.plus(ttl)),
            ended_ms: None,
            declaration: None,
        })
    }

    fn check_scopes(&self, new: &NewSession) -> Result<(), SessionError> {
        for (credential, scope) in &new.scopes {
            if !new.credentials.contains(credential) {
                return Err(SessionError::ScopeUnused(credential.clone()));
            }
            let most = self.scopes.get(credential).ok_or_else(|| SessionError::NotScopable(credential.clone()))?;
            let narrowed = most.narrowed(scope);
            narrowed.map_err(|why| SessionError::NotWithin { credential: credential.clone(), why })?;
        }
        Ok(())
    }

    /// Takes rights from the live session of this name. In force when this returns, whatever else is
    /// going on, and not stored yet: see [`Self::keep`].
    pub fn narrow(
        &self,
        name: &Name,
        now: Now,
        narrowed: impl FnOnce(&Session) -> Session,
    ) -> Result<Arc<Session>, SessionError> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let before = index.named(name).filter(|session| session.is_live(now));
        let before = before.ok_or_else(|| SessionError::Unknown(name.clone()))?;
        let session = Arc::new(narrowed(&before));
        index.swap(&before, session.clone());
        Ok(session)
    }

    /// Stores a session as it is by then.
    pub async fn keep(&self, id: &str) -> Result<(), StoreError> {
        self.change().await.keep(id).await
    }

    /// Holds the sessions still for a change that gives more rights, or stores one.
    pub async fn change(&self) -> Change<'_> {
        Change { sessions: self, _one_at_a_time: self.changing.lock().await }
    }

    /// The live session of this name.
    pub fn live(&self, name: &Name, now: Now) -> Result<Arc<Session>, SessionError> {
        self.named(name).filter(|session| session.is_live(now)).ok_or_else(|| SessionError::Unknown(name.clone()))
    }

    /// Whether somebody may tell of a use of this session: it is in sight, by its id as by its name. An id that is not
    /// known any more may be of a life before.
    pub fn may_tell_of(&self, sight: &Sight, id: Option<&str>, name: Option<&Name>) -> bool {
        if !sight.is_narrow() {
            return true;
        }
        let known = id.and_then(|id| self.index.read().unwrap_or_else(PoisonError::into_inner).by_id(id));
        let is_its_own = |known: &Arc<Session>| name.is_none_or(|name| *name == known.name) && sight.has(&known.name);
        name.is_none_or(|name| sight.has(name)) && known.as_ref().is_none_or(is_its_own)
    }

    /// Whether a change of the session with this id concerns somebody; one that is not known may.
    pub fn is_in_sight(&self, sight: &Sight, id: &str) -> bool {
        let known = || self.index.read().unwrap_or_else(PoisonError::into_inner).by_id(id);
        !sight.is_narrow() || known().is_none_or(|session| sight.has(&session.name))
    }

    /// Whether a session with this id is known, and alive.
    pub fn is_live(&self, id: &str, now: Now) -> bool {
        let session = self.index.read().unwrap_or_else(PoisonError::into_inner).by_id(id);
        session.is_some_and(|session| session.is_live(now))
    }

    /// Whether nothing was given to or taken from a session since it was looked up, and no other has its name. Time may have
    /// ended it all the same.
    pub fn is_unchanged(&self, session: &Arc<Session>) -> bool {
        self.named(&session.name).is_some_and(|current| Arc::ptr_eq(&current, session))
    }

    /// All sessions that are known, oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all = self.index.read().unwrap_or_else(PoisonError::into_inner).all();
        all.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        all
    }

    /// The sessions whose time came between these two moments, stored as over already or not; nobody
    /// has ended them.
    pub fn expired_between(&self, before: Now, now: Now) -> Vec<Arc<Session>> {
        self.which(|session| !session.is_revoked() && !session.is_due(before) && session.is_due(now))
    }

    /// Stores the end of every session whose time is over: no clock brings it back. An elevation of it
    /// ends first, on record.
    pub async fn end_expired(&self, now: Now) -> Result<(), StoreError> {
        let is_over =
            |session: &Session| session.ended_ms.is_none() && session.elevated_until.is_none() && !session.is_live(now);
        if self.which(is_over).is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.change().await;
        let over = self.which(is_over).into_iter().map(|session| (session.expired(now), session));
        let over: Vec<_> = over.collect();
        let rows: Vec<_> = over.iter().map(|(over, _)| over.row()).collect();
        self.store.save_all(&rows).await?;
        for (over, session) in over {
            self.index.write().unwrap_or_else(PoisonError::into_inner).swap(&session, Arc::new(over));
        }
        Ok(())
    }

    /// The live sessions whose elevation ended between these two moments.
    pub fn reverted_between(&self, before: Now, now: Now) -> Vec<Arc<Session>> {
        self.which(|session| session.is_live(now) && session.mode(before) != session.mode(now))
    }

    fn which(&self, holds: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).which(holds)
    }

    /// The placeholder of a session for one of its credentials.
    pub fn placeholder(&self, session: &Session, credential: &Name) -> Option<String> {
        let shape = self.shapes.get(credential).filter(|_| session.credentials.contains(credential))?;
        Some(self.key.mint(shape, &session.id, credential.as_str()))
    }

    /// Notes that the placeholders and the token of a session are given out. Until this returns
    /// they must not be.
    pub async fn note_given(&self, session: &Session, now: Now) -> Result<(), StoreError> {
        let mine = session
            .credentials
            .iter()
            .filter_map(|credential| Some((self.placeholder(session, credential)?, Some(credential.clone()))));
        let given = mine.chain([(self.token(session), None)]);
        let digests: Vec<_> = given.map(|(text, credential)| (Digest::of(text.as_bytes()), credential)).collect();
        self.store.note_given(&session.id, &digests, now.wall_ms).await
    }

    /// Why nobody knows this evidence: all that is not known was given out once, by sessions that are
    /// forgotten, or some of it never was.
    pub async fn unknown(&self, evidence: &EvidenceDigests, sight: &Sight) -> Reason {
        // Whose it was is nothing that the store remembers.
        if sight.is_narrow() {
            return Reason::PlaceholderUnknown;
        }
        for digest in evidence.placeholder.iter().chain(&evidence.session_token) {
            let known = self.index.read().unwrap_or_else(PoisonError::into_inner).holder(digest).is_some();
            if !known && !self.store.was_given(digest).await.unwrap_or(false) {
                return Reason::PlaceholderUnknown;
            }
        }
        Reason::SessionExpired
    }

    /// The token of a session.
    pub fn token(&self, session: &Session) -> String {
        self.key.mint(&token_shape(), &session.id, TOKEN_PART)
    }

    /// Forgets the sessions that have been over for long.
    pub async fn forget(&self, now: Now) -> Result<(), StoreError> {
        let before_ms = now.wall_ms.saturating_sub(crate::clock::millis(REMEMBERED));
        self.index.write().unwrap_or_else(PoisonError::into_inner).forget(before_ms);
        self.store.forget(before_ms).await?;
        self.store.forget_history(before_ms).await
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
        let placeholders = self.shapes.iter().flat_map(|(credential, shape)| {
            let shapes = [Some(shape.clone()), shape.former()].into_iter().flatten();
            shapes.map(|shape| (self.key.mint(&shape, &session.id, credential.as_str()), Some(credential.clone())))
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
            sessions.store.save(&before.expired(now).row()).await?;
        }
        sessions.store.save(&session.row()).await?;
        Ok(sessions.enter(session))
    }

    /// Gives a session more rights: stored first, then in force, unless it was narrowed meanwhile.
    pub async fn widen(&self, before: &Arc<Session>, wider: Session) -> Result<Arc<Session>, SessionError> {
        self.sessions.store.save(&wider.row()).await?;
        let wider = Arc::new(wider);
        let done = self.sessions.index.write().unwrap_or_else(PoisonError::into_inner).swap(before, wider.clone());
        if !done {
            self.keep(&before.id).await?;
            return Err(SessionError::ChangedMeanwhile(before.name.clone()));
        }
        Ok(wider)
    }

    async fn keep(&self, id: &str) -> Result<(), StoreError> {
        let session = self.sessions.index.read().unwrap_or_else(PoisonError::into_inner).by_id(id);
        match session {
            Some(session) => self.sessions.store.save(&session.row()).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
