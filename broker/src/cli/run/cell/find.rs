//! What is to be hidden, and whether that can be: looked for out here, as the user that the command is, too.

use super::CellError;
use super::mounts::{self, Elsewhere};
use crate::api::view::Identity;
use rustix::fs::{Access, FileType, access};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// The sockets that processes of this network namespace have bound (proc_net(5)).
const SOCKETS: &str = "/proc/net/unix";

/// The most links on the way to a file; the kernel follows 40.
const LINKS: usize = 40;

/// Set on a directory in which everybody moves what is their own.
const STICKY: u32 = 0o1000;

/// A directory, and which one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where it is, as the kernel finds it.
    pub path: PathBuf,
    /// Which one it is.
    pub identity: Identity,
}

/// What is to be hidden, as the kernel finds it.
#[derive(Debug, Default)]
pub struct Found {
    directories: BTreeMap<PathBuf, Identity>,
    /// Files out of one of the directories that are mounted elsewhere.
    pub files: BTreeSet<PathBuf>,
}

impl Found {
    /// Looks for directories to hide; some are not there. Where it is known which one is meant, another one is an error.
    pub fn look<'a>(named: impl Iterator<Item = (&'a PathBuf, Option<Identity>)>) -> Result<Self, CellError> {
        let mut found = Self::default();
        for (directory, meant) in named {
            if let Some(Directory { path, identity }) = look_for(directory, meant)? {
                found.look_elsewhere(&path, identity)?;
                found.directories.insert(path, identity);
            }
        }
        Ok(found)
    }

    /// The directories, none of which lies in another.
    pub fn directories(&self) -> Vec<Directory> {
        let holds = |one: &Path| self.directories.keys().any(|other| other != one && one.starts_with(other));
        let apart = self.directories.iter().filter(|(path, _)| !holds(path));
        apart.map(|(path, identity)| Directory { path: path.clone(), identity: *identity }).collect()
    }

    /// What is mounted in more than one place is hidden in each.
    fn look_elsewhere(&mut self, path: &Path, identity: Identity) -> Result<(), CellError> {
        for Elsewhere { path, whole } in mounts::elsewhere(path)? {
            match rustix::fs::stat(&path) {
                Ok(there) if !FileType::from_raw_mode(there.st_mode).is_dir() => drop(self.files.insert(path)),
                // Something else is mounted over it.
                Ok(there) if whole && Identity::of(&there) != identity => {}
                Ok(there) => drop(self.directories.insert(path, Identity::of(&there))),
                Err(Errno::ACCESS) if is_shut_by_us(&path) => return Err(CellError::Shut(path)),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// The directory at a path, if one is there.
fn look_for(directory: &Path, meant: Option<Identity>) -> Result<Option<Directory>, CellError> {
    if let Some(link) = replaceable_link(directory) {
        return Err(CellError::Link { hidden: directory.to_owned(), link });
    }
    let replaced = || CellError::Replaced(directory.to_owned());
    let path = match directory.canonicalize() {
        Ok(path) => path,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound if meant.is_some() => return Err(replaced()),
            io::ErrorKind::NotFound => return Ok(None),
            io::ErrorKind::PermissionDenied if is_shut_by_us(directory) => {
                return Err(CellError::Shut(directory.to_owned()));
            }
            // Whoever we are, the child is, too: what we cannot reach, it cannot.
            io::ErrorKind::PermissionDenied => return Ok(None),
            _ => return Err(error.into()),
        },
    };
    let identity = Identity::of(&rustix::fs::stat(&path).map_err(io::Error::from)?);
    if meant.is_some_and(|meant| meant != identity) {
        return Err(replaced());
    }
    Ok(Some(Directory { path, identity }))
}

/// The directories above these that could be moved away, with something else put in their place; those above others
/// first.
pub fn above(directories: &[Directory]) -> Vec<PathBuf> {
    let mut above = BTreeSet::new();
    for directory in directories {
        for one in directory.path.ancestors().skip(1) {
            let Some(parent) = one.parent() else { continue };
            if one.symlink_metadata().map_or(true, |found| may_move(parent, &found)) {
                above.insert(one.to_owned());
            }
        }
    }
    above.into_iter().collect()
}

/// Whether our user, and so the command, may rename something in a directory.
fn may_move(parent: &Path, entry: &Metadata) -> bool {
    let us = geteuid();
    let Ok(directory) = parent.metadata() else { return true };
    if us.is_root() || directory.uid() == us.as_raw() {
        return true;
    }
    let kept = directory.mode() & STICKY != 0 && entry.uid() != us.as_raw();
    !kept && access(parent, Access::WRITE_OK).is_ok()
}

/// The first link on the way that our user, and so the command, could replace.
fn replaceable_link(path: &Path) -> Option<PathBuf> {
    let mut at = PathBuf::from("/");
    let mut left: Vec<OsString> = words(path);
    let mut links = 0;
    while let Some(word) = left.pop() {
        if word == ".." {
            at.pop();
            continue;
        }
        let next = at.join(word);
        // What is not there, or not to be looked at, whoever goes there is told.
        let found = next.symlink_metadata().ok()?;
        if !found.is_symlink() {
            at = next;
            continue;
        }
        if may_move(&at, &found) {
            return Some(next);
        }
        links += 1;
        let to = next.read_link().ok().filter(|_| links <= LINKS)?;
        if to.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(words(&to));
    }
    None
}

/// The words of a path, the first one last.
fn words(path: &Path) -> Vec<OsString> {
    let words = path.components().filter_map(|component| match component {
        Component::Normal(word) => Some(word.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    words.rev().collect()
}

/// Whether a path leads through a directory that our user has shut, and the command could open.
fn is_shut_by_us(path: &Path) -> bool {
    let mut above: Vec<_> = path.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        match directory.metadata() {
            Ok(found) if access(directory, Access::EXEC_OK).is_err() => return found.uid() == geteuid().as_raw(),
            Ok(_) => {}
            // By a link: who has shut what that leads through is not looked for.
            Err(_) => return true,
        }
    }
    false
}

/// UNIX sockets are files, and lead out of every network namespace: to a container engine, a session bus,
/// a terminal multiplexer, which run what they are told to.
pub fn sockets() -> Vec<PathBuf> {
    named_sockets(&std::fs::read_to_string(SOCKETS).unwrap_or_default()).filter(|path| path.exists()).collect()
}

/// The paths in a listing of UNIX sockets; those with a name in no file system are the namespace's own.
fn named_sockets(listing: &str) -> impl Iterator<Item = PathBuf> {
    let paths: BTreeSet<PathBuf> = listing
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(" /").map(|(_, path)| Path::new("/").join(path)))
        .collect();
    paths.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn sockets_with_a_path_are_found() {
        let listing = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                       0000000000000000: 00000002 00000000 00010000 0001 01 1 /run/a b.sock\n\
                       0000000000000000: 00000002 00000000 00010000 0001 01 2 @abstract\n\
                       0000000000000000: 00000003 00000000 00000000 0001 03 3\n\
                       0000000000000000: 00000002 00000000 00000000 0002 01 4 /dev/log\n";
        let found: Vec<_> = named_sockets(listing).collect();
        assert_eq!(found, [Path::new("/dev/log"), Path::new("/run/a b.sock")]);
    }

    fn identity(path: &Path) -> Identity {
        Identity::of(&rustix::fs::stat(path).unwrap())
    }

    fn found(path: &Path, meant: Option<Identity>) -> Result<Vec<PathBuf>, CellError> {
        let path = path.to_owned();
        let found = Found::look([(&path, meant), (&path, None)].into_iter())?;
        Ok(found.directories().into_iter().map(|directory| directory.path).collect())
    }

    #[test]
    fn what_is_not_there_needs_no_hiding_and_what_has_changed_places_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let there = temp.path().canonicalize().unwrap().join("state");
        assert!(found(&there, None).unwrap().is_empty());
        std::fs::create_dir(&there).unwrap();
        let meant = identity(&there);
        assert_eq!(found(&there, Some(meant)).unwrap(), [there.as_path()]);
        std::fs::rename(&there, temp.path().join("gone")).unwrap();
        assert!(matches!(found(&there, Some(meant)), Err(CellError::Replaced(_))));
        std::fs::create_dir(&there).unwrap();
        assert!(matches!(found(&there, Some(meant)), Err(CellError::Replaced(_))));
    }

    #[test]
    fn a_link_that_could_be_replaced_is_refused_wherever_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("real/state")).unwrap();
        symlink("real", base.join("second")).unwrap();
        symlink(base.join("second"), base.join("first")).unwrap();
        assert_eq!(replaceable_link(&base.join("real/../real/state")), None);
        assert_eq!(replaceable_link(&base.join("second/state")), Some(base.join("second")));
        assert!(matches!(found(&base.join("first/state"), None), Err(CellError::Link { .. })));
    }

    #[test]
    fn what_is_above_comes_from_the_top() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b/state")).unwrap();
        let path = base.join("a/b/state");
        let above = above(&[Directory { identity: identity(&path), path }]);
        assert!(above.ends_with(&[base.clone(), base.join("a"), base.join("a/b")]), "{above:?}");
    }
}
