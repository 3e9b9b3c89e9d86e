//! The rotation of one credential, step by step. Each step is kept on disk before the next one begins, and does no
//! harm when it is done once more: whatever ends the broker, the next one goes on where this one was.

mod report;
mod steps;

use super::command::Command;
use super::files::Files;
use super::hook::Hook;
use super::schedule::Life;
use super::{RotateError, RotationError, RotationMeters};
use crate::audit::AuditLog;
use crate::changes::{Applied, Feed};
use crate::clock::Now;
use crate::leases::Leases;
use crate::private_file::PrivateDir;
use crate::random;
use crate::seal::UnlockError;
use crate::seal::unlock::Lock;
use crate::state_dir::InstanceKey;
use crate::store::{RotationRow, Step, Store};
use attache_core::names::Name;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// Who makes new secrets.
pub enum Maker {
    /// A command.
    Command(Command),
    /// A server.
    Hook(Box<Hook>),
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
    /// The instance's directory.
    pub state_dir: PathBuf,
    /// After this long a worker that does not answer injects nothing.
    pub stale_after: Duration,
    /// What is counted.
    pub meters: RotationMeters,
}

impl Parts {
    /// While this is held, no command writes an operator's secret.
    async fn alone(&self) -> Result<Lock, UnlockError> {
        Lock::take(&PrivateDir::open_or_create(&self.state_dir)?).await
    }
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
    /// Whether the old secret, where there is one, is masked: one that could not be read at the start is not yet.
    masked: bool,
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
        let retiring = files.retiring().await;
        let masked = retiring.is_ok();
        let retiring = retiring.ok().flatten();
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
        let state = Mutex::new(State { row, life, told: false, masked });
        Ok(Self { name, service, sharing, every, overlap, maker, files, state, shown, parts })
    }

    /// Does what is due, if anything is.
    pub async fn look(&self, now: Now) {
        let Ok(mut state) = self.state.try_lock() else { return };
        if !state.masked
            && let Ok(old) = self.files.retiring().await
        {
            self.mask(old.as_ref());
            state.masked = true;
        }
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
