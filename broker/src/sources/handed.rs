//! What makes us somebody, as it was handed to the broker: a variable or a line, held in memory, or a file.

use super::trouble::Trouble;
use crate::config::handed::SecretAt;
use crate::private_file::{PrivateDir, PrivateError};
use crate::seal::{SealError, Sealer};
use attache_core::Secret;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// No token and no JWT is longer, in bytes.
pub const MOST: usize = 16 * 1024;

/// Why it cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandedError {
    /// A file that others may read, too.
    #[error("{0} cannot be used: {1}")]
    File(PathBuf, &'static str),
    /// A file of ours alone that is not.
    #[error("{0}")]
    Private(Arc<PrivateError>),
    /// A file that is sealed, and does not open.
    #[error("{0}")]
    Sealed(Arc<SealError>),
}

impl From<PrivateError> for HandedError {
    fn from(error: PrivateError) -> Self {
        Self::Private(Arc::new(error))
    }
}

impl From<SealError> for HandedError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Private(error) => error.into(),
            error => Self::Sealed(Arc::new(error)),
        }
    }
}

impl HandedError {
    /// What an operator does about it.
    pub fn fix(&self) -> &'static str {
        match self {
            HandedError::File(..) => "put the text itself there, readable for the broker's user",
            HandedError::Private(_) => {
                "make it a regular file of the broker's user, 0600, in a directory of its own, 0700"
            }
            HandedError::Sealed(_) => "put it there anew, as plain text, or restore it from a backup",
        }
    }

    /// The same, for whoever lists it.
    pub fn trouble(&self) -> Trouble {
        Trouble::lasting(self.to_string(), self.fix())
    }
}

/// What was given at start, and can be had again only from there.
#[derive(Default)]
pub struct Handed {
    given: Mutex<Option<Secret>>,
    sealer: Sealer,
}

impl Handed {
    /// What a variable, or the line, held; and how files are read.
    pub fn new(given: Option<Secret>, sealer: Sealer) -> Self {
        Self { given: Mutex::new(given), sealer }
    }

    /// What is there now; `None`: nothing.
    pub fn read(&self, at: &SecretAt) -> Result<Option<Secret>, HandedError> {
        match at {
            SecretAt::Env(_) | SecretAt::Stdin => Ok(self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            SecretAt::Private(path) => {
                let Some((dir, name)) = place(path) else { return Ok(None) };
                let Some(dir) = PrivateDir::open(dir)? else { return Ok(None) };
                text(path, self.sealer.read(&dir, name, MOST)?)
            }
            SecretAt::Shared(path) => match std::fs::File::open(path) {
                Ok(file) => {
                    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 1));
                    let read = file.take(MOST as u64 + 1).read_to_end(&mut bytes);
                    read.map_err(|_| HandedError::File(path.clone(), "it cannot be read"))?;
                    text(path, Some(bytes))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(_) => Err(HandedError::File(path.clone(), "it cannot be read")),
            },
        }
    }

    /// It is used up: what is held is forgotten, a file erased.
    pub fn forget(&self, at: &SecretAt) {
        match at {
            SecretAt::Env(_) | SecretAt::Stdin => {
                *self.given.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            SecretAt::Private(path) => {
                let erased = place(path).and_then(|(dir, name)| Some(PrivateDir::open(dir).ok()??.erase(name)));
                if !matches!(erased, Some(Ok(()))) {
                    tracing::warn!(file = %path.display(), "a wrapping token that is used was not erased: remove it");
                }
            }
            SecretAt::Shared(_) => {}
        }
    }
}

fn place(path: &Path) -> Option<(&Path, &str)> {
    Some((path.parent()?, path.file_name()?.to_str()?))
}

/// Without the line break at its end; an empty one is as good as none.
fn text(path: &Path, bytes: Option<Zeroizing<Vec<u8>>>) -> Result<Option<Secret>, HandedError> {
    let Some(bytes) = bytes else { return Ok(None) };
    if bytes.len() > MOST {
        return Err(HandedError::File(path.to_owned(), "it is longer than 16 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| HandedError::File(path.to_owned(), "it holds no text"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    Ok((!text.is_empty()).then(|| Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_file_of_ours_is_read_anew_and_erased_and_one_that_others_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        set_permissions(temp.path(), Permissions::from_mode(0o700)).unwrap();
        let path = temp.path().join("token");
        let (handed, at) = (Handed::default(), SecretAt::Private(path.clone()));
        let read = || handed.read(&at).map(|found| found.map(|secret| secret.expose().to_owned()));
        assert_eq!(read().unwrap(), None);
        for (text, found) in [("hvs.one\n", Some("hvs.one")), ("hvs.two", Some("hvs.two")), ("\n", None)] {
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(read().unwrap().as_deref(), found);
        }
        write(&path, "hvs.s3cret").unwrap();
        let other = std::fs::File::open(&path).unwrap();
        handed.forget(&at);
        assert!(!path.exists());
        let mut left = String::new();
        std::io::Read::read_to_string(&mut &other, &mut left).unwrap();
        assert_eq!(left, "\0".repeat(10), "whoever has it open finds nothing");
        write(&path, "hvs.s3cret").unwrap();
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn what_a_kubelet_mounts_is_read_through_its_links() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path().join("data"), "eyJ.a.b\n").unwrap();
        symlink("data", temp.path().join("token")).unwrap();
        let read = |name: &str| Handed::default().read(&SecretAt::Shared(temp.path().join(name)));
        assert_eq!(read("token").unwrap().unwrap().expose(), "eyJ.a.b");
        assert!(read("none").unwrap().is_none());
        write(temp.path().join("data"), "x".repeat(MOST + 1)).unwrap();
        assert!(read("token").is_err());
    }
}
