//! What is done at each step.

use super::{Maker, Rotating, State, new_id};
use crate::audit::{Decision, Record, Unavailable};
use crate::changes::Applied;
use crate::clock::Now;
use crate::rotation::files::same;
use crate::rotation::{Action, RotationError, command};
use crate::store::Step;
use attache_core::Secret;
use std::time::Duration;

/// How long writing down a change is waited for.
const BRIEF: Duration = Duration::from_secs(1);

impl Rotating {
    /// From here on a command or a hook may have made a secret.
    pub(super) async fn begin(&self, state: &mut State, operator: bool) -> Result<(), RotationError> {
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
    pub(super) async fn make(&self, state: &mut State) -> Result<(), RotationError> {
        let old = self.files.current().await?;
        let old = old.ok_or_else(|| RotationError::NoSecret(self.files.path().to_owned()))?;
        let next = self.files.next().await?;
        if self.files.has_rejected() {
            return self.reject_again(state, next).await;
        }
        let new = match next {
            Some(new) => new,
            None => self.ask_for_new(state, &old).await?,
        };
        for name in &self.sharing {
            if let Err(why) = self.parts.leases.check(name, &new) {
                let path = self.files.rejected_path();
                return self.reject(state, &new, RotationError::Rejected { path, why }).await;
            }
        }
        self.put_in_place(state, &old, &new).await?;
        let now = Now::read();
        state.row.step = Step::Telling;
        state.row.rotated_ms = Some(now.wall_ms);
        state.row.since_ms = now.wall_ms;
        state.life.rotated(now);
        state.told = false;
        self.keep(state).await?;
        Ok(self.files.forget_next()?)
    }

    /// Unless somebody has written another secret since the command or the hook was asked: that one stays.
    async fn put_in_place(&self, state: &mut State, old: &Secret, new: &Secret) -> Result<(), RotationError> {
        // `attache credential set` holds it, too.
        let _alone = self.parts.alone().await?;
        let now = self.files.current().await?;
        if !now.is_some_and(|now| same(&now, old) || same(&now, new)) {
            return self.reject(state, new, RotationError::Replaced(self.files.rejected_path())).await;
        }
        // Before anybody can be granted the new one.
        if !same(old, new) {
            self.mask(Some(old));
        }
        Ok(self.files.install(old, new)?)
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
    async fn reject(&self, state: &mut State, new: &Secret, why: RotationError) -> Result<(), RotationError> {
        self.files.reject(new)?;
        self.give_up(state).await?;
        Err(why)
    }

    /// A life before was putting the new one aside when it ended, or has done that.
    async fn reject_again(&self, state: &mut State, next: Option<Secret>) -> Result<(), RotationError> {
        let why = RotationError::RejectedWaits(self.files.rejected_path());
        if let Some(next) = next {
            return self.reject(state, &next, why).await;
        }
        self.give_up(state).await?;
        Err(why)
    }

    async fn give_up(&self, state: &mut State) -> Result<(), RotationError> {
        state.row.step = Step::Idle;
        state.row.attempt = None;
        self.keep(state).await
    }

    /// Has every worker forget grants of before, then begins the overlap.
    pub(super) async fn tell(&self, state: &mut State) -> Result<(Option<Applied>, Option<String>), RotationError> {
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
    pub(super) async fn retire(&self, state: &mut State) -> Result<Option<String>, RotationError> {
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

    pub(super) fn mask(&self, old: Option<&Secret>) {
        for name in &self.sharing {
            self.parts.leases.mask_also(name, old.cloned());
        }
    }
}
