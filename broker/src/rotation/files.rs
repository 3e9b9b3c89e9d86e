//! Where secrets lie while one takes the place of another: beside the file of the secret itself, ours alone, each
//! put there whole and durably.

use super::RotationError;
use crate::config::Lookup;
use crate::config::rotation::{ANSWER, NEXT, REJECTED, RETIRING, beside};
use crate::private_file::{PrivateDir, PrivateError};
use crate::seal::{SealError, Sealer};
use crate::sources::{self, Environment, Source, SourceError};
use attache_core::Secret;
use rustix::fs::OFlags;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The file of a secret, and those beside it. Each is read as a source reads it.
pub struct Files {
    path: PathBuf,
    /// How they are written; what a command prints it writes itself, plain.
    sealer: Sealer,
    current: Box<dyn Source>,
    next: Box<dyn Source>,
    retiring: Box<dyn Source>,
}

/// What a command of a life before has left.
pub enum Left {
    /// Nothing.
    Nothing,
    /// It still runs.
    Running,
    /// It has ended, and this is what it printed.
    Printed(zeroize::Zeroizing<Vec<u8>>),
}

impl Files {
    /// Those of the secret at `path`.
    pub fn of(path: &Path, environment: &Environment) -> Self {
        let open = |side| sources::open(&Lookup::File(beside(path, side)), environment);
        let (path, sealer) = (path.to_owned(), environment.sealer());
        Self { current: open(""), next: open(NEXT), retiring: open(RETIRING), path, sealer }
    }

    /// Where the secret itself lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a new one lies that cannot be used.
    pub fn rejected_path(&self) -> PathBuf {
        self.beside(REJECTED)
    }

    /// The secret in use.
    pub async fn current(&self) -> Result<Option<Secret>, SourceError> {
        read(&*self.current).await
    }

    /// A new one that may not be in place yet.
    pub async fn next(&self) -> Result<Option<Secret>, SourceError> {
        read(&*self.next).await
    }

    /// The old one that is to be retired.
    pub async fn retiring(&self) -> Result<Option<Secret>, SourceError> {
        read(&*self.retiring).await
    }

    /// Whether there is a new one that could not be used.
    pub fn has_rejected(&self) -> bool {
        self.beside(REJECTED).symlink_metadata().is_ok()
    }

    /// Keeps a new secret. It is durable when this returns.
    pub fn keep_next(&self, secret: &Secret) -> Result<(), SealError> {
        self.write(NEXT, secret)
    }

    /// Puts the new secret in the place of the old one, which is kept. Once more does no harm.
    pub fn install(&self, old: &Secret, new: &Secret) -> Result<(), SealError> {
        if !same(old, new) {
            self.write(RETIRING, old)?;
            self.write("", new)?;
        }
        Ok(())
    }

    /// The new secret is in place.
    pub fn forget_next(&self) -> Result<(), PrivateError> {
        self.erase(NEXT)
    }

    /// The old one is retired.
    pub fn forget_retiring(&self) -> Result<(), PrivateError> {
        self.erase(RETIRING)
    }

    /// Puts the new secret aside.
    pub fn reject(&self, new: &Secret) -> Result<(), SealError> {
        self.write(REJECTED, new)?;
        Ok(self.forget_next()?)
    }

    /// A new file for what a command prints, locked for as long as somebody has it open: a broker that comes after
    /// this one sees whether the command still runs, and what it has printed.
    pub fn begin_answer(&self) -> Result<File, RotationError> {
        let dir = self.dir()?;
        let name = self.name(ANSWER)?;
        let file = dir.open_file(&name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        let file = file.ok_or_else(|| self.io(ANSWER, std::io::ErrorKind::NotFound.into()))?;
        file.try_lock().map_err(|_| RotationError::StillRuns)?;
        Ok(file)
    }

    /// What a command has printed, up to so many bytes.
    pub fn answer(&self, most: usize) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, PrivateError> {
        self.dir()?.read(&self.name(ANSWER)?, most)
    }

    /// It is read.
    pub fn forget_answer(&self) -> Result<(), PrivateError> {
        self.erase(ANSWER)
    }

    /// What a command has left that no broker waited for.
    pub fn left(&self, most: usize) -> Result<Left, PrivateError> {
        let Some(dir) = PrivateDir::open(self.parent())? else { return Ok(Left::Nothing) };
        let Some(file) = dir.open_file(&self.name(ANSWER)?, OFlags::RDONLY)? else { return Ok(Left::Nothing) };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Left::Running),
            Err(TryLockError::Error(cause)) => return Err(self.io(ANSWER, cause)),
        }
        match dir.read(&self.name(ANSWER)?, most) {
            Ok(printed) => Ok(printed.map_or(Left::Nothing, Left::Printed)),
            // No secret.
            Err(PrivateError::TooLong { .. }) => Ok(Left::Printed(zeroize::Zeroizing::default())),
            Err(error) => Err(error),
        }
    }

    fn write(&self, side: &str, secret: &Secret) -> Result<(), SealError> {
        // Exposed to the file that is its home.
        self.sealer.replace(&self.dir()?, &self.name(side)?, secret.expose().as_bytes())
    }

    fn erase(&self, side: &str) -> Result<(), PrivateError> {
        self.dir()?.erase(&self.name(side)?)
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn dir(&self) -> Result<PrivateDir, PrivateError> {
        let dir = PrivateDir::open(self.parent())?;
        dir.ok_or_else(|| self.io("", std::io::ErrorKind::NotFound.into()))
    }

    fn name(&self, side: &str) -> Result<String, PrivateError> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.map(|name| format!("{name}{side}")).ok_or_else(|| PrivateError::NotAFile(self.path.clone()))
    }

    fn beside(&self, side: &str) -> PathBuf {
        beside(&self.path, side)
    }

    fn io(&self, side: &str, cause: std::io::Error) -> PrivateError {
        PrivateError::Io { path: self.beside(side), cause }
    }
}

/// Whether both are the same.
pub fn same(one: &Secret, other: &Secret) -> bool {
    // Exposed to each other.
    one.expose() == other.expose()
}

/// One that was being erased is none.
async fn read(source: &dyn Source) -> Result<Option<Secret>, SourceError> {
    let found = source.read().await?.map(|found| found.secret);
    // Exposed to its first byte: erasing begins with zeros.
    Ok(found.filter(|secret| !secret.expose().starts_with('\0')))
}
