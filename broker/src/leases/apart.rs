//! A credential of which each session has something of its own: a token that may reach no more than the session may.
//!
//! One slot a session, made when the session first asks for a grant, and closed when it is over. There are never more
//! of them than sessions that live, or were alive a moment ago.

use super::slot::Slot;
use super::{Holder, LeaseError, Rung, Standing};
use crate::changes::Spread;
use crate::clock::Now;
use crate::config::{Credential, TokenScope, destination_id};
use crate::sources::Issuer;
use crate::state_dir::InstanceKey;
use attache_core::names::Name;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// A credential, and what each session has of it.
pub struct Apart {
    credential: Credential,
    /// What any session has at most.
    scope: TokenScope,
    issuer: Box<dyn Issuer>,
    key: Arc<InstanceKey>,
    /// By the session's id.
    own: RwLock<BTreeMap<String, Own>>,
}

/// What one session has.
#[derive(Clone)]
pub struct Own {
    /// The session's name.
    pub session: Name,
    /// Its slot, or why it gets nothing.
    pub slot: Result<Arc<Slot>, Arc<LeaseError>>,
}

impl Apart {
    /// Nobody has anything yet.
    pub fn new(credential: &Credential, scope: TokenScope, issuer: Box<dyn Issuer>, key: Arc<InstanceKey>) -> Self {
        Self { credential: credential.clone(), scope, issuer, key, own: RwLock::default() }
    }

    /// The credential's name.
    pub fn name(&self) -> &Name {
        &self.credential.name
    }

    /// Asks whether there would be something for sessions. Answers whether there would.
    pub async fn probe(&self) -> bool {
        match self.issuer.place().read().await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(credential = %self.credential.name, %error, "no session can be given this credential");
                false
            }
        }
    }

    /// The same, whatever is remembered.
    pub async fn probe_anew(&self) {
        self.issuer.place().forget();
        self.probe().await;
    }

    /// Has it asked anew when that is due. Never waits.
    pub fn look(&self) {
        self.issuer.place().mark();
    }

    /// What a session has, when it has been asked for.
    pub fn of(&self, session: Holder<'_>) -> Option<Result<Arc<Slot>, Arc<LeaseError>>> {
        let own = self.all().get(session.id).map(|own| own.slot.clone())?;
        match own {
            Ok(slot) => slot.is_loaded().then_some(Ok(slot)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Asks for what a session is to have: once, however many wait for it. Answers whether this has
    /// been found to be wrong now.
    pub async fn prepare(&self, session: Holder<'_>) -> bool {
        let Ok(slot) = self.enter(session) else { return true };
        let loading = slot.clone();
        // Detached: who waits may go away, and what was issued meanwhile would be nobody's to give back.
        let loaded_now = tokio::spawn(async move { loading.load().await }).await.unwrap_or(true);
        loaded_now && slot.current().is_err()
    }

    fn enter(&self, session: Holder<'_>) -> Result<Arc<Slot>, Arc<LeaseError>> {
        let mut all = self.own.write().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(session.id.to_owned()).or_insert_with(|| {
            let none = TokenScope::default();
            let narrowed = self.scope.narrowed(session.scopes.get(&self.credential.name).unwrap_or(&none));
            let slot = narrowed.map(|scope| {
                let sources = Arc::new([self.issuer.open(&scope)]);
                Arc::new(Slot::new(&self.credential, sources, self.key.clone()))
            });
            // It was within the credential's when the session was made; the config has changed since.
            Own { session: session.name.clone(), slot: slot.map_err(|why| Arc::new(why.into())) }
        });
        own.slot.clone()
    }

    /// What sessions have that has been asked for, by their ids.
    pub fn loaded(&self) -> Vec<(String, Arc<Slot>)> {
        let all = self.all();
        let slots = all.iter().filter_map(|(id, own)| Some((id.clone(), own.slot.clone().ok()?)));
        slots.filter(|(_, slot)| slot.is_loaded()).collect()
    }

    /// Takes out what sessions have that are over.
    pub fn take_over(&self, is_live: impl Fn(&str) -> bool) -> Vec<Arc<Slot>> {
        if self.all().keys().all(|id| is_live(id)) {
            return Vec::new();
        }
        let mut all = self.own.write().unwrap_or_else(PoisonError::into_inner);
        all.extract_if(.., |id, _| !is_live(id)).filter_map(|(_, own)| own.slot.ok()).collect()
    }

    /// How it stands, with where the last change of any is in force.
    pub fn standing(&self, workers: Spread) -> Standing {
        let own: Vec<_> = self.all().values().cloned().collect();
        let slots = || own.iter().filter_map(|own| own.slot.as_ref().ok()).filter(|slot| slot.is_loaded());
        let versions: Vec<_> = slots().filter_map(|slot| slot.current().ok()).collect();
        let place = self.issuer.place();
        let next = slots().filter_map(|slot| slot.next()).chain(place.next()).min();
        let wrong =
            place.trouble().map(|why| (format!("{}: {why}", place.place()), why.fix().to_owned(), why.passes()));
        // What may pass harms nobody while somebody has something.
        let fatal = wrong.as_ref().is_some_and(|(.., passes)| !passes || versions.is_empty());
        let (what, fix) = wrong.map(|(what, fix, _)| (what, fix)).or_else(|| own.iter().find_map(Own::wrong)).unzip();
        let (error, trouble) = if fatal { (what, None) } else { (None, what) };
        Standing {
            name: self.credential.name.clone(),
            service: self.credential.service.clone(),
            destinations: self.credential.destinations.iter().map(destination_id).collect(),
            // Made for a session, and over with it.
            rung: Some(Rung::Dynamic),
            source: Some(place.place()),
            fingerprint: None,
            since_ms: None,
            workers,
            expires_ms: versions.iter().filter_map(|version| version.expires_ms).min(),
            next_ms: next.map(|next| Now::read().plus(next).wall_ms),
            sessions: Some(versions.len()),
            rotation: None,
            error,
            fix,
            trouble,
        }
    }

    /// The last change that was told of any of them.
    pub fn last_told(&self) -> u64 {
        self.loaded().iter().map(|(_, slot)| slot.last_told()).max().unwrap_or_default()
    }

    fn all(&self) -> RwLockReadGuard<'_, BTreeMap<String, Own>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    /// What is wrong with it, and what mends that.
    fn wrong(&self) -> Option<(String, String)> {
        let (why, fix) = match self.slot.as_ref().map(|slot| (slot.is_loaded(), slot.current(), slot)) {
            Err(error) => (error.to_string(), error.fix().to_owned()),
            Ok((false, ..)) => return None,
            Ok((true, Err(error), _)) => (error.to_string(), error.fix().to_owned()),
            Ok((true, Ok(version), slot)) => {
                let (place, why) = slot.trouble(&version)?;
                (format!("{place}: {why}"), why.fix().to_owned())
            }
        };
        Some((format!("session {}: {why}", self.session), fix))
    }
}

#[cfg(test)]
mod tests;
