//! Volumes as a kubelet mounts them: <https://kubernetes.io/docs/concepts/storage/volumes/#secret>
//!
//! `token` is a link to `..data/token`, and `..data` one to a directory that is named after the time; a change makes
//! another directory, and swaps the one link. So links are followed here, but none that leads out of the volume. Group
//! and others may read, as a kubelet lets them; what others may write is refused.

use super::file::text;
use super::{MOST, Mark, Reading, Source, SourceError};
use crate::config::Mounted;
use crate::private_file::Stamp;
use attache_core::Secret;
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstatvfs, openat2};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a kubelet swaps.
const DATA: &str = "..data";
/// Somebody moves things about while we look: then once more, but not forever.
const ATTEMPTS: usize = 8;
/// Who may write, of a file's mode.
const OTHERS_WRITE: u32 = 0o002;
/// In such a directory nobody moves what is another's.
const STICKY: u32 = 0o1000;

/// Why a file of a volume cannot be used. Names places, never content.
#[derive(Debug, thiserror::Error)]
pub enum MountedError {
    /// No directory.
    #[error("{0} is not a directory")]
    NotAVolume(PathBuf),
    /// A link to elsewhere.
    #[error("{0} leads out of its volume, or around in a circle")]
    LeadsOut(PathBuf),
    /// A FIFO, a device, a socket or a directory.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Anybody could put another secret there.
    #[error("{0} may be written by anybody (mode {1:04o})")]
    Writable(PathBuf, u32),
    /// Longer than a secret may be.
    #[error("{0} is longer than 64 KiB")]
    TooLong(PathBuf),
    /// Not for us.
    #[error("{0} is closed to the broker's user")]
    Closed(PathBuf),
    /// A kernel that cannot stay below a directory.
    #[error("{0} cannot be opened: this kernel, or what confines the broker, has no openat2")]
    NoOpenat2(PathBuf),
    /// The system said no.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
}

impl MountedError {
    /// What an operator does about it.
    pub fn fix(&self) -> &'static str {
        match self {
            MountedError::NotAVolume(_) => "name the volume's mountPath in `volume`",
            MountedError::LeadsOut(_) => {
                "name the root of the volume in `volume`, the mountPath: links are followed below it alone"
            }
            MountedError::NotAFile(_) | MountedError::TooLong(_) => {
                "name a key of the Secret, or the path that an item gives it: a regular file that holds the secret alone"
            }
            MountedError::Writable(..) => {
                "mount it read-only, with a defaultMode such as 0440 in which others may not write"
            }
            MountedError::Closed(_) => {
                "set securityContext.fsGroup of the pod, or a defaultMode by which the broker's user may read it"
            }
            MountedError::NoOpenat2(_) => {
                "run it on Linux 5.6 or later, under a seccomp profile that lets openat2 pass"
            }
            MountedError::Io(..) => "see whether the volume is mounted, and its file system sound",
        }
    }
}

/// One file of a volume. Every reading opens the volume anew: it may have been mounted anew.
pub struct VolumeFile {
    volume: PathBuf,
    file: PathBuf,
    place: String,
}

impl VolumeFile {
    pub(super) fn new(config: &Mounted) -> Self {
        Self { volume: config.volume.clone(), file: config.file.clone(), place: config.place() }
    }

    fn find(&self) -> Result<Option<Secret>, SourceError> {
        let Some(bytes) = self.read()? else { return Ok(None) };
        Ok(Some(Secret::new(text(&bytes, || self.place.clone())?)))
    }

    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, MountedError> {
        let Some(root) = self.root()? else { return Ok(None) };
        check_dir(&root, &self.volume)?;
        if let Some(data) = beneath(&root, DATA.as_ref(), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|why| wrong(&self.volume.join(DATA), why))?
        {
            check_dir(&data, &self.volume.join(DATA))?;
        }
        // Looked at before it is opened: a device may do something when it is.
        if self.open(&root, OFlags::PATH)?.is_none() {
            return Ok(None);
        }
        let Some(file) = self.open(&root, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)? else {
            return Ok(None);
        };
        // All its room at once: a buffer that grows leaves copies behind. Two bytes more: a final line break.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 3));
        let read = file.take(MOST as u64 + 3).read_to_end(&mut bytes);
        read.map_err(|cause| MountedError::Io(self.path(), cause))?;
        if bytes.trim_ascii_end().len() > MOST || bytes.len() > MOST + 2 {
            return Err(MountedError::TooLong(self.path()));
        }
        Ok(Some(bytes))
    }

    fn path(&self) -> PathBuf {
        self.volume.join(&self.file)
    }

    fn root(&self) -> Result<Option<File>, MountedError> {
        match rustix::fs::open(&self.volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => Ok(Some(root.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(MountedError::NotAVolume(self.volume.clone())),
            Err(why) => Err(wrong(&self.volume, why)),
        }
    }

    /// The file, if it is one that only its owner and its group may write.
    fn open(&self, root: &File, flags: OFlags) -> Result<Option<File>, MountedError> {
        let Some(file) = beneath(root, &self.file, flags).map_err(|why| wrong(&self.path(), why))? else {
            return Ok(None);
        };
        let found = metadata(&file, &self.path())?;
        if !found.is_file() {
            return Err(MountedError::NotAFile(self.path()));
        }
        if found.mode() & OTHERS_WRITE != 0 {
            return Err(MountedError::Writable(self.path(), found.mode() & 0o7777));
        }
        Ok(Some(file))
    }

    fn stamp(&self) -> Option<Stamp> {
        let root = self.root().ok()??;
        let file = beneath(&root, &self.file, OFlags::PATH).ok()?;
        let file = file.map(|file| file.metadata()).transpose().ok()?;
        Some(Stamp::opened(&root.metadata().ok()?, file.as_ref()))
    }
}

impl Source for VolumeFile {
    fn read(&self) -> Reading<'_> {
        // A small file in memory: reading it here is quicker than handing it to another thread.
        Box::pin(async { Ok(self.find()?.map(Into::into)) })
    }

    fn mark(&self) -> Mark {
        Mark::File(self.stamp())
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// Opens what lies below a directory, by no link that leads out of it; `Ok(None)` if there is nothing.
fn beneath(root: &File, path: &Path, flags: OFlags) -> Result<Option<File>, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        opened = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    match opened {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(why) => Err(why),
    }
}

/// A directory in which anybody may put another file in this one's place is none of a kubelet's.
fn check_dir(dir: &File, path: &Path) -> Result<(), MountedError> {
    let mode = metadata(dir, path)?.mode();
    let is_open = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
    let read_only = || fstatvfs(dir).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_open && !read_only() {
        return Err(MountedError::Writable(path.to_owned(), mode & 0o7777));
    }
    Ok(())
}

fn metadata(file: &File, path: &Path) -> Result<Metadata, MountedError> {
    file.metadata().map_err(|cause| MountedError::Io(path.to_owned(), cause))
}

fn wrong(path: &Path, why: Errno) -> MountedError {
    let path = path.to_owned();
    match why {
        Errno::XDEV | Errno::LOOP => MountedError::LeadsOut(path),
        Errno::NXIO | Errno::NODEV | Errno::ISDIR | Errno::NOTDIR => MountedError::NotAFile(path),
        Errno::ACCESS => MountedError::Closed(path),
        Errno::NOSYS | Errno::PERM => MountedError::NoOpenat2(path),
        cause => MountedError::Io(path, cause.into()),
    }
}

#[cfg(test)]
mod tests;
