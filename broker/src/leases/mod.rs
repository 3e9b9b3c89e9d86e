//! Leases: the current version of each credential, and the bounded right to use it.
//!
//! A version is read, checked against every place it may have to stand in, and rendered for each
//! destination when it is loaded: a grant then touches memory only. A file that changes is noticed by the next grant
//! that comes 10 ms after the last look, or on the next tick, whichever is first, and voids the grants of its
//! credential.

mod apart;
mod bundle;
mod rejected;
mod slot;

pub use rejected::Renewed;
pub use slot::{FRESH, could_be};

use crate::changes::{Feed, Scope, Spread};
use crate::clock::{Now, millis};
use crate::config::{Config, NotWithin, TokenScope};
use crate::meters::LeaseMeters;
use crate::random::{self, NoRandomness};
use crate::rotation::RotationStanding;
use crate::sources::{self, Environment, SourceError};
use crate::state_dir::InstanceKey;
use apart::Apart;
use attache_core::Secret;
use attache_core::injection::InjectionError;
use attache_core::masking::NotMaskable;
use attache_core::names::Name;
use attache_core::policy::Carrier;
use attache_core::wire::{self, WireInjection};
use bundle::BundleError;
use rejected::Rejections;
use serde::{Deserialize, Serialize};
use slot::{Slot, Version};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;

/// How often all sources are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Why there is no lease. Names places, never content.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// No source has it.
    #[error("no source has it: {0}")]
    Absent(String),
    /// A source could not say.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The secret cannot stand where it has to.
    #[error("cannot be injected for {destination}: {why}")]
    NotInjectable {
        /// The destination.
        destination: String,
        /// Why.
        why: InjectionError,
    },
    /// The secret cannot be told from chance in an answer.
    #[error("for {destination}: {why}")]
    NotMaskable {
        /// The destination.
        destination: String,
        /// Why.
        why: NotMaskable,
    },
    /// The credential has no such destination.
    #[error("is not bound to this destination")]
    NotBound,
    /// Its bundle has no such public field.
    #[error("its bundle has no such public field")]
    NoField,
    /// Nobody has asked for it.
    #[error("it has not been asked for")]
    NotAsked,
    /// The session may have less than this, and its source has but one thing for all.
    #[error("the session's scope is narrower than what its source has, which is the same for every session")]
    NotScopable,
    /// The session was to have more than the credential has now.
    #[error("{0}")]
    NotWithin(#[from] NotWithin),
    /// What its source gave has ended, and nothing has come after it.
    #[error("what its source has given has ended")]
    Ended,
    /// The secret is not what the credential's `bundle` describes.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The config lets it go there, and its own document does not.
    #[error("its document does not name this destination")]
    Narrowed,
    /// No lease id.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl LeaseError {
    /// What an operator does about it.
    pub fn fix(&self) -> &str {
        match self {
            LeaseError::Absent(_) => {
                "see whether the path or name is right, and put the secret there: a file is 0600, a variable takes a \
                 restart of the broker, and a volume is filled by its kubelet"
            }
            LeaseError::Source(SourceError::File(_)) => {
                "make it a regular file of the broker's user, 0600, in a directory of its own, 0700"
            }
            LeaseError::Source(SourceError::Sealed(_)) => {
                "write it anew (attache credential set NAME), or restore it from a backup"
            }
            LeaseError::Source(SourceError::Mounted(why)) => why.fix(),
            LeaseError::Source(SourceError::Remote { why, .. }) => why.fix(),
            LeaseError::Source(SourceError::NotText(_) | SourceError::Empty(_)) | LeaseError::NotInjectable { .. } => {
                "put the secret itself there, whole, as one line of text"
            }
            LeaseError::NotMaskable { .. } => {
                "take a longer secret, or write `mask: false` for the destination: echoes then reach the agent"
            }
            LeaseError::Ended => "see whether its source can be reached, and gives new ones",
            LeaseError::NotAsked => "ask again",
            LeaseError::NotScopable | LeaseError::NotWithin(_) => {
                "make the session anew, within what the credential has, or give the credential more in the config"
            }
            LeaseError::Bundle(why) => why.fix(),
            LeaseError::Narrowed => "add the host to the list in the document that `bundle.destinations` names",
            LeaseError::NoField => "name the field in the credential's `bundle.fields`",
            LeaseError::NotBound => "bind it to a destination in the config",
            LeaseError::NoRandomness(_) => "see why the system gives no random bytes, and restart the broker",
        }
    }
}

/// Whose lease it is.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The session's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a Name,
    /// What its tokens may reach, by credential, where that is less than the credential's may.
    pub scopes: &'a BTreeMap<Name, TokenScope>,
}

/// A lease and what it lets into a request.
pub struct Issued {
    /// The lease.
    pub lease: wire::Lease,
    /// The changes to the request.
    pub injections: Vec<WireInjection>,
    /// What must not come back.
    pub mask: Vec<Secret>,
}

/// How little a theft of a secret is worth, from the best downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Its source has made it for us, and ends it by itself.
    Dynamic,
    /// It is good until somebody changes it; leased for minutes at a time.
    Static,
}

impl Rung {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Rung::Dynamic => "dynamic",
            Rung::Static => "static",
        }
    }
}

/// How a credential stands, for operators.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Standing {
    /// The credential.
    pub name: Name,
    /// Its service.
    pub service: String,
    /// Where it may go.
    pub destinations: Vec<String>,
    /// How high it stands on the ladder.
    #[serde(default)]
    pub rung: Option<Rung>,
    /// Where it was found.
    pub source: Option<String>,
    /// Which version it is.
    pub fingerprint: Option<String>,
    /// Since when, in Unix milliseconds.
    pub since_ms: Option<u64>,
    /// Where it is in force: who is alive and not counted may still use the version before.
    pub workers: Spread,
    /// Until when, in Unix milliseconds, where its source or the secret itself says so (a JWT's `exp`).
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// When its source is asked anew, in Unix milliseconds; none where changes are noticed as they come.
    #[serde(default)]
    pub next_ms: Option<u64>,
    /// Where each session has one of its own: how many have one now. The times above are then the soonest.
    #[serde(default)]
    pub sessions: Option<usize>,
    /// Why there is none.
    pub error: Option<String>,
    /// What mends that, or the trouble below.
    pub fix: Option<String>,
    /// Why its source could not be asked, the last time, while what it said before still holds.
    #[serde(default)]
    pub trouble: Option<String>,
    /// How its rotation stands; `null`: the config has none.
    #[serde(default)]
    pub rotation: Option<RotationStanding>,
}

/// All credentials of an instance.
pub struct Leases {
    /// Those that all sessions share.
    slots: BTreeMap<Name, Slot>,
    /// Those of which each session has its own.
    apart: BTreeMap<Name, Apart>,
    grant_ttl: Duration,
    feed: Arc<Feed>,
    meters: LeaseMeters,
    /// Secrets that still are good at their service beside those in use: they are masked, too.
    retiring: RwLock<BTreeMap<Name, Secret>>,
    /// What is being given back for sessions that are over.
    closing: Mutex<JoinSet<()>>,
    /// What is asked for anew, as its service rejects it.
    rejections: Rejections,
}

impl Leases {
    /// Reads all credentials for the first time, all at once: a source may take seconds.
    pub async fn load(config: &Config, environment: &Environment, key: Arc<InstanceKey>, feed: Arc<Feed>) -> Self {
        let (mut slots, mut apart) = (JoinSet::new(), JoinSet::new());
        for credential in &config.credentials {
            let issuer = credential.lookup.iter().find_map(|lookup| sources::issuer(lookup, environment));
            if let Some((scope, issuer)) = issuer {
                let one = Apart::new(credential, scope, issuer, key.clone());
                apart.spawn(async move {
                    let usable = one.probe().await;
                    (one, usable)
                });
            } else {
                let slot = Slot::shared(credential, environment, key.clone());
                slots.spawn(async move {
                    slot.load().await;
                    slot
                });
            }
        }
        let meters = LeaseMeters { questions: environment.questions().clone(), ..LeaseMeters::default() };
        let count = |name: &Name, usable: bool| {
            // From zero, so that the first is seen to be one more.
            drop(meters.issued.get_or_create(&name.into()));
            meters.errors.get_or_create(&name.into()).inc_by((!usable).into());
        };
        let (slots, apart) = (slots.join_all().await, apart.join_all().await);
        slots.iter().for_each(|slot| count(slot.name(), slot.current().is_ok()));
        apart.iter().for_each(|(one, usable)| count(one.name(), *usable));
        let slots = slots.into_iter().map(|slot| (slot.name().clone(), slot)).collect();
        let apart = apart.into_iter().map(|(one, _)| (one.name().clone(), one)).collect();
        let (retiring, closing, rejections) = Default::default();
        Self { slots, apart, grant_ttl: config.limits.grant_ttl, feed, meters, retiring, closing, rejections }
    }

    /// Looks whether a credential's source has changed, unless somebody has looked just now, and makes the change known
    /// if so.
    pub async fn refresh_if_due(&self, credential: &Name) {
        let Some(slot) = self.slots.get(credential) else { return };
        let changed = slot.refresh_if_due().await;
        if self.count(credential, slot, changed) {
            self.make_known(credential, slot);
        }
    }

    /// The same at once.
    pub async fn refresh(&self, credential: &Name) {
        let Some(slot) = self.slots.get(credential) else { return };
        if self.look(credential, slot).await {
            self.make_known(credential, slot);
        }
    }

    fn make_known(&self, credential: &Name, slot: &Slot) {
        let cursor = self.publish(credential, slot);
        self.feed.follow(cursor, format!("credential {credential} has changed, on every worker"));
    }

    /// The same of what each session has of a credential: a change voids the grants of that session alone.
    async fn refresh_apart(&self, apart: &Apart) {
        apart.look();
        for (session, slot) in apart.loaded() {
            if self.look(apart.name(), &slot).await {
                let cursor = self.feed.publish(Scope::Renewed(&session));
                slot.told(cursor);
                self.feed
                    .follow(cursor, format!("credential {} of {session} has changed, on every worker", apart.name()));
            }
        }
    }

    /// Asks for what a session is to have of a credential, where each has its own, and waits for it. Many that wait
    /// for one session ask once.
    pub async fn prepare(&self, credential: &Name, session: Holder<'_>) {
        let Some(apart) = self.apart.get(credential) else { return };
        if apart.prepare(session).await {
            self.meters.errors.get_or_create(&credential.into()).inc();
        }
    }

    /// Gives back what sessions had that are over, for ever.
    pub async fn end(&self, is_live: impl Fn(&str) -> bool) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            self.give_back(&is_live);
        }
    }

    fn give_back(&self, is_live: impl Fn(&str) -> bool) {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        while closing.try_join_next().is_some() {}
        for slot in self.apart.values().flat_map(|apart| apart.take_over(&is_live)) {
            closing.spawn(slot.close());
        }
    }

    /// Asks a credential's source now, and makes a change known. How it stands then; `None`: there
    /// is no such credential.
    pub async fn test(&self, credential: &Name) -> Option<Standing> {
        if let Some(apart) = self.apart.get(credential) {
            return Some(self.test_apart(apart).await);
        }
        let slot = self.slots.get(credential)?;
        if self.renew(credential, slot).await {
            self.publish(credential, slot);
            tracing::info!(%credential, "the credential has changed");
        }
        Some(self.standing(slot))
    }

    /// Looks again; whether grants made before are void.
    async fn look(&self, credential: &Name, slot: &Slot) -> bool {
        let changed = slot.refresh().await;
        self.count(credential, slot, changed)
    }

    /// Asks the source itself; whether grants made before are void.
    async fn renew(&self, credential: &Name, slot: &Slot) -> bool {
        let changed = slot.renew().await;
        self.count(credential, slot, changed)
    }

    fn count(&self, credential: &Name, slot: &Slot, changed: bool) -> bool {
        if changed && slot.current().is_err() {
            self.meters.errors.get_or_create(&credential.into()).inc();
        }
        changed
    }

    /// Has every worker forget grants that draw on this credential. Answers with the change's cursor.
    fn publish(&self, credential: &Name, slot: &Slot) -> u64 {
        let cursor = self.feed.publish(Scope::Credential(credential));
        slot.told(cursor);
        cursor
    }

    fn standing_apart(&self, apart: &Apart) -> Standing {
        apart.standing(self.feed.spread(apart.last_told()))
    }

    fn standing(&self, slot: &Slot) -> Standing {
        slot.standing(self.feed.spread(slot.last_told()))
    }

    /// What is counted here.
    pub fn meters(&self) -> &LeaseMeters {
        &self.meters
    }

    /// Looks at a credential's source, and makes all grants that draw on it void, changed or not.
    /// Answers with how it stands and the change's cursor; `None`: there is no such credential.
    pub async fn reload(&self, credential: &Name) -> Option<(Standing, u64)> {
        if let Some(apart) = self.apart.get(credential) {
            return Some(self.reload_apart(apart).await);
        }
        let slot = self.slots.get(credential)?;
        self.renew(credential, slot).await;
        let cursor = self.publish(credential, slot);
        Some((self.standing(slot), cursor))
    }

    /// Whether there would be something for sessions; those that got nothing ask again.
    async fn test_apart(&self, apart: &Apart) -> Standing {
        let lacking = apart.loaded().into_iter().filter(|(_, slot)| slot.current().is_err());
        let (renewed, ()) = tokio::join!(renewed(lacking.collect()), apart.probe_anew());
        for (session, slot, changed) in renewed {
            if self.count(apart.name(), &slot, changed) {
                slot.told(self.feed.publish(Scope::Renewed(&session)));
            }
        }
        self.standing_apart(apart)
    }

    /// Each session gets another.
    async fn reload_apart(&self, apart: &Apart) -> (Standing, u64) {
        let (renewed, ()) = tokio::join!(renewed(apart.loaded()), apart.probe_anew());
        let cursor = self.feed.publish(Scope::Credential(apart.name()));
        for (_, slot, changed) in renewed {
            self.count(apart.name(), &slot, changed);
            slot.told(cursor);
        }
        (self.standing_apart(apart), cursor)
    }

    /// Looks at all sources, over and over.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            for credential in self.slots.keys() {
                self.refresh(credential).await;
            }
            for apart in self.apart.values() {
                self.refresh_apart(apart).await;
            }
        }
    }

    /// A fresh lease on the current version, for one destination, for a session that may do what it may do for
    /// `steady` yet. `None`: the session's own has not been [asked for](Self::prepare).
    pub fn issue(
        &self,
        credential: &Name,
        destination: &str,
        session: Holder<'_>,
        steady: Duration,
    ) -> Result<Option<Issued>, Arc<LeaseError>> {
        let version = match (self.apart.get(credential), self.slots.get(credential)) {
            (Some(apart), _) => match apart.of(session) {
                Some(own) => own?.current()?,
                None => return Ok(None),
            },
            // What all share reaches more than the session may.
            (None, Some(_)) if session.scopes.contains_key(credential) => {
                return Err(Arc::new(LeaseError::NotScopable));
            }
            (None, Some(slot)) => slot.current()?,
            (None, None) => return Err(Arc::new(LeaseError::NotBound)),
        };
        self.lease(credential, &version, destination, steady).map(Some)
    }

    fn lease(
        &self,
        credential: &Name,
        version: &Version,
        destination: &str,
        steady: Duration,
    ) -> Result<Issued, Arc<LeaseError>> {
        let is_bundle = || self.slots.get(credential).is_some_and(Slot::is_bundle);
        let nowhere = || Arc::new(if is_bundle() { LeaseError::Narrowed } else { LeaseError::NotBound });
        let rendered = version.rendered.get(destination).ok_or_else(nowhere)?;
        let injections = rendered.iter().map(|rendered| {
            let (header, query) = match &rendered.carrier {
                Carrier::Header(name) => (Some(name.clone()), None),
                Carrier::Query(name) => (None, Some(name.clone())),
            };
            WireInjection { header, query, value: rendered.value.clone() }
        });
        let left = version.ends.map_or(Duration::MAX, |ends| Now::read().until(ends));
        if left.is_zero() {
            return Err(Arc::new(LeaseError::Ended));
        }
        let ttl = self.grant_ttl.min(steady).min(left);
        let lease = wire::Lease {
            id: format!("l-{}", random::id().map_err(LeaseError::from)?),
            fingerprint: version.fingerprint.clone(),
            ttl_ms: millis(ttl),
            refresh_after_ms: millis(ttl * 3 / 4),
        };
        self.meters.issued.get_or_create(&credential.into()).inc();
        let mut mask: Vec<_> = version.masked.get(destination).into_iter().flatten().cloned().collect();
        if !mask.is_empty() {
            let retiring = self.retiring.read().unwrap_or_else(PoisonError::into_inner);
            mask.extend(retiring.get(credential).cloned());
        }
        Ok(Issued { lease, injections: injections.collect(), mask })
    }

    /// Whether a secret could be the credential's: it can stand wherever it has to, and be told from chance.
    pub fn check(&self, credential: &Name, secret: &Secret) -> Result<(), LeaseError> {
        self.slots.get(credential).ok_or(LeaseError::NotBound)?.check(secret)
    }

    /// Masks this secret, too, in answers to whoever is granted the credential from now on.
    pub fn mask_also(&self, credential: &Name, retiring: Option<Secret>) {
        let mut all = self.retiring.write().unwrap_or_else(PoisonError::into_inner);
        match retiring {
            Some(secret) => all.insert(credential.clone(), secret),
            None => all.remove(credential),
        };
    }

    /// A public field of a credential's bundle, as its current version has it.
    pub fn public(&self, credential: &Name, field: &str) -> Result<String, Arc<LeaseError>> {
        let slot = self.slots.get(credential).ok_or_else(|| Arc::new(LeaseError::NotBound))?;
        slot.current()?.public.get(field).cloned().ok_or_else(|| Arc::new(LeaseError::NoField))
    }

    /// Gives back everything that was leased, within `most`: no grant is made any longer.
    pub async fn close(&self, most: Duration) {
        let mut closing = JoinSet::new();
        for slot in self.slots.values() {
            closing.spawn(slot.close());
        }
        self.give_back(|_| false);
        let over = std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        closing.spawn(async move { drop(over.join_all().await) });
        if tokio::time::timeout(most, closing.join_all()).await.is_err() {
            tracing::warn!("what was leased is not given back in time; it ends by itself");
        }
    }

    /// How all credentials stand.
    pub fn standings(&self) -> Vec<Standing> {
        let mut all: Vec<_> = self.slots.values().map(|slot| self.standing(slot)).collect();
        all.extend(self.apart.values().map(|apart| self.standing_apart(apart)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// Asks for each of these anew, all at once: each may take seconds. Whether grants made before are void.
async fn renewed(slots: Vec<(String, Arc<Slot>)>) -> Vec<(String, Arc<Slot>, bool)> {
    let mut renewing = JoinSet::new();
    for (session, slot) in slots {
        renewing.spawn(async move {
            let changed = slot.renew().await;
            (session, slot, changed)
        });
    }
    renewing.join_all().await
}

#[cfg(test)]
mod tests;
