//! From a directory and a config to keys: opens what is sealed, seals what was not. Nothing starts without.

use super::files::{self, SecretFile};
use super::keyring::{FILE, Keyring, KeyringError};
use super::{Form, Key, Means, MeansError, SealError, Sealer};
use crate::clock::{Now, rfc3339};
use crate::config::Config;
use crate::private_file::{PrivateDir, PrivateError};
use crate::random::NoRandomness;
use crate::sources::Environment;
use rustix::fs::OFlags;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Whoever makes a data key, or seals operators' files, holds this file.
const LOCK: &str = "seal.lock";
/// How long somebody else may hold it.
const LONGEST: Duration = Duration::from_secs(60);

/// Why the state directory does not open.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The data keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// What opens them.
    #[error(transparent)]
    Means(#[from] MeansError),
    /// A file.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file that is not ours alone.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// No new key.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Sealed, and the config says nothing of it.
    #[error(
        "{path} says that this state directory is sealed by {by}, and the config says nothing of a seal: write `state: \
         {{seal: …}}` as it was, or take the seal off with that: attache state rekey --plain"
    )]
    NoSeal {
        /// The keyring.
        path: PathBuf,
        /// What opens it.
        by: String,
    },
    /// Sealed by something else.
    #[error(
        "{path} is sealed by {by}, and state.seal is {configured}: name the one that it is sealed by, or move to this \
         one: attache state rekey --old-key-file FILE (or --old-key-env VARIABLE)"
    )]
    WrongKey {
        /// The keyring.
        path: PathBuf,
        /// What opens it.
        by: String,
        /// What the config names.
        configured: String,
    },
    /// Sealed files, and no data key.
    #[error(
        "{file} is sealed under data key {key}, and {FILE}, which holds that key, is not there: restore it from a \
         backup of the same instance"
    )]
    NoKeyring {
        /// One of them.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// Sealed files that nothing opens.
    #[error(
        "{}: sealed, and open{} nowhere: a sealed file is bound to its name, and a copy under another name is worth \
         nothing. Remove {}, or move {} out of the directory of secrets; nothing has been changed",
        listed(.0), if .0.len() == 1 { "s" } else { "" }, them(.0), them(.0)
    )]
    Strays(Vec<PathBuf>),
    /// Somebody else has it.
    #[error("another attache command is sealing files here ({0}): wait until it has ended")]
    InUse(PathBuf),
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn them(paths: &[PathBuf]) -> &'static str {
    if paths.len() == 1 { "it" } else { "them" }
}

/// Opened.
pub struct Unlocked {
    /// How files are read and written.
    pub sealer: Sealer,
    /// By what it is sealed, for the record; `None`: files are plain.
    pub by: Option<String>,
    means: Option<Means>,
}

impl Unlocked {
    fn plain() -> Self {
        Self { sealer: Sealer::plain(), by: None, means: None }
    }

    /// What has opened it is needed no more.
    pub async fn leave(self) {
        if let Some(means) = self.means {
            means.leave().await;
        }
    }
}

/// Whether a directory that is not sealed yet, and is to be, gets its first data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It does.
    Make,
    /// Nothing is written: its files are plain.
    Leave,
}

/// Opens a state directory.
pub async fn unlock(
    dir: &PrivateDir,
    config: &Config,
    environment: &Environment,
    first: First,
) -> Result<Unlocked, UnlockError> {
    let path = || dir.path().join(FILE);
    let keyring = Keyring::load(dir, &config.instance)?;
    let Some(seal) = &config.seal else {
        return match keyring {
            None => Ok(Unlocked::plain()),
            Some(keyring) => Err(UnlockError::NoSeal { path: path(), by: keyring.by() }),
        };
    };
    if keyring.is_none() && first == First::Leave {
        lost(config)?;
        return Ok(Unlocked::plain());
    }
    let means = Means::of(seal, environment)?;
    let opened = match keyring {
        Some(keyring) => open(&keyring, &means, dir, config).await,
        None => begin(&means, dir, config).await,
    };
    match opened {
        Ok((sealer, by)) => Ok(Unlocked { sealer, by: Some(by), means: Some(means) }),
        Err(error) => {
            means.leave().await;
            Err(error)
        }
    }
}

/// Every data key, opened. One that does not open stays shut only if no file is under it: whoever reads one is told.
async fn open(
    keyring: &Keyring,
    means: &Means,
    dir: &PrivateDir,
    config: &Config,
) -> Result<(Sealer, String), UnlockError> {
    let mut others = Vec::new();
    let mut current = None;
    for kept in &keyring.keys {
        match means.unwrap(&config.instance, kept).await? {
            Some(key) if kept.id == keyring.current => current = Some(key),
            Some(key) => others.push(key),
            None => {}
        }
    }
    let Some(current) = current else {
        let path = dir.path().join(FILE);
        return Err(UnlockError::WrongKey { path, by: keyring.by(), configured: means.describe() });
    };
    if keyring.is_moving() {
        tracing::warn!("a change of the seal's keys has begun and not ended: run `attache state rekey` again");
    }
    let by = format!("{}, data key {} since {}", means.name(), current.id(), rfc3339(keyring.since_ms));
    Ok((Sealer::new(bound(config), current, others), by))
}

/// The first data key.
async fn begin(means: &Means, dir: &PrivateDir, config: &Config) -> Result<(Sealer, String), UnlockError> {
    let lock = Lock::take(dir).await?;
    if let Some(keyring) = Keyring::load(dir, &config.instance)? {
        return open(&keyring, means, dir, config).await;
    }
    lost(config)?;
    let data = Key::make()?;
    let wrap = means.wrap(&config.instance, &data).await?;
    let keyring = Keyring::begin(&config.instance, &data, wrap, Now::read().wall_ms);
    keyring.store(dir)?;
    drop(lock);
    open(&keyring, means, dir, config).await
}

/// Without a keyring no file may be sealed: a new key beside it would be the end of it.
pub fn lost(config: &Config) -> Result<(), UnlockError> {
    for file in files::all(config)? {
        match file.form()? {
            Some(Form::Sealed(key)) => return Err(UnlockError::NoKeyring { file: file.path, key }),
            Some(Form::Newer) => return Err(SealError::Newer(file.path).into()),
            Some(Form::Damaged) if file.kind == files::Kind::Own => {
                return Err(SealError::Damaged { path: file.path, key: None }.into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Seals the broker's own files, where they are plain, and removes what a kill has left of one.
pub fn settle(config: &Config, dir: &PrivateDir, sealer: &Sealer) -> Result<(), SealError> {
    if sealer.key_id().is_none() {
        return Ok(());
    }
    for name in files::OWN {
        dir.erase(&files::leftover(name))?;
    }
    for file in files::of_broker(config) {
        let was_plain = file.form()? == Some(Form::Plain);
        if was_plain && SecretFile::settle(&file, sealer, sealer)? {
            tracing::info!(file = %file.path.display(), "sealed");
        }
    }
    Ok(())
}

/// To whom files are bound, and where operators' are.
pub fn bound(config: &Config) -> (attache_core::names::Name, PathBuf) {
    (config.instance.clone(), config.sources.file_dir.clone())
}

/// Held while data keys are made or given up, and while operators' files are sealed.
pub struct Lock(File);

impl Lock {
    /// Takes it, and waits for it if it must.
    pub async fn take(dir: &PrivateDir) -> Result<Self, UnlockError> {
        let path = dir.path().join(LOCK);
        let io = |cause| PrivateError::Io { path: path.clone(), cause };
        let file = dir.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        let file = file.ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))?;
        let end = Instant::now() + LONGEST;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(Duration::from_millis(50)).await,
                Err(TryLockError::WouldBlock) => return Err(UnlockError::InUse(path)),
                Err(TryLockError::Error(cause)) => return Err(io(cause).into()),
            }
        }
    }
}

impl Drop for Lock {
    /// Unlocked rather than closed: see `StateDir`.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
