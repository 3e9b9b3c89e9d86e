//! `attache credential set`: a secret from standard input, or from what a rotation has put aside, into the file source,
//! sealed where there is a seal.

mod input;

use crate::cli::common::{Common, FAILED, complain, note, say};
use crate::cli::config;
use crate::config::rotation::{REJECTED, RETIRING, beside};
use crate::config::{Config, Credential, Lookup};
use crate::hygiene;
use crate::leases::{LeaseError, could_be};
use crate::private_file::{PrivateDir, PrivateError};
use crate::seal::unlock::{First, Lock, UnlockError, unlock};
use crate::seal::{FILE, Keyring, SealError, Sealer};
use crate::sources::{self, Environment, MOST, SourceError};
use crate::state_dir::{Locked, StateDirError};
use attache_core::Secret;
use attache_core::names::Name;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a rotation has put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Side {
    /// A new secret that it could not put in place
    Rejected,
    /// The old one, which waits to be retired
    Retiring,
}

impl Side {
    fn suffix(self) -> &'static str {
        match self {
            Side::Rejected => REJECTED,
            Side::Retiring => RETIRING,
        }
    }
}

/// Why nothing is written. Says nothing of the secret.
#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error("the config has no credential {0}")]
    NoCredential(Name),
    #[error("credential {0} is read from no file: write `source: {{file: NAME}}`")]
    NoFile(Name),
    #[error("a terminal would show the secret: pipe it in, `attache credential set {0} < FILE`")]
    Terminal(Name),
    #[error("standard input: {0}")]
    Input(std::io::Error),
    #[error("standard input holds no secret: one line of text, at most {MOST} bytes")]
    NoSecret,
    #[error("{} is not there: no rotation has put a secret aside", .0.display())]
    NotAside(PathBuf),
    #[error("the secret in {path} cannot be used, and was left there: {why}; {fix}", path = path.display(), fix = why.fix())]
    Unusable { path: PathBuf, why: LeaseError },
    #[error(
        "{path} is in use by process {pid}, which has begun without the seal ({FILE} is not there): restart the broker \
         first, then do this again", path = path.display()
    )]
    RestartFirst { path: PathBuf, pid: String },
    #[error("the seal's keys were changed meanwhile, and nothing was written: do it again")]
    Changed,
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

/// What was done.
struct Done<'a> {
    credential: &'a Credential,
    path: &'a Path,
    is_sealed: bool,
}

/// Writes it.
pub(super) async fn run(name: &Name, from: Option<Side>, common: &Common) -> ExitCode {
    if let Err(error) = hygiene::apply() {
        return complain(FAILED, error);
    }
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match set(&config, name, from).await {
        Ok(done) => {
            tell(&done, from);
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, error),
    }
}

fn tell(Done { credential, path, is_sealed }: &Done<'_>, from: Option<Side>) {
    let (name, how) = (&credential.name, if *is_sealed { "sealed, " } else { "" });
    let whence = from.map(|side| (side, beside(path, side.suffix())));
    let whence = match &whence {
        None => String::new(),
        Some((Side::Rejected, side)) => format!("; {} is erased", side.display()),
        Some((Side::Retiring, side)) => {
            format!("; {} stays, and is not retired while it is in use: remove it if that is meant", side.display())
        }
    };
    say(format_args!(
        "{name} is in {}, {how}0600{whence}; `attache credential reload {name}` says when no worker uses an older one",
        path.display()
    ));
    if credential.rotation.is_some() && from.is_none() {
        note(format_args!(
            "{name} has a rotation: `attache credential rotate {name}` makes new secrets by itself. What one that is \
             under way now makes does not replace this: it goes to {}",
            beside(path, REJECTED).display()
        ));
    }
}

async fn set<'a>(config: &'a Config, name: &Name, from: Option<Side>) -> Result<Done<'a>, SetError> {
    let credential = config.credentials.iter().find(|credential| credential.name == *name);
    let credential = credential.ok_or_else(|| SetError::NoCredential(name.clone()))?;
    let path = credential.lookup.iter().find_map(Lookup::file).ok_or_else(|| SetError::NoFile(name.clone()))?;
    let given = if from.is_none() { Some(input::secret(name)?) } else { None };
    let dir = PrivateDir::open_or_create(&config.state_dir)?;
    let _no_broker = no_broker_without_this_seal(config, &dir)?;
    let sealer = opened(config, &dir).await?;
    let _sealing = Lock::take(&dir).await?;
    // Unless the data key has been given up meanwhile, what is sealed under it now opens.
    let keyring = Keyring::load(&dir, &config.instance).map_err(UnlockError::from)?;
    if keyring.as_ref().map(|keyring| keyring.current.as_str()) != sealer.key_id() {
        return Err(SetError::Changed);
    }
    match (given, from) {
        (Some(secret), _) => {
            let (dir, file) = place(path)?;
            sealer.replace(&dir, file, &secret)?;
        }
        (None, Some(side)) => put_back(config, path, side, &sealer).await?,
        (None, None) => {}
    }
    Ok(Done { credential, path, is_sealed: sealer.key_id().is_some() })
}

/// A broker that has begun without the seal would not open what is sealed under it. Whoever makes the first data key
/// therefore holds the directory for as long as this is kept.
fn no_broker_without_this_seal(config: &Config, dir: &PrivateDir) -> Result<Option<Locked>, SetError> {
    let is_first = || Keyring::load(dir, &config.instance).map(|keyring| keyring.is_none());
    if config.seal.is_none() || !is_first().map_err(UnlockError::from)? {
        return Ok(None);
    }
    match Locked::take(&config.state_dir) {
        Ok(locked) => Ok(Some(locked)),
        // One that has begun with it has made it by now.
        Err(StateDirError::InUse { .. }) if !is_first().map_err(UnlockError::from)? => Ok(None),
        Err(StateDirError::InUse { path, pid }) => Err(SetError::RestartFirst { path, pid }),
        Err(error) => Err(error.into()),
    }
}

async fn opened(config: &Config, dir: &PrivateDir) -> Result<Sealer, UnlockError> {
    let environment = Environment::read(config, &|name| std::env::var_os(name));
    let unlocked = unlock(dir, config, &environment, First::Make).await?;
    let sealer = unlocked.sealer.clone();
    unlocked.leave().await;
    Ok(sealer)
}

/// A sealed file is bound to its name: opened under its own, it is sealed anew under the secret's.
async fn put_back(config: &Config, path: &Path, side: Side, sealer: &Sealer) -> Result<(), SetError> {
    let aside = beside(path, side.suffix());
    let secret = read(&aside, sealer).await?.ok_or_else(|| SetError::NotAside(aside.clone()))?;
    let reads = |credential: &&Credential| credential.lookup.iter().filter_map(Lookup::file).any(|file| file == path);
    for credential in config.credentials.iter().filter(reads) {
        could_be(credential, &secret).map_err(|why| SetError::Unusable { path: aside.clone(), why })?;
    }
    let (dir, file) = place(path)?;
    // Exposed to the file that is its home.
    sealer.replace(&dir, file, secret.expose().as_bytes())?;
    // Kept twice until here, and never lost.
    if side == Side::Rejected {
        dir.erase(&format!("{file}{}", side.suffix()))?;
    }
    Ok(())
}

/// As the file source reads it. One that was being erased is none: that begins with zeros.
async fn read(path: &Path, sealer: &Sealer) -> Result<Option<Secret>, SourceError> {
    let environment = Environment::default();
    environment.seal(sealer.clone());
    let found = sources::open(&Lookup::File(path.to_owned()), &environment).read().await?;
    // Exposed to its first byte.
    Ok(found.map(|found| found.secret).filter(|secret| !secret.expose().starts_with('\0')))
}

fn place(path: &Path) -> Result<(PrivateDir, &str), PrivateError> {
    let file = path.file_name().and_then(|name| name.to_str());
    let (Some(parent), Some(file)) = (path.parent(), file) else {
        return Err(PrivateError::NotAFile(path.to_owned()));
    };
    Ok((PrivateDir::open_or_create(parent)?, file))
}
