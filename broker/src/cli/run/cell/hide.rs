//! What is not to be seen, and how that is done: with mounts that only the new namespaces have, and that
//! nobody in there can take away.

use super::CellError;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The sockets that processes of this network namespace have bound (proc_net(5)).
const SOCKETS: &str = "/proc/net/unix";

/// Directories to hide, as the kernel finds them, without those that are not there.
pub fn directories<'a>(named: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>, CellError> {
    let mut found = BTreeSet::new();
    for directory in named {
        match directory.canonicalize() {
            Ok(path) => drop(found.insert(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Whoever we are, the child is, too: what we cannot reach, it cannot.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found.into_iter().collect())
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

/// What is mounted from now on is mounted in here alone.
pub fn apart() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Empty directories, in place of these.
pub fn mount_over(directories: &[PathBuf]) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for directory in directories {
        match mount("attache", directory, "tmpfs", flags, c"size=4k,nr_inodes=2,mode=0555") {
            Ok(()) => {}
            // It was there a moment ago.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(io::Error::from(error)),
        }
    }
    Ok(())
}

/// Nobody listens, in place of these.
pub fn bury(sockets: &[PathBuf]) -> io::Result<()> {
    for socket in sockets {
        match mount_bind("/dev/null", socket) {
            Ok(()) => {}
            // Gone meanwhile, or out of our reach, and so of the child's.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(error) => return Err(io::Error::from(error)),
        }
    }
    Ok(())
}

/// Processes of the new namespace alone.
pub fn mount_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_not_there_needs_no_hiding() {
        let temp = tempfile::tempdir().unwrap();
        let there = temp.path().canonicalize().unwrap();
        let named = [there.clone(), there.join("not"), there.clone()];
        assert_eq!(directories(named.iter()).unwrap(), [there]);
    }
}
