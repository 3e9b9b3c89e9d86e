//! How something is not to be seen: with mounts that only the new namespaces have, and that nobody in there can take
//! away.

use super::find::Directory;
use crate::api::view::Identity;
use crate::cli::run::outfit::CA_FILE_NAME;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Of what holds nothing that is run.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What is mounted from now on is mounted in here alone.
pub fn apart() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Empty directories, in place of these. To be done before [`hold`]: what that covers is hidden there, too, from who
/// stands in it.
pub fn mount_over(directories: &[Directory]) -> io::Result<()> {
    for Directory { path, identity } in directories {
        let there = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let there = openat2(CWD, path, there, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        if Identity::of(&fstat(&there)?) != *identity {
            return Err(io::Error::other(format!("{} was replaced just now", path.display())));
        }
        let at = format!("/proc/self/fd/{}", there.as_raw_fd());
        mount("attache", at, "tmpfs", FLAGS | MountFlags::RDONLY, c"size=4k,nr_inodes=2,mode=0555")?;
    }
    Ok(())
}

/// Holds these in their places, those above others first: what something is mounted on, nobody in here renames. So
/// nothing can be put where others look for what is hidden.
pub fn hold(directories: &[PathBuf]) -> io::Result<()> {
    Ok(directories.iter().try_for_each(|directory| mount_bind_recursive(directory, directory))?)
}

/// The file of certificates, alone in its directory, as it was when it came.
pub fn certificates(directory: &Path, certificates: OwnedFd) -> io::Result<()> {
    mount("attache", directory, "tmpfs", FLAGS, c"size=16m,nr_inodes=4,mode=0555")?;
    let mut file = File::options().write(true).create_new(true).mode(0o444).open(directory.join(CA_FILE_NAME))?;
    io::copy(&mut File::from(certificates), &mut file)?;
    // What is open for writing keeps a mount writable.
    drop(file);
    Ok(mount_remount(directory, MountFlags::BIND | MountFlags::RDONLY | FLAGS, "")?)
}

/// Nobody listens, and there is nothing to read, in place of these.
pub fn bury(files: &[PathBuf]) -> io::Result<()> {
    for file in files {
        match mount_bind("/dev/null", file) {
            Ok(()) => {}
            // Gone meanwhile, or out of our reach, and so of the child's.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(error) => return Err(io::Error::from(error)),
        }
    }
    Ok(())
}
