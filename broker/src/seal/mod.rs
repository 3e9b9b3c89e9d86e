//! Encryption at rest: what the broker keeps that is secret is sealed, where the config says under what.
//!
//! A random data key seals files ([`envelope`]); it is itself sealed under the key that the config names, or by OpenBao
//! transit ([`means`]), and kept like that in `seal.json` ([`keyring`]). So another key for the whole takes one small
//! file, and no file is ever without the key that opens it: [`rekey`] keeps all of them until every file is moved.
//!
//! It protects copies: backups, snapshots, disks. Who runs as the broker's user can read what the broker reads.

pub mod envelope;
pub mod files;
pub mod key;
pub mod keyring;
pub mod means;
pub mod rekey;
#[cfg(test)]
mod tests;
pub mod unlock;

pub use key::Key;
pub use keyring::{FILE, Kept, Keyring};
pub use means::{Means, MeansError};
pub use unlock::{UnlockError, Unlocked, unlock};

use crate::private_file::{PrivateDir, PrivateError};
use crate::random::NoRandomness;
use attache_core::names::Name;
use envelope::{Form, form, sealed_len};
use rustix::fs::OFlags;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The place of a file in the state directory, as the file is bound to it.
fn own(name: &str) -> String {
    format!("state/{name}")
}

/// Why a file is not read, or not written. Names the file, and keys by their ids.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is not ours alone, or cannot be read or written.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// It is sealed, and nothing is configured that opens it.
    #[error(
        "{} is sealed{}, and nothing is configured that opens it: write `state: {{seal: …}}` as it was (`attache state \
         show` says by what it is sealed)", path.display(), under(key)
    )]
    NoSeal {
        /// Which.
        path: PathBuf,
        /// The data key that opens it, as its first line says.
        key: Option<String>,
    },
    /// It is sealed under another key than those of `seal.json`.
    #[error(
        "{} is sealed{}, which is not in {FILE}: restore both from one backup", path.display(), under(&Some(key.clone()))
    )]
    UnknownKey {
        /// Which.
        path: PathBuf,
        /// The data key, as its first line says.
        key: String,
    },
    /// It does not open.
    #[error(
        "{} is sealed{}, and does not open: it is damaged, or was another file's or another instance's; restore it from \
         a backup", path.display(), under(key)
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The data key, as its first line says.
        key: Option<String>,
    },
    /// A newer version has been here.
    #[error("{} was sealed by a newer attache: run that one", .0.display())]
    Newer(PathBuf),
    /// No nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

fn under(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!(" under data key {key}")).unwrap_or_default()
}

/// How secret files are read and written: plain, or sealed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sealer(Option<Arc<Keys>>);

struct Keys {
    instance: Name,
    /// `sources.file.dir`.
    file_dir: PathBuf,
    current: Key,
    /// Under which a file may still be.
    others: Vec<Key>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.key_id()).finish()
    }
}

impl Sealer {
    /// Files are plain. One that is sealed is refused.
    pub fn plain() -> Self {
        Self(None)
    }

    /// Files are sealed under the first of these keys; each of them opens files.
    pub fn new((instance, file_dir): (Name, PathBuf), current: Key, others: Vec<Key>) -> Self {
        Self(Some(Arc::new(Keys { instance, file_dir, current, others })))
    }

    /// The id of the key that seals; `None`: nothing is sealed.
    pub fn key_id(&self) -> Option<&str> {
        self.0.as_ref().map(|keys| keys.current.id())
    }

    /// The whole of a secret file of an operator's, opened if it is sealed, at most `most` bytes; `Ok(None)` if there
    /// is none.
    pub fn read(&self, dir: &PrivateDir, name: &str, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        self.read_as(dir, name, &self.place(dir, name), most)
    }

    /// Puts a secret file of an operator's in place, whole or not at all, and durably; sealed, if files are.
    pub fn replace(&self, dir: &PrivateDir, name: &str, content: &[u8]) -> Result<(), SealError> {
        self.replace_as(dir, name, &self.place(dir, name), content)
    }

    /// The place of an operator's file, as the file is bound to it.
    fn place(&self, dir: &PrivateDir, name: &str) -> String {
        let path = dir.path().join(name);
        let below = self.0.as_ref().and_then(|keys| path.strip_prefix(&keys.file_dir).ok()).and_then(Path::to_str);
        format!("secrets/{}", below.unwrap_or(name))
    }

    fn read_as(
        &self,
        dir: &PrivateDir,
        name: &str,
        place: &str,
        most: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        let Some(bytes) = dir.read(name, sealed_len(most))? else { return Ok(None) };
        let path = dir.path().join(name);
        let bytes = match self.opened(&path, place, &bytes)? {
            Some(opened) => opened,
            None => bytes,
        };
        if bytes.len() > most { Err(PrivateError::TooLong { path, most }.into()) } else { Ok(Some(bytes)) }
    }

    /// What is in a sealed file; `None`: this one is plain.
    fn opened(&self, path: &Path, place: &str, bytes: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        let path = || path.to_owned();
        let Some(keys) = &self.0 else {
            if !bytes.starts_with(envelope::MAGIC.as_bytes()) {
                return Ok(None);
            }
            let key = if let Form::Sealed(key) = form(bytes) { Some(key) } else { None };
            return Err(SealError::NoSeal { path: path(), key });
        };
        let id = match form(bytes) {
            Form::Plain => return Ok(None),
            Form::Newer => return Err(SealError::Newer(path())),
            Form::Damaged => return Err(SealError::Damaged { path: path(), key: None }),
            Form::Sealed(id) => id,
        };
        let Some(key) = [&keys.current].into_iter().chain(&keys.others).find(|key| key.id() == id) else {
            return Err(SealError::UnknownKey { path: path(), key: id });
        };
        let opened = envelope::open(key, keys.instance.as_str(), place, bytes);
        opened.map(Some).map_err(|_| SealError::Damaged { path: path(), key: Some(id) })
    }

    fn replace_as(&self, dir: &PrivateDir, name: &str, place: &str, content: &[u8]) -> Result<(), SealError> {
        match &self.0 {
            None => dir.replace(name, content)?,
            Some(keys) => dir.replace(name, &keys.sealed(place, content)?)?,
        }
        Ok(())
    }

    /// Whether a file opens, if it is sealed.
    fn check(&self, dir: &PrivateDir, name: &str, place: &str) -> Result<(), SealError> {
        let bytes = whole(dir, name)?;
        bytes.map_or(Ok(()), |bytes| self.opened(&dir.path().join(name), place, &bytes).map(drop))
    }

    /// Makes a file what [`Self::replace_as`] would have made of it, and overwrites what it was before. Whether it had
    /// to be: one that is so already, or is not there, is left alone.
    fn settle(&self, dir: &PrivateDir, name: &str, place: &str, opens: &Sealer) -> Result<bool, SealError> {
        let Some(bytes) = whole(dir, name)? else { return Ok(false) };
        let opened = opens.opened(&dir.path().join(name), place, &bytes)?;
        let content = opened.as_ref().unwrap_or(&bytes);
        match &self.0 {
            None if opened.is_none() => return Ok(false),
            None => dir.replace(name, content)?,
            Some(keys) if form(&bytes) == Form::Sealed(keys.current.id().to_owned()) => return Ok(false),
            Some(keys) => dir.replace_and_erase(name, &keys.sealed(place, content)?)?,
        }
        Ok(true)
    }
}

/// A file of whatever length, in as much room as it takes.
fn whole(dir: &PrivateDir, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateError> {
    let Some(file) = dir.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
    let length = file.metadata().map(|found| found.len());
    let length = length.map_err(|cause| PrivateError::Io { path: dir.path().join(name), cause })?;
    dir.read(name, usize::try_from(length).unwrap_or(files::LONGEST).min(files::LONGEST))
}

impl Keys {
    fn sealed(&self, place: &str, content: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        envelope::seal(&self.current, self.instance.as_str(), place, content)
    }
}

/// The state directory, and how what is secret in it is kept.
#[derive(Debug)]
pub struct Safe {
    dir: PrivateDir,
    sealer: Sealer,
}

impl Safe {
    /// A directory, with its files sealed or plain.
    pub fn new(dir: PrivateDir, sealer: Sealer) -> Self {
        Self { dir, sealer }
    }

    /// A directory of plain files.
    pub fn plain(dir: PrivateDir) -> Self {
        Self::new(dir, Sealer::plain())
    }

    /// The directory, for what is not secret.
    pub fn dir(&self) -> &PrivateDir {
        &self.dir
    }

    /// How its files are kept.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What a secret file holds, at most `most` bytes; `Ok(None)` if there is none.
    pub fn read(&self, name: &str, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        self.sealer.read_as(&self.dir, name, &own(name), most)
    }

    /// Puts a secret file in place, whole or not at all, and durably.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), SealError> {
        self.sealer.replace_as(&self.dir, name, &own(name), content)
    }
}
