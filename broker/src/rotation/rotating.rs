//! The rotation of one credential, step by step. Each step is kept on disk before the next one begins, and does no
//! harm when it is done once more: whatever ends the broker, the next one goes on where this one was.

use super::command::{self, Command};
use super::files::{Files, same};
use super::hook::Hook;
use super::schedule::{Life, due};
use super::{Action, RotateError, RotationError, RotationMeters, RotationStanding};
use crate::audit::{AuditLog, Decision, Kind, Record, Unavailable};
use crate::changes::{Applied, Feed};
use crate::clock::Now;
use crate::leases::{LeaseError, Leases};
use crate::random;
use crate::state_dir::InstanceKey;
use crate::store::{RotationRow, Step, Store};
use attache_core::Secret;
use attache_core::names::Name;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How long writing down a change is waited for.
const BRIEF: Duration = Duration::from_secs(1);

/// Who makes new secrets.
pub enum Maker {
    /// A command.
    Command(Command),
    /// A server.
    Hook(Hook),
}

/// What all rotations work with.
pub struct Parts {
    /// The credentials.
    pub leases: Arc<Leases>,
    /// Tells the workers.
    pub feed: Arc<Feed>,
    /// The record.
    pub audit: Arc<AuditLog>,
    /// How far each has got.
    pub store: Arc<Store>,
    /// Names versions.
    pub key: Arc<InstanceKey>,
    /// After this long a worker that does not answer injects nothing.
    pub stale_after: Duration,
    /// What is counted.
    pub meters: RotationMeters,
}

/// One credential whose secret is replaced.
pub struct Rotating {
    /// Its name.
    pub name: Name,
    /// The `service` of its records.
    pub service: String,
    /// All credentials that have their secret from the same file.
    pub sharing: Vec<Name>,
    /// How often; `None`: only when an operator says so.
    pub every: Option<Duration>,
    /// How long the old one stays good.
    pub overlap: Duration,
    /// Who makes the new one.
    pub maker: Maker,
    /// Where they lie.
    pub files: Files,
    /// One thing at a time.
    state: Mutex<State>,
    /// As it was kept last.
    shown: RwLock<RotationRow>,
    parts: Arc<Parts>,
}

struct State {
    row: RotationRow,
    life: Life,
    /// Whether every worker of this life has heard of the secret in use.
    told: bool,
}

/// What an operator has had done.
pub struct Rotated {
    /// Where it is in force; `None`: an old one was retired, or none waited.
    pub applied: Option<Applied>,
    /// The fingerprint of the old one.
    pub old: Option<String>,
    /// Until when that is good, in Unix milliseconds; `None`: it is retired.
    pub retire_ms: Option<u64>,
}

/// What is written down of a rotation in the config.
pub struct Written {
    pub name: Name,
    pub service: String,
    pub sharing: Vec<Name>,
    pub every: Option<Duration>,
    pub overlap: Duration,
    pub maker: Maker,
    pub files: Files,
}

impl Rotating {
    /// Goes on where the life before has ended. Files are believed before the database, which may be a backup.
    pub async fn resume(
        written: Written,
        row: Option<RotationRow>,
        parts: Arc<Parts>,
        now: Now,
    ) -> Result<Self, RotationError> {
        let Written { name, service, sharing, every, overlap, maker, files } = written;
        let is_known = row.is_some();
        let mut row = row.unwrap_or_else(|| RotationRow::new(name.clone(), now.wall_ms));
        let before = row.clone();
        // What it cannot read is told when it is to be used.
        let retiring = files.retiring().await.ok().flatten();
        let has_next = matches!(files.next().await, Ok(Some(_)));
        row.step = match row.step {
            Step::Idle if has_next => Step::Asking,
            Step::Idle if retiring.is_some() => Step::Overlap,
            step => step,
        };
        if row.step != Step::Idle && row.attempt.is_none() {
            row.attempt = Some(new_id()?);
        }
        if row.step == Step::Overlap && row.retire_ms.is_none() {
            row.retire_ms = Some(now.plus(overlap).wall_ms);
        }
        // A clock that was set back would wait for the time that it has lost.
        row.since_ms = row.since_ms.min(now.wall_ms);
        if !is_known || row != before {
            parts.store.keep_rotation(&row).await?;
        }
        for name in &sharing {
            parts.leases.mask_also(name, retiring.clone());
        }
        let life = Life::new(&row, every, overlap, now);
        let shown = RwLock::new(row.clone());
        let state = Mutex::new(State { row, life, told: false });
        Ok(Self { name, service, sharing, every, overlap, maker, files, state, shown, parts })
    }

    /// Does what is due, if anything is.
    pub async fn look(&self, now: Now) {
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.row.since_ms > now.wall_ms {
            state.row.since_ms = now.wall_ms;
            if let Err(error) = self.keep(&state).await {
                tracing::warn!(credential = %self.name, %error, "when the next rotation is due is not stored");
            }
        }
        if !state.life.wants(&state.row, self.every, now) {
            return;
        }
        if let Err(error) = self.advance(&mut state, None).await {
            self.failed(&mut state, &error).await;
        }
    }

    /// Has an operator's rotation done, and returns when no worker uses the secret of before.
    pub async fn rotate(&self) -> Result<Rotated, RotateError> {
        let mut state = self.alone()?;
        if let (Step::Overlap, Some(retire_ms)) = (state.row.step, state.row.retire_ms) {
            if !state.life.is_over(Now::read()) {
                return Err(RotateError::OldWaits(retire_ms));
            }
            self.by_operator(&mut state, Wish::Retire).await?;
        }
        self.by_operator(&mut state, Wish::Rotate).await
    }

    /// Retires an old secret whose time is not over.
    pub async fn retire_now(&self) -> Result<Rotated, RotateError> {
        let mut state = self.alone()?;
        if matches!(state.row.step, Step::Idle | Step::Asking) {
            return Ok(Rotated { applied: None, old: None, retire_ms: None });
        }
        state.row.operator = true;
        self.by_operator(&mut state, Wish::Retire).await
    }

    fn alone(&self) -> Result<MutexGuard<'_, State>, RotateError> {
        self.state.try_lock().map_err(|_| RotateError::UnderWay)
    }

    async fn by_operator(&self, state: &mut State, wish: Wish) -> Result<Rotated, RotateError> {
        let done = self.advance(state, Some(wish)).await;
        if let Err(error) = &done {
            self.failed(state, error).await;
        }
        Ok(done?)
    }

    /// Goes on until there is nothing to do but wait.
    async fn advance(&self, state: &mut State, wish: Option<Wish>) -> Result<Rotated, RotationError> {
        let mut done = Rotated { applied: None, old: None, retire_ms: None };
        if state.row.step == Step::Idle {
            self.begin(state, wish.is_some()).await?;
        }
        if state.row.step == Step::Asking {
            self.make(state).await?;
        }
        if state.row.step == Step::Telling {
            (done.applied, done.old) = self.tell(state).await?;
        }
        let is_over = state.life.is_over(Now::read()) || wish == Some(Wish::Retire);
        if state.row.step == Step::Overlap && is_over {
            done.old = self.retire(state).await?;
        }
        done.retire_ms = state.row.retire_ms;
        Ok(done)
    }

    /// From here on a command or a hook may have made a secret.
    async fn begin(&self, state: &mut State, operator: bool) -> Result<(), RotationError> {
        if self.files.has_rejected() {
            return Err(RotationError::RejectedWaits(self.files.rejected_path()));
        }
        // No record, no rotation.
        if self.parts.audit.fault().is_some() {
            return Err(Unavailable.into());
        }
        // What one of before has printed is not this one's.
        command::left_behind(&self.files)?;
        self.files.forget_answer()?;
        state.row.attempt = Some(new_id()?);
        state.row.operator = operator;
        state.row.step = Step::Asking;
        self.keep(state).await
    }

    /// A new secret, durable before anything else happens to it, and in place if it can be used.
    async fn make(&self, state: &mut State) -> Result<(), RotationError> {
        let old = self.files.current().await?;
        let old = old.ok_or_else(|| RotationError::NoSecret(self.files.path().to_owned()))?;
        let new = match self.files.next().await? {
            Some(new) => new,
            None => self.ask_for_new(state, &old).await?,
        };
        for name in &self.sharing {
            if let Err(why) = self.parts.leases.check(name, &new) {
                return self.reject(state, &new, why).await;
            }
        }
        // Before anybody can be granted the new one.
        if !same(&old, &new) {
            self.mask(Some(&old));
        }
        self.files.install(&old, &new)?;
        let now = Now::read();
        state.row.step = Step::Telling;
        state.row.rotated_ms = Some(now.wall_ms);
        state.row.since_ms = now.wall_ms;
        state.life.rotated(now);
        state.told = false;
        self.keep(state).await?;
        Ok(self.files.forget_next()?)
    }

    async fn ask_for_new(&self, state: &State, old: &Secret) -> Result<Secret, RotationError> {
        let left = command::left_behind(&self.files)?;
        let new = match left.filter(|left| !same(left, old)) {
            Some(left) => left,
            None => self.ask(Action::Rotate, state, old).await?.ok_or(RotationError::Empty)?,
        };
        if same(&new, old) {
            self.files.forget_answer()?;
            return Err(RotationError::Same);
        }
        self.files.keep_next(&new)?;
        self.files.forget_answer()?;
        Ok(new)
    }

    /// The service may take the new one alone already: it is kept for whoever looks into it.
    async fn reject<T>(&self, state: &mut State, new: &Secret, why: LeaseError) -> Result<T, RotationError> {
        self.files.reject(new)?;
        state.row.step = Step::Idle;
        state.row.attempt = None;
        self.keep(state).await?;
        Err(RotationError::Rejected { path: self.files.rejected_path(), why })
    }

    /// Has every worker forget grants of before, then begins the overlap.
    async fn tell(&self, state: &mut State) -> Result<(Option<Applied>, Option<String>), RotationError> {
        self.files.forget_next()?;
        let (old, new) = (self.files.retiring().await?, self.files.current().await?);
        let applied = self.everywhere(state).await;
        let fingerprint = |secret: &Option<Secret>| secret.as_ref().map(|secret| self.parts.key.fingerprint(secret));
        let replaced = fingerprint(&old);
        let record = Record { replaced: replaced.clone(), ..self.record(state, Decision::Rotate, fingerprint(&new)) };
        self.parts.audit.append(record).await?;
        let now = Now::read();
        if old.is_some() {
            state.row.step = Step::Overlap;
            state.row.retire_ms = Some(state.life.overlaps(now, self.overlap));
        } else {
            state.row.step = Step::Idle;
            state.row.attempt = None;
        }
        self.went_well(state, "rotated").await?;
        tracing::info!(credential = %self.name, "there is a new secret");
        Ok((Some(applied), replaced))
    }

    /// Nobody uses the old one: ends it at the service.
    async fn retire(&self, state: &mut State) -> Result<Option<String>, RotationError> {
        if !state.told {
            self.everywhere(state).await;
        }
        let mut retired = None;
        if let Some(old) = self.files.retiring().await? {
            if self.files.current().await?.is_some_and(|current| same(&current, &old)) {
                return Err(RotationError::InUseAgain);
            }
            // Whatever a life before has begun is over first.
            command::left_behind(&self.files)?;
            self.ask(Action::Retire, state, &old).await?;
            retired = Some(self.parts.key.fingerprint(&old));
            self.parts.audit.append(self.record(state, Decision::Retire, retired.clone())).await?;
        }
        // One that a life before was erasing, too.
        self.files.forget_retiring()?;
        self.mask(None);
        state.row.step = Step::Idle;
        state.row.attempt = None;
        state.row.retire_ms = None;
        self.went_well(state, "retired").await?;
        tracing::info!(credential = %self.name, "the old secret is retired");
        Ok(retired)
    }

    async fn ask(&self, action: Action, state: &State, secret: &Secret) -> Result<Option<Secret>, RotationError> {
        let id = state.row.attempt.as_deref().unwrap_or_default();
        let what = (action, id, &self.name);
        match &self.maker {
            Maker::Command(command) => command.run(what, secret, &self.files).await,
            Maker::Hook(hook) => hook.ask(what, secret).await,
        }
    }

    /// Returns when no worker uses another secret than the one in its file.
    async fn everywhere(&self, state: &mut State) -> Applied {
        let mut cursor = 0;
        for name in &self.sharing {
            if let Some((_, published)) = self.parts.leases.reload(name).await {
                cursor = cursor.max(published);
            }
        }
        let feed = &self.parts.feed;
        let (applied, ()) = tokio::join!(feed.applied(cursor, self.parts.stale_after), feed.written(cursor, BRIEF));
        state.told = true;
        applied
    }

    fn mask(&self, old: Option<&Secret>) {
        for name in &self.sharing {
            self.parts.leases.mask_also(name, old.cloned());
        }
    }

    fn record(&self, state: &State, decision: Decision, fingerprint: Option<String>) -> Record {
        let by = if state.row.operator { "by an operator" } else { "by schedule" };
        Record {
            service: Some(self.service.clone()),
            credential: Some(self.name.clone()),
            decision: Some(decision.as_str().into()),
            reason: Some(by.to_owned()),
            fingerprint,
            ..Record::new(Kind::Renew, Now::read().wall_ms)
        }
    }

    async fn went_well(&self, state: &mut State, result: &'static str) -> Result<(), RotationError> {
        state.life.went_well();
        state.row.failures = 0;
        (state.row.retry_ms, state.row.error, state.row.fix) = (None, None, None);
        self.parts.meters.count(&self.name, result);
        self.keep(state).await
    }

    /// Told once, and again whenever there were twice as many.
    async fn failed(&self, state: &mut State, error: &RotationError) {
        let now = Now::read();
        let failures = state.row.failures.saturating_add(1);
        state.row.failures = failures;
        state.row.retry_ms = Some(state.life.failed(failures, now));
        (state.row.error, state.row.fix) = (Some(error.to_string()), Some(error.fix().to_owned()));
        let result = if matches!(error, RotationError::Rejected { .. }) { "rejected" } else { "failed" };
        self.parts.meters.count(&self.name, result);
        tracing::error!(credential = %self.name, %error, failures, "the rotation fails");
        if let Err(error) = self.keep(state).await {
            tracing::error!(credential = %self.name, %error, "how far the rotation has got is not stored");
        }
        if failures.is_power_of_two() {
            let what =
                if state.row.step == Step::Overlap { "the old secret is not retired" } else { "it is not rotated" };
            let times = if failures == 1 { String::new() } else { format!(" ({failures} times)") };
            let alarm = Record {
                service: Some(self.service.clone()),
                credential: Some(self.name.clone()),
                reason: Some(format!("{what}{times}: {error}")),
                ..Record::new(Kind::Alarm, now.wall_ms)
            };
            if self.parts.audit.append(alarm).await.is_err() {
                tracing::error!(credential = %self.name, "nor is that on record");
            }
        }
    }

    async fn keep(&self, state: &State) -> Result<(), RotationError> {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = state.row.clone();
        Ok(self.parts.store.keep_rotation(&state.row).await?)
    }

    /// How it stands.
    pub fn standing(&self) -> RotationStanding {
        let row = self.shown.read().unwrap_or_else(PoisonError::into_inner).clone();
        let waits = row.step == Step::Overlap;
        RotationStanding {
            rotated_ms: row.rotated_ms,
            next_ms: self.every.map(|every| due(row.since_ms, every)),
            retire_ms: row.retire_ms.filter(|_| waits),
            failures: row.failures,
            retry_ms: row.retry_ms,
            error: row.error,
            fix: row.fix,
        }
    }
}

fn new_id() -> Result<String, RotationError> {
    Ok(format!("r-{}", random::id()?))
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Rotate,
    Retire,
}
