//! What seals data keys: a key from a file or a variable, or OpenBao transit.

use super::envelope;
use super::key::{self, Key, NotAKey};
use super::keyring::{BOUND_WRAP, Kept, UNBOUND, Wrap};
use crate::config::SealedBy;
use crate::private_file::{PrivateError, read_private};
use crate::random::NoRandomness;
use crate::sources::{Environment, Transit, Trouble};
use attache_core::Secret;
use attache_core::names::Name;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// So long an OpenBao that is away is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

/// Why nothing can be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum MeansError {
    /// The key's file.
    #[error("the seal's key: {0}")]
    File(#[from] PrivateError),
    /// No key there.
    #[error("the seal's key is not there: {0}; put it there, or name where it is in state.seal")]
    NoKey(String),
    /// No key, but something.
    #[error("the seal's key ({0}): {NotAKey}")]
    NotAKey(String),
    /// OpenBao.
    #[error("{place}: {why}: {}", why.fix())]
    Transit {
        /// Which key of it.
        place: String,
        /// What is wrong.
        why: Trouble,
    },
    /// What opened is not what was sealed.
    #[error("{0} opens a data key to another one than it was: restore seal.json from a backup")]
    OtherKey(String),
    /// It does not open.
    #[error("seal.json holds data key {0} in a form that does not open: restore it from a backup")]
    Damaged(String),
    /// No nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What seals data keys.
pub enum Means {
    /// A key, and where it is from.
    Key(Key, String),
    /// OpenBao's transit.
    Transit(Transit),
}

impl Means {
    /// What a config names.
    pub fn of(by: &SealedBy, environment: &Environment) -> Result<Self, MeansError> {
        match by {
            SealedBy::File(path) => Self::in_file(path),
            SealedBy::Env(_) => Self::in_variable(environment.of_seal(), by.place()),
            SealedBy::Transit { server, mount, key } => {
                Ok(Self::Transit(Transit::new(environment.of_openbao(server), mount, key)))
            }
        }
    }

    /// The key in a file.
    pub fn in_file(path: &Path) -> Result<Self, MeansError> {
        let place = format!("file {}", path.display());
        match read_private(path, key::LONGEST)? {
            None => Err(MeansError::NoKey(place)),
            Some(text) => Self::written(&text, place),
        }
    }

    /// The key in a variable.
    pub fn in_variable(value: Option<&Secret>, place: String) -> Result<Self, MeansError> {
        match value {
            None => Err(MeansError::NoKey(place)),
            // Exposed to be decoded.
            Some(text) => Self::written(text.expose().as_bytes(), place),
        }
    }

    fn written(text: &[u8], place: String) -> Result<Self, MeansError> {
        match Key::parse(text) {
            Ok(key) => Ok(Self::Key(key, place)),
            Err(NotAKey) => Err(MeansError::NotAKey(place)),
        }
    }

    /// For people: `key 0123456789abcdef`, `transit transit/attache`; never the key.
    pub fn name(&self) -> String {
        match self {
            Means::Key(key, _) => format!("key {}", key.id()),
            Means::Transit(transit) => format!("transit {}/{}", transit.mount, transit.key),
        }
    }

    /// The same, and where it is from.
    pub fn describe(&self) -> String {
        match self {
            Means::Key(_, place) => format!("{} ({place})", self.name()),
            Means::Transit(_) => self.name(),
        }
    }

    /// Seals a data key, and sees that it opens again.
    pub async fn wrap(&self, instance: &Name, data: &Key) -> Result<Wrap, MeansError> {
        let wrap = match self {
            Means::Key(key, _) => {
                let sealed = envelope::seal(key, instance.as_str(), &place(data.id()), data.bytes())?;
                let sealed = String::from_utf8_lossy(&sealed).trim_end().to_owned();
                Wrap::Key { id: key.id().to_owned(), sealed }
            }
            Means::Transit(transit) => {
                // Encrypted anew, not rewrapped: `rewrap` takes no associated data.
                let bound = bound(instance, data.id());
                let encrypted = self.patiently(|| transit.encrypt(data.bytes(), &bound)).await?;
                let version = if encrypted.bound { BOUND_WRAP } else { UNBOUND };
                let (mount, key) = (transit.mount.clone(), transit.key.clone());
                Wrap::Transit { mount, key, ciphertext: encrypted.ciphertext, version }
            }
        };
        match self.open(instance, data.id(), &wrap).await? {
            Some(_) => Ok(wrap),
            None => Err(MeansError::Damaged(data.id().to_owned())),
        }
    }

    /// Opens a data key; `Ok(None)`: it is sealed by others alone.
    pub async fn unwrap(&self, instance: &Name, kept: &Kept) -> Result<Option<Key>, MeansError> {
        match kept.wraps.iter().find(|wrap| wrap.by() == self.name()) {
            Some(wrap) => self.open(instance, &kept.id, wrap).await,
            None => Ok(None),
        }
    }

    async fn open(&self, instance: &Name, id: &str, wrap: &Wrap) -> Result<Option<Key>, MeansError> {
        let damaged = || MeansError::Damaged(id.to_owned());
        let bytes = match (self, wrap) {
            (Means::Key(key, _), Wrap::Key { sealed, .. }) => {
                let opened = envelope::open(key, instance.as_str(), &place(id), format!("{sealed}\n").as_bytes());
                opened.map_err(|_| damaged())?
            }
            (Means::Transit(transit), Wrap::Transit { ciphertext, version, .. }) => {
                let bound = (*version == BOUND_WRAP).then(|| bound(instance, id));
                self.patiently(|| transit.decrypt(ciphertext, bound.as_deref())).await?
            }
            _ => return Ok(None),
        };
        let key = Key::of_slice(&bytes).map_err(|_| damaged())?;
        if key.id() == id { Ok(Some(key)) } else { Err(MeansError::OtherKey(self.name())) }
    }

    /// Asks OpenBao, on and on while it is away, for as long as a start may take.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, MeansError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let failed = |why| MeansError::Transit { place: self.name(), why };
        let end = Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            let why = match timeout_at(end, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(why)) if !why.passes() || Instant::now() + PAUSE >= end => return Err(failed(why)),
                Ok(Err(why)) => why,
                Err(_) => {
                    let fix = "see whether OpenBao runs, and is reached from here; then start anew";
                    return Err(failed(Trouble::passing("it has not answered within 30 s", fix)));
                }
            };
            if !told {
                let (place, seconds) = (self.name(), PATIENCE.as_secs());
                tracing::warn!(%place, %why, "waiting for OpenBao, which opens the state directory, for {seconds} s");
                told = true;
            }
            sleep(PAUSE).await;
        }
    }

    /// It is needed no more.
    pub async fn leave(&self) {
        if let Means::Transit(transit) = self {
            transit.leave().await;
        }
    }
}

/// What a sealed data key is bound to.
fn place(id: &str) -> String {
    format!("data-key/{id}")
}

/// The same, as transit authenticates it. No name has a NUL in it.
fn bound(instance: &Name, id: &str) -> Vec<u8> {
    ["attache-seal\0", instance.as_str(), "\0", &place(id)].concat().into_bytes()
}
