//! A provider's public keys: fetched, kept for a while, and fetched anew when a token names another.

use crate::config::oidc::KeySource;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Keys that could not be fetched anew for this long are believed no more: the provider may have
/// withdrawn one.
const BELIEVED: Duration = Duration::from_secs(900);

/// Anybody can name an unknown key, so no fetch begins sooner than this after the last one began.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a fetch may take: less than a filter waits for its answer.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// No set of keys is larger, in bytes.
const MOST: usize = 1 << 20;

/// Why keys cannot be fetched at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file with authorities.
    #[error("oidc: the authorities in {0} cannot be read: {1}")]
    Authorities(PathBuf, std::io::Error),
    /// They are none.
    #[error("oidc: {0} holds no certificate")]
    NoAuthorities(PathBuf),
    /// TLS cannot be set up.
    #[error("oidc: TLS cannot be set up: {0}")]
    Tls(reqwest::Error),
}

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("the file cannot be read: {0}")]
    File(std::io::Error),
    #[error("the provider did not answer: {0}")]
    Provider(reqwest::Error),
    #[error("the provider answered {0}")]
    Status(u16),
    #[error("more than 1 MiB")]
    TooLarge,
    #[error("no set of keys")]
    NoKeys,
    #[error("none could be fetched lately")]
    Old,
}

pub(super) struct Keys {
    source: Source,
    held: RwLock<Held>,
    /// When the last fetch began, and whether it went well. Locked while one is under way.
    last: Mutex<Option<(Instant, bool)>>,
}

enum Source {
    Url(reqwest::Client, String),
    File(PathBuf),
}

#[derive(Default)]
struct Held {
    keys: Vec<Key>,
    since: Option<Instant>,
}

struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// Keys of this source; none is fetched yet.
    pub fn new(source: &KeySource) -> Result<Self, ClientError> {
        let source = match source {
            KeySource::File(path) => Source::File(path.clone()),
            KeySource::Url { url, ca_file } => Source::Url(client(ca_file.as_ref())?, url.clone()),
        };
        Ok(Self { source, held: RwLock::default(), last: Mutex::default() })
    }

    /// The key of this id that can verify this algorithm. An unknown id is looked for once more at the
    /// provider, who may have changed its keys. A token without an id needs a provider with one key.
    pub async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>, KeysError> {
        if let Some(key) = self.known(id, algorithm) {
            return Ok(Some(key));
        }
        let mut last = self.last.lock().await;
        // Whoever held the lock may have fetched what we look for.
        if let Some(key) = self.known(id, algorithm) {
            return Ok(Some(key));
        }
        if last.is_none_or(|(began, _)| began.elapsed() >= PAUSE) {
            self.fetch(&mut last).await?;
            return Ok(self.known(id, algorithm));
        }
        // The provider does not know it, or could not be asked: the one is no excuse for the other.
        match *last {
            Some((_, true)) if self.is_fresh() => Ok(None),
            _ => Err(KeysError::Old),
        }
    }

    /// Fetches the keys anew, unless somebody just has.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        let mut last = self.last.lock().await;
        if last.is_some_and(|(began, _)| began.elapsed() < PAUSE) {
            return Ok(());
        }
        self.fetch(&mut last).await
    }

    async fn fetch(&self, last: &mut Option<(Instant, bool)>) -> Result<(), KeysError> {
        let began = Instant::now();
        // Written first: a caller that goes away half-way has begun a fetch all the same.
        *last = Some((began, false));
        let keys = self.source.fetch().await.and_then(|bytes| parse(&bytes))?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Held { keys, since: Some(began) };
        *last = Some((began, true));
        Ok(())
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        if !self.is_fresh() {
            return None;
        }
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |key: &&Key| {
            key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|own| own == algorithm)
                && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        let mut fitting = held.keys.iter().filter(fits);
        let first = fitting.next()?;
        // Two keys of one id, or a token that names none: which is meant cannot be guessed.
        fitting.next().is_none().then(|| first.key.clone())
    }

    fn is_fresh(&self) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.since.is_some_and(|since| since.elapsed() < BELIEVED)
    }
}

impl Source {
    async fn fetch(&self) -> Result<Vec<u8>, KeysError> {
        match self {
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(KeysError::File)?;
                let mut bytes = Vec::new();
                file.take(MOST as u64 + 1).read_to_end(&mut bytes).await.map_err(KeysError::File)?;
                if bytes.len() > MOST { Err(KeysError::TooLarge) } else { Ok(bytes) }
            }
            Self::Url(client, url) => {
                let mut answer = client.get(url).send().await.map_err(without_url)?;
                if answer.status() != reqwest::StatusCode::OK {
                    return Err(KeysError::Status(answer.status().as_u16()));
                }
                let mut bytes = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(without_url)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MOST {
                        return Err(KeysError::TooLarge);
                    }
                }
                Ok(bytes)
            }
        }
    }
}

fn without_url(error: reqwest::Error) -> KeysError {
    KeysError::Provider(error.without_url())
}

/// Follows no redirect, asks no proxy, and trusts the system's authorities and those of the file.
fn client(ca_file: Option<&PathBuf>) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    if let Some(file) = ca_file {
        let pem = std::fs::read(file).map_err(|error| ClientError::Authorities(file.clone(), error))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if authorities.is_empty() {
            return Err(ClientError::NoAuthorities(file.clone()));
        }
        builder = builder.tls_certs_merge(authorities);
    }
    builder.build().map_err(ClientError::Tls)
}

/// The keys of a set (RFC 7517) that can verify signatures; what is of another kind is left out.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, KeysError> {
    let set: Set = serde_json::from_slice(bytes).map_err(|_| KeysError::NoKeys)?;
    let key = |value: Value| {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let algorithm = common.key_algorithm.map(|named| Algorithm::from_str(&named.to_string()));
        let algorithm = algorithm.transpose().ok()?;
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs)?;
        Some(Key { id: common.key_id.clone(), algorithm, key })
    };
    let keys: Vec<_> = set.keys.into_iter().filter_map(key).collect();
    if keys.is_empty() { Err(KeysError::NoKeys) } else { Ok(keys) }
}
