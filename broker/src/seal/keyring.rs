//! `seal.json`: the data keys of an instance, each sealed under what opens it. Nothing in it is secret without that.

use super::key::Key;
use crate::private_file::{PrivateDir, PrivateError};
use attache_core::names::Name;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The file, in the state directory.
pub const FILE: &str = "seal.json";
/// What it says of itself.
const FORMAT: &str = "attache-seal:v1";
/// The same, where a wrap is bound to its instance: former versions do not open that.
const BOUND: &str = "attache-seal:v2";
/// Longest file, in bytes: a key has about 300.
const LONGEST: usize = 64 * 1024;

/// Why there is no keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file is not ours alone, or cannot be read or written.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// Not what we wrote.
    #[error("{0} is damaged: restore it from a backup; without it, nothing that is sealed opens")]
    Damaged(PathBuf),
    /// A newer version has been here.
    #[error("{0} was written by a newer attache: run that one")]
    Newer(PathBuf),
    /// Another instance's.
    #[error("{path} is of instance {found}: restore this instance's own from a backup")]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Name,
    },
}

/// The data keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    format: String,
    instance: Name,
    /// The id of the data key that seals what is written.
    pub current: String,
    /// Since when it is so, in Unix milliseconds.
    pub since_ms: u64,
    /// Every data key under which a file may be.
    pub keys: Vec<Kept>,
}

/// One data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Itself, sealed: each of these opens it.
    pub wraps: Vec<Wrap>,
}

/// A ciphertext of transit's that says nothing of its instance: of former versions, or of a key that takes no
/// associated data (RSA).
pub const UNBOUND: u8 = 1;
/// One with which transit authenticates the instance and the data key's id.
pub const BOUND_WRAP: u8 = 2;

fn unbound() -> u8 {
    UNBOUND
}

fn is_unbound(version: &u8) -> bool {
    *version == UNBOUND
}

/// A data key, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
pub enum Wrap {
    /// Under a key.
    Key {
        /// The key's id.
        id: String,
        /// As a file would be.
        sealed: String,
    },
    /// By OpenBao transit.
    Transit {
        /// Where the engine is mounted.
        mount: String,
        /// The key's name there.
        key: String,
        /// What it answered.
        ciphertext: String,
        /// [`UNBOUND`] or [`BOUND_WRAP`].
        #[serde(default = "unbound", skip_serializing_if = "is_unbound")]
        version: u8,
    },
}

impl Wrap {
    /// By what it opens, for people.
    pub fn by(&self) -> String {
        match self {
            Wrap::Key { id, .. } => format!("key {id}"),
            Wrap::Transit { mount, key, .. } => format!("transit {mount}/{key}"),
        }
    }

    /// Whether both open by the same.
    pub fn is_by_same(&self, other: &Self) -> bool {
        self.by() == other.by()
    }
}

impl Kept {
    /// By what it opens, for people.
    pub fn by(&self) -> String {
        self.wraps.iter().map(Wrap::by).collect::<Vec<_>>().join(", ")
    }
}

impl Keyring {
    /// With one data key.
    pub fn begin(instance: &Name, key: &Key, wrap: Wrap, now_ms: u64) -> Self {
        let keys = vec![Kept { id: key.id().to_owned(), wraps: vec![wrap] }];
        let (format, instance) = (FORMAT.to_owned(), instance.clone());
        Self { format, instance, current: key.id().to_owned(), since_ms: now_ms, keys }
    }

    /// What a state directory holds, if it does.
    pub fn load(dir: &PrivateDir, instance: &Name) -> Result<Option<Self>, KeyringError> {
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        let path = || dir.path().join(FILE);
        let Some(text) = dir.read(FILE, LONGEST)? else { return Ok(None) };
        let Format { format } = serde_json::from_slice(&text).map_err(|_| KeyringError::Damaged(path()))?;
        if format != FORMAT && format != BOUND {
            let is_newer = format.starts_with("attache-seal:v");
            return Err(if is_newer { KeyringError::Newer(path()) } else { KeyringError::Damaged(path()) });
        }
        let found: Self = serde_json::from_slice(&text).map_err(|_| KeyringError::Damaged(path()))?;
        if found.versions().any(|version| version > BOUND_WRAP) {
            return Err(KeyringError::Newer(path()));
        }
        if found.kept(&found.current).is_none_or(|kept| kept.wraps.is_empty()) {
            return Err(KeyringError::Damaged(path()));
        }
        if found.instance != *instance {
            return Err(KeyringError::OfAnother { path: path(), found: found.instance });
        }
        Ok(Some(found))
    }

    /// Keeps it, whole or not at all, and durably.
    pub fn store(&self, dir: &PrivateDir) -> Result<(), PrivateError> {
        // Texts and numbers cannot fail to serialise.
        let is_bound = self.versions().any(|version| version == BOUND_WRAP);
        let format = if is_bound { BOUND } else { FORMAT }.to_owned();
        let mut text = serde_json::to_vec_pretty(&Self { format, ..self.clone() }).unwrap_or_default();
        text.push(b'\n');
        dir.replace(FILE, &text)
    }

    fn versions(&self) -> impl Iterator<Item = u8> {
        self.keys.iter().flat_map(|kept| &kept.wraps).map(|wrap| match wrap {
            Wrap::Key { .. } => UNBOUND,
            Wrap::Transit { version, .. } => *version,
        })
    }

    /// A data key by its id.
    pub fn kept(&self, id: &str) -> Option<&Kept> {
        self.keys.iter().find(|kept| kept.id == id)
    }

    /// By what the current data key opens, for people.
    pub fn by(&self) -> String {
        self.kept(&self.current).map(Kept::by).unwrap_or_default()
    }

    /// Whether a change of keys began and has not ended.
    pub fn is_moving(&self) -> bool {
        self.keys.len() > 1 || self.keys.iter().any(|kept| kept.wraps.len() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_keyring_of_ours_is_refused_in_words_that_name_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open_or_create(&temp.path().join("i")).unwrap();
        let instance = Name::parse("i").unwrap();
        assert!(Keyring::load(&dir, &instance).unwrap().is_none());
        let key = Key::of_slice(&[1; 32]).unwrap();
        let wrap =
            Wrap::Transit { mount: "m".into(), key: "k".into(), ciphertext: "vault:v1:x".into(), version: UNBOUND };
        let good = Keyring::begin(&instance, &key, wrap, 1);
        good.store(&dir).unwrap();
        assert_eq!(Keyring::load(&dir, &instance).unwrap().as_ref(), Some(&good));
        assert_eq!((good.by().as_str(), good.is_moving()), ("transit m/k", false));

        let other = Keyring::load(&dir, &Name::parse("j").unwrap()).unwrap_err().to_string();
        assert!(other.contains("of instance i"), "{other}");
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let cases = [
            ("", "is damaged"),
            ("{}", "is damaged"),
            (&text[..text.len() / 2], "is damaged"),
            (&text.replace(key.id(), "0123456789abcdef").replacen("0123456789abcdef", key.id(), 1), "is damaged"),
            (&text.replace("\"since_ms\"", "\"since\""), "is damaged"),
            (&text.replace("attache-seal:v1", "attache-seal:v3"), "newer attache"),
            (&text.replace("\"vault:v1:x\"", "\"vault:v1:x\", \"version\": 3"), "newer attache"),
        ];
        for (bad, words) in cases {
            dir.replace(FILE, bad.as_bytes()).unwrap();
            let error = Keyring::load(&dir, &instance).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(FILE), "{bad}: {error}");
        }
    }
    #[test]
    fn a_wrap_that_is_bound_is_not_for_a_former_version_and_one_that_is_not_reads_as_ever() {
        let temp = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open_or_create(&temp.path().join("i")).unwrap();
        let (instance, key) = (Name::parse("i").unwrap(), Key::of_slice(&[1; 32]).unwrap());
        for (version, format, says) in [(UNBOUND, FORMAT, false), (BOUND_WRAP, BOUND, true)] {
            let wrap = Wrap::Transit { mount: "m".into(), key: "k".into(), ciphertext: "vault:v1:x".into(), version };
            Keyring::begin(&instance, &key, wrap.clone(), 1).store(&dir).unwrap();
            let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
            assert!(text.contains(format) && text.contains("\"version\"") == says, "{text}");
            let found = Keyring::load(&dir, &instance).unwrap().unwrap();
            assert_eq!(found.kept(key.id()).unwrap().wraps, [wrap]);
        }
    }
}
