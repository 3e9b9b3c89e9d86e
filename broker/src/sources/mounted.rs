//! Volumes as a kubelet mounts them: <https://kubernetes.io/docs/concepts/storage/volumes/#secret>
//!
//! `token` is a link to `..data/token`, and `..data` one to a directory that is named after the time; a change makes
//! another directory, and swaps the one link. So links are followed here, but none that leads out of the volume. Group
//! and others may read, as a kubelet lets them. Where the mount is not read-only, all of it is root's or our own, and
//! nobody else may write it.

use super::file::text;
use super::{MOST, Mark, Reading, Source, SourceError};
use crate::config::Mounted;
use crate::private_file::Stamp;
use attache_core::Secret;
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstatvfs, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use zeroize::Zeroizing;

/// What a kubelet swaps.
const DATA: &str = "..data";
/// Somebody moves things about while we look: then once more, but not forever.
const ATTEMPTS: usize = 8;
/// As many links as Linux follows.
const LINKS: usize = 40;
/// Anybody may read, of a file's mode.
const ANYBODY_READS: u32 = 0o004;
/// Anybody may write.
const ANYBODY_WRITES: u32 = 0o002;
/// And its group.
const OTHERS_WRITE: u32 = 0o022;
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
    /// Others could put another secret there.
    #[error("{0} may be written by others than its owner (mode {1:04o})")]
    Writable(PathBuf, u32),
    /// Its owner could.
    #[error("{0} belongs to user {1}, who is neither root nor the broker's user")]
    Foreign(PathBuf, u32),
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
            MountedError::Foreign(..) => "mount it read-only, or have root or the broker's user own it",
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
    /// The file of a volume.
    pub fn new(config: &Mounted) -> Self {
        Self { volume: config.volume.clone(), file: config.file.clone(), place: config.place() }
    }

    fn find(&self) -> Result<Option<Secret>, SourceError> {
        let Some(bytes) = self.read()? else { return Ok(None) };
        Ok(Some(Secret::new(text(&bytes, || self.place.clone())?)))
    }

    /// What it holds; `Ok(None)` if it is not there.
    pub fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, MountedError> {
        let Some(root) = self.root()? else { return Ok(None) };
        check_dir(&root, &self.volume)?;
        if let Some(data) = beneath(&root, DATA.as_ref(), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|why| wrong(&self.volume.join(DATA), why))?
        {
            check_dir(&data, &self.volume.join(DATA))?;
        }
        self.check_way(&root)?;
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

    /// Where it is, for people.
    pub fn path(&self) -> PathBuf {
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

    /// Judges each directory that leads to the file, by the links that are there.
    fn check_way(&self, root: &File) -> Result<(), MountedError> {
        let leads_out = || MountedError::LeadsOut(self.path());
        let mut left: VecDeque<OsString> = words(&self.file).ok_or_else(leads_out)?;
        let mut way: Vec<File> = Vec::new();
        let mut links = 0;
        while let Some(word) = left.pop_front() {
            if word == ".." {
                way.pop().ok_or_else(leads_out)?;
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found: File = match openat(way.last().unwrap_or(root), &word, flags, Mode::empty()) {
                Ok(found) => found.into(),
                // Opening it says so.
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                Err(why) => return Err(wrong(&self.path(), why)),
            };
            let kind = metadata(&found, &self.path())?.file_type();
            if kind.is_symlink() {
                links += 1;
                let target = readlinkat(&found, "", Vec::new()).map_err(|why| wrong(&self.path(), why))?;
                let target = OsString::from_vec(target.into_bytes());
                let target = words(Path::new(&target)).filter(|_| links <= LINKS).ok_or_else(leads_out)?;
                target.into_iter().rev().for_each(|word| left.push_front(word));
            } else if kind.is_dir() {
                check_dir(&found, &self.path().with_file_name(&word))?;
                way.push(found);
            }
        }
        Ok(())
    }

    /// The file, if it is one that nobody else may write.
    fn open(&self, root: &File, flags: OFlags) -> Result<Option<File>, MountedError> {
        let Some(file) = beneath(root, &self.file, flags).map_err(|why| wrong(&self.path(), why))? else {
            return Ok(None);
        };
        let found = metadata(&file, &self.path())?;
        if !found.is_file() {
            return Err(MountedError::NotAFile(self.path()));
        }
        if found.mode() & ANYBODY_WRITES != 0 {
            return Err(MountedError::Writable(self.path(), found.mode() & 0o7777));
        }
        if !is_read_only(&file) {
            is_ours(&found, &self.path())?;
            if found.mode() & OTHERS_WRITE != 0 {
                return Err(MountedError::Writable(self.path(), found.mode() & 0o7777));
            }
        }
        Ok(Some(file))
    }

    /// Its mode, where anybody on the machine may read it. What a kubelet has mounted read-only is its container's alone,
    /// whatever the mode.
    pub fn exposed(&self) -> Result<Option<u32>, MountedError> {
        let Some(root) = self.root()? else { return Ok(None) };
        let Some(file) = self.open(&root, OFlags::PATH)? else { return Ok(None) };
        let mode = metadata(&file, &self.path())?.mode() & 0o7777;
        Ok((mode & ANYBODY_READS != 0 && !is_read_only(&file)).then_some(mode))
    }

    /// Changes whenever it does, or what leads to it.
    pub fn stamp(&self) -> Option<Stamp> {
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

/// A directory in which somebody else may put another file in this one's place is none of a kubelet's. A sticky one may
/// be: there nobody moves what is root's or ours.
fn check_dir(dir: &File, path: &Path) -> Result<(), MountedError> {
    if is_read_only(dir) {
        return Ok(());
    }
    let found = metadata(dir, path)?;
    is_ours(&found, path)?;
    let mode = found.mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(MountedError::Writable(path.to_owned(), mode & 0o7777));
    }
    Ok(())
}

fn is_read_only(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn is_ours(found: &Metadata, path: &Path) -> Result<(), MountedError> {
    let owner = found.uid();
    let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if is_ours { Ok(()) } else { Err(MountedError::Foreign(path.to_owned(), owner)) }
}

/// The words of a relative path.
fn words(path: &Path) -> Option<VecDeque<OsString>> {
    let word = |component| match component {
        Component::Normal(word) => Some(word.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter(|one| *one != Component::CurDir).map(word).collect()
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
