//! Directories and files that belong to us alone.
//!
//! Every path is opened without following a final symbolic link, and judged by what was opened, not
//! by its name. Whatever another user could read, write or swap is refused, with the command that
//! mends it. Errors name paths, never content.

use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why a file or directory is not ours alone, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// A symbolic link stands where the thing itself must.
    #[error("{0} is a symbolic link: put the file or directory itself there")]
    Symlink(PathBuf),
    /// Not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// A FIFO, a device, a socket or a directory.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Group or others may use it.
    #[error("{path} is open to other users (mode {mode:04o}): chmod {fix:o} {path}")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        fix: u32,
    },
    /// Somebody else owns it.
    #[error("{path} belongs to user {owner}: chown {us} {path}")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Us.
        us: u32,
    },
    /// It has a second name, which we cannot judge.
    #[error("{0} has more than one hard link: copy it to a file of its own")]
    Linked(PathBuf),
    /// Longer than it may be.
    #[error("{path} is longer than {most} bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
        /// The most it may hold, in bytes.
        most: usize,
    },
    /// The system said no.
    #[error("{path}: {cause}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A directory that only we may enter.
#[derive(Debug)]
pub struct PrivateDir {
    file: File,
    path: PathBuf,
}

/// Changes whenever a file, or its directory's permissions, do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dir: (u64, u32, u32),
    file: Option<(u64, u64, i64, u64)>,
}

impl Stamp {
    /// Of a directory that is open, and of a file in it.
    pub fn opened(dir: &Metadata, file: Option<&Metadata>) -> Self {
        let file = file.map(|found| (found.ino(), found.size(), found.ctime(), found.ctime_nsec() as u64));
        Self { dir: (dir.ino(), dir.mode(), dir.uid()), file }
    }

    /// When the file last changed, in Unix milliseconds; 0 if there is none.
    pub fn changed_ms(&self) -> u64 {
        let at =
            self.file.map_or(0, |(_, _, seconds, nanos)| seconds.saturating_mul(1000) + (nanos / 1_000_000) as i64);
        u64::try_from(at).unwrap_or(0)
    }
}

impl PrivateDir {
    /// Opens a directory; `Ok(None)` if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>, PrivateError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) if path.is_symlink() => {
                return Err(PrivateError::Symlink(path.to_owned()));
            }
            Err(Errno::NOTDIR) => return Err(PrivateError::NotADirectory(path.to_owned())),
            Err(cause) => return Err(io(path, cause)),
        };
        let found = file.metadata().map_err(|cause| io(path, cause))?;
        check_ours(path, &found, 0o077, 0o700)?;
        Ok(Some(Self { file, path: path.to_owned() }))
    }

    /// Opens a directory, and makes it (and those above it) if there is none.
    pub fn open_or_create(path: &Path) -> Result<Self, PrivateError> {
        if let Some(dir) = Self::open(path)? {
            return Ok(dir);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| io(path, cause))?;
        Self::open(path)?.ok_or_else(|| io(path, Errno::NOENT))
    }

    /// Makes a directory inside, if there is none.
    pub fn create_dir(&self, name: &str) -> Result<(), PrivateError> {
        match mkdirat(&self.file, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(cause) => Err(io(&self.path.join(name), cause)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are one and the same directory, wherever it is now.
    pub fn is_same(&self, other: &Self) -> bool {
        let id = |dir: &Self| dir.file.metadata().ok().map(|found| (found.dev(), found.ino()));
        id(self).is_some_and(|ours| Some(ours) == id(other))
    }

    /// Opens a regular file inside, ours alone. With `O_CREAT` it comes into being as 0600.
    pub fn open_file(&self, name: &str, flags: OFlags) -> Result<Option<File>, PrivateError> {
        let path = self.path.join(name);
        // O_NONBLOCK: opening a FIFO must not wait for its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.file, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(PrivateError::Symlink(path)),
            Err(Errno::NXIO | Errno::ISDIR) => return Err(PrivateError::NotAFile(path)),
            Err(cause) => return Err(io(&path, cause)),
        };
        let found = file.metadata().map_err(|cause| io(&path, cause))?;
        if !found.is_file() {
            return Err(PrivateError::NotAFile(path));
        }
        if found.nlink() > 1 {
            return Err(PrivateError::Linked(path));
        }
        check_ours(&path, &found, 0o077, 0o600)?;
        Ok(Some(file))
    }

    /// The whole of a file inside, at most `most` bytes; `Ok(None)` if there is none.
    pub fn read(&self, name: &str, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateError> {
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
        let path = self.path.join(name);
        // All its room at once: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(most.saturating_add(1)));
        let limit = most as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(|cause| io(&path, cause))?;
        if bytes.len() > most { Err(PrivateError::TooLong { path, most }) } else { Ok(Some(bytes)) }
    }

    /// Puts a file in place, whole or not at all, and durably.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), PrivateError> {
        let fresh = format!(".{name}.new");
        let at = |cause: Errno| io(&self.path.join(&fresh), cause);
        // What a kill has left there may be a secret. One that is not ours alone only makes way.
        if let Ok(Some(left)) = self.open_file(&fresh, OFlags::WRONLY) {
            wipe(left).map_err(|cause| io(&self.path.join(&fresh), cause))?;
        }
        match unlinkat(&self.file, &fresh, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(cause) => return Err(at(cause)),
        }
        let file = self.open_file(&fresh, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        let mut file = file.ok_or_else(|| at(Errno::NOENT))?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(|cause| io(&self.path.join(&fresh), cause))?;
        renameat(&self.file, &fresh, &self.file, name).map_err(at)?;
        fsync(&self.file).map_err(at)
    }

    /// [`Self::replace`], after which what stood there before is overwritten, as far as [`Self::erase`] can.
    pub fn replace_and_erase(&self, name: &str, content: &[u8]) -> Result<(), PrivateError> {
        let old = match self.open_file(name, OFlags::WRONLY) {
            // One that we may only read is replaced all the same.
            Err(PrivateError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::PermissionDenied => None,
            old => old?,
        };
        self.replace(name, content)?;
        old.map_or(Ok(()), |old| wipe(old).map_err(|cause| io(&self.path.join(name), cause)))
    }

    /// Removes a file inside, if there is one.
    pub fn remove(&self, name: &str) -> Result<(), PrivateError> {
        match unlinkat(&self.file, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(cause) => Err(io(&self.path.join(name), cause)),
        }
    }

    /// Overwrites a file inside, and removes it. What its disk keeps of former blocks is beyond us.
    pub fn erase(&self, name: &str) -> Result<(), PrivateError> {
        let Some(file) = self.open_file(name, OFlags::WRONLY)? else { return Ok(()) };
        wipe(file).map_err(|cause| io(&self.path.join(name), cause))?;
        self.remove(name)
    }

    /// What [`Self::read`] would find, as something cheap to compare.
    pub fn stamp(&self, name: &str) -> Result<Stamp, PrivateError> {
        let dir = self.file.metadata().map_err(|cause| io(&self.path, cause))?;
        let file = match statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Every write, chmod, chown, rename and relink moves ctime, and only the system sets it.
            Ok(found) => Some((found.st_ino, found.st_size as u64, found.st_ctime, found.st_ctime_nsec)),
            Err(Errno::NOENT) => None,
            Err(cause) => return Err(io(&self.path.join(name), cause)),
        };
        Ok(Stamp { dir: (dir.ino(), dir.mode(), dir.uid()), file })
    }
}

/// Puts a file in place that only we can read, in whatever directory it is: whole or not at all. What
/// is there already must be a regular file and ours alone, too: a link is not followed, and a file that
/// others can read is not filled with what they should not.
pub fn replace_private(path: &Path, content: &[u8]) -> Result<(), PrivateError> {
    let (dir, name) = around(path)?;
    dir.open_file(name, OFlags::RDONLY)?;
    dir.replace(name, content)
}

/// The whole of a file that is ours alone, in whatever directory it is; `Ok(None)` if there is none.
pub fn read_private(path: &Path, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateError> {
    match around(path) {
        Ok((dir, name)) => dir.read(name, most),
        Err(PrivateError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a file that only we can read, in whatever directory it is. One that is there already stays as it is:
/// `Ok(false)`.
pub fn create_private(path: &Path, content: &[u8]) -> Result<bool, PrivateError> {
    let (dir, name) = around(path)?;
    match dir.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL) {
        Err(PrivateError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
        Ok(None) => Err(io(path, Errno::NOENT)),
        Ok(Some(mut file)) => {
            let written = file.write_all(content).and_then(|()| file.sync_all());
            written.map_err(|cause| io(path, cause)).map(|()| true)
        }
    }
}

/// The directory of a file, whosever it is, and the file's name.
fn around(path: &Path) -> Result<(PrivateDir, &str), PrivateError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| PrivateError::NotAFile(path.to_owned()))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = rustix::fs::open(parent, flags, Mode::empty()).map_err(|cause| io(parent, cause))?;
    Ok((PrivateDir { file: file.into(), path: parent.to_owned() }, name))
}

/// Overwrites a file. What its disk keeps of former blocks is beyond us.
fn wipe(mut file: File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    std::io::copy(&mut std::io::repeat(0).take(length), &mut file)?;
    file.sync_all()
}

fn check_ours(path: &Path, found: &Metadata, forbidden: u32, fix: u32) -> Result<(), PrivateError> {
    let us = rustix::process::geteuid().as_raw();
    let path = path.to_owned();
    if found.uid() != us {
        return Err(PrivateError::Foreign { path, owner: found.uid(), us });
    }
    if found.mode() & forbidden != 0 {
        return Err(PrivateError::Exposed { path, mode: found.mode() & 0o7777, fix });
    }
    Ok(())
}

fn io(path: &Path, cause: impl Into<std::io::Error>) -> PrivateError {
    PrivateError::Io { path: path.to_owned(), cause: cause.into() }
}

#[cfg(test)]
mod tests;
