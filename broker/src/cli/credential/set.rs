//! `attache credential set`: a secret from standard input into the file source, sealed where there is a seal.

use crate::cli::common::{Common, FAILED, complain, say};
use crate::cli::config;
use crate::config::{Config, Lookup};
use crate::hygiene;
use crate::private_file::{PrivateDir, PrivateError};
use crate::seal::unlock::{First, Lock, UnlockError, unlock};
use crate::seal::{Keyring, SealError};
use crate::sources::{Environment, MOST};
use attache_core::names::Name;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

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
    #[error("the seal's keys were changed meanwhile, and nothing was written: do it again")]
    Changed,
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Writes it.
pub(super) async fn run(name: &Name, common: &Common) -> ExitCode {
    if let Err(error) = hygiene::apply() {
        return complain(FAILED, error);
    }
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match set(&config, name).await {
        Ok((path, is_sealed)) => {
            let how = if is_sealed { "sealed, " } else { "" };
            say(format_args!(
                "{name} is in {}, {how}0600; `attache credential reload {name}` says when no worker uses an older one",
                path.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, error),
    }
}

async fn set(config: &Config, name: &Name) -> Result<(PathBuf, bool), SetError> {
    let credential = config.credentials.iter().find(|credential| credential.name == *name);
    let credential = credential.ok_or_else(|| SetError::NoCredential(name.clone()))?;
    let path = credential.lookup.iter().find_map(Lookup::file).ok_or_else(|| SetError::NoFile(name.clone()))?;
    let secret = secret(name)?;
    let dir = PrivateDir::open_or_create(&config.state_dir)?;
    let environment = Environment::read(config, &|name| std::env::var_os(name));
    let unlocked = unlock(&dir, config, &environment, First::Make).await?;
    let sealer = unlocked.sealer.clone();
    unlocked.leave().await;
    let _sealing = Lock::take(&dir).await?;
    // Unless the data key has been given up meanwhile, what is sealed under it now opens.
    let keyring = Keyring::load(&dir, &config.instance).map_err(UnlockError::from)?;
    if keyring.as_ref().map(|keyring| keyring.current.as_str()) != sealer.key_id() {
        return Err(SetError::Changed);
    }
    let (dir, file) = place(path)?;
    sealer.replace(&dir, file, &secret)?;
    Ok((path.to_owned(), sealer.key_id().is_some()))
}

fn place(path: &Path) -> Result<(PrivateDir, &str), PrivateError> {
    let file = path.file_name().and_then(|name| name.to_str());
    let (Some(parent), Some(file)) = (path.parent(), file) else {
        return Err(PrivateError::NotAFile(path.to_owned()));
    };
    Ok((PrivateDir::open_or_create(parent)?, file))
}

/// As the file source will read it: text, without the line break at its end.
fn secret(name: &Name) -> Result<Zeroizing<Vec<u8>>, SetError> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(SetError::Terminal(name.clone()));
    }
    // All its room at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 3));
    // Its own reader has a buffer that nobody clears.
    let input = File::from(input.as_fd().try_clone_to_owned().map_err(SetError::Input)?);
    input.take(MOST as u64 + 3).read_to_end(&mut bytes).map_err(SetError::Input)?;
    if bytes.ends_with(b"\n") {
        let length = bytes.len() - if bytes.ends_with(b"\r\n") { 2 } else { 1 };
        bytes.truncate(length);
    }
    let is_secret = !bytes.is_empty() && bytes.len() <= MOST && std::str::from_utf8(&bytes).is_ok();
    if is_secret { Ok(bytes) } else { Err(SetError::NoSecret) }
}
