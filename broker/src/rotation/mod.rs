//! Rotation: a secret that lies in a file of ours is replaced by another, by schedule or at an operator's word, with
//! a time in which both are good (docs/rotation.md). Whoever makes the new one is a command or a hook.
//!
//! Nothing is lost, whatever ends the broker: the new secret is on disk before anything else happens to it, and the
//! old one until it is retired. What the database holds is how far each rotation has got, and no secret.

mod command;
mod error;
mod files;
mod hook;
mod rotating;
mod schedule;
pub mod vet;

pub use error::{RotateError, RotationError};
pub use rotating::Rotated;

use crate::audit::AuditLog;
use crate::changes::Feed;
use crate::clock::Now;
use crate::config::{Config, Credential, Lookup, Rotation, Rotator};
use crate::leases::{Leases, Standing};
use crate::sources::Environment;
use crate::state_dir::InstanceKey;
use crate::store::Store;
use attache_core::names::Name;
use command::Command;
use files::Files;
use hook::Hook;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rotating::{Maker, Parts, Rotating, Written};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(500);

/// What a command or a hook is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Make a new secret. The old one stays good.
    Rotate,
    /// End an old one.
    Retire,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Rotate => "rotate",
            Action::Retire => "retire",
        }
    }
}

/// How a rotation stands, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RotationStanding {
    /// When there was a new secret last, in Unix milliseconds.
    pub rotated_ms: Option<u64>,
    /// When the next one is due, in Unix milliseconds; `null`: when an operator says so.
    pub next_ms: Option<u64>,
    /// Until when the secret of before is good, in Unix milliseconds; `null`: none waits to be retired.
    pub retire_ms: Option<u64>,
    /// How often it has failed since something went well.
    pub failures: u32,
    /// When it is tried again, in Unix milliseconds; `null`: nothing has failed.
    pub retry_ms: Option<u64>,
    /// Why it failed, the last time.
    pub error: Option<String>,
    /// What mends that.
    pub fix: Option<String>,
}

/// What became of an attempt, of which credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Attempt {
    credential: String,
    result: &'static str,
}

/// Rotations.
#[derive(Clone, Debug, Default)]
pub struct RotationMeters {
    /// By credential and result: `rotated`, `retired`, `failed`, `rejected`.
    pub attempts: Family<Attempt, Counter>,
}

impl RotationMeters {
    fn count(&self, credential: &Name, result: &'static str) {
        self.attempts.get_or_create(&Attempt { credential: credential.to_string(), result }).inc();
    }
}

/// All rotations of an instance.
pub struct Rotations {
    all: BTreeMap<Name, Arc<Rotating>>,
    meters: RotationMeters,
}

/// What they work with.
pub struct With {
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
}

impl Rotations {
    /// Those of a config, where the life before has left them.
    pub async fn resume(config: &Config, environment: &Environment, with: With) -> Result<Self, RotationError> {
        let With { leases, feed, audit, store, key } = with;
        let (meters, stale_after) = (RotationMeters::default(), config.limits.stale_after);
        let state_dir = config.state_dir.clone();
        let parts = Parts { leases, feed, audit, store, key, state_dir, stale_after, meters: meters.clone() };
        let parts = Arc::new(parts);
        let mut rows: BTreeMap<_, _> =
            parts.store.rotations().await?.into_iter().map(|row| (row.credential.clone(), row)).collect();
        let (mut all, now) = (BTreeMap::new(), Now::read());
        for credential in &config.credentials {
            let Some(rotation) = &credential.rotation else { continue };
            if let Rotator::Command { argv, .. } = &rotation.by
                && let Err(error) = vet::vet(argv)
            {
                tracing::warn!(credential = %credential.name, %error, "the command that rotates it will not be run");
            }
            let written = written(credential, rotation, config, environment);
            let rotating = Rotating::resume(written, rows.remove(&credential.name), parts.clone(), now).await?;
            // From zero, so that the first is seen to be one more.
            for result in ["rotated", "retired", "failed", "rejected"] {
                let attempt = Attempt { credential: credential.name.to_string(), result };
                drop(meters.attempts.get_or_create(&attempt));
            }
            all.insert(credential.name.clone(), Arc::new(rotating));
        }
        for row in rows.values().filter(|row| row.attempt.is_some()) {
            let what = "its rotation is not over and stands in the config no more: nobody retires the old secret";
            tracing::warn!(credential = %row.credential, "{what}");
        }
        Ok(Self { all, meters })
    }

    /// Does what is due, over and over: for each credential one thing at a time.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(TICK);
        let mut looking = JoinSet::new();
        loop {
            tick.tick().await;
            while looking.try_join_next().is_some() {}
            for rotating in self.all.values() {
                let rotating = Arc::clone(rotating);
                looking.spawn(async move { rotating.look(Now::read()).await });
            }
        }
    }

    /// The rotation of a credential; `None`: the config has none.
    fn of(&self, credential: &Name) -> Option<Arc<Rotating>> {
        self.all.get(credential).cloned()
    }

    /// Whether the config has one.
    pub fn has(&self, credential: &Name) -> bool {
        self.all.contains_key(credential)
    }

    /// Has a secret replaced, and returns when no worker uses the one of before; or ends the overlap of the last time.
    /// `Ok(None)`: the config has no rotation for this credential.
    pub async fn rotate(&self, credential: &Name, retire_now: bool) -> Result<Option<Rotated>, RotateError> {
        match self.of(credential) {
            None => Ok(None),
            Some(rotating) if retire_now => rotating.retire_now().await.map(Some),
            Some(rotating) => rotating.rotate().await.map(Some),
        }
    }

    /// Adds to how credentials stand how their rotations do.
    pub fn mark(&self, standings: &mut [Standing]) {
        for standing in standings {
            standing.rotation = self.all.get(&standing.name).map(|rotating| rotating.standing());
        }
    }

    /// How all of them stand.
    pub fn standings(&self) -> impl Iterator<Item = (&Name, RotationStanding)> {
        self.all.iter().map(|(name, rotating)| (name, rotating.standing()))
    }

    /// What is counted here.
    pub fn meters(&self) -> &RotationMeters {
        &self.meters
    }
}

fn written(credential: &Credential, rotation: &Rotation, config: &Config, environment: &Environment) -> Written {
    let reads = |other: &&Credential| other.lookup.iter().filter_map(Lookup::file).any(|file| file == rotation.file);
    let maker = match &rotation.by {
        Rotator::Command { argv, .. } => {
            let given = rotation.environment();
            let given = given.filter_map(|name| Some((name.to_owned(), environment.of_rotation(name)?.clone())));
            Maker::Command(Command { argv: argv.clone(), env: given.collect(), timeout: rotation.timeout })
        }
        Rotator::Hook { url, token, ca_file } => {
            let token = token.as_ref().map(|at| (at.clone(), environment.handed(at)));
            Maker::Hook(Box::new(Hook::new(url, ca_file.clone(), token, rotation.timeout)))
        }
    };
    Written {
        name: credential.name.clone(),
        service: credential.service.clone(),
        sharing: config.credentials.iter().filter(reads).map(|other| other.name.clone()).collect(),
        every: rotation.every,
        overlap: rotation.overlap,
        maker,
        files: Files::of(&rotation.file, environment),
    }
}
