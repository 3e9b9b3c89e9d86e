//! Devices: those that are everybody's, the command's own terminal, and terminals that it makes. The machine's others,
//! disks, keyboards, the terminals that the user has open elsewhere, obey whom they belong to in every namespace.

use super::mounts;
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where they are.
pub const DIRECTORY: &str = "/dev";

/// Everybody's.
const NODES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// What leads to a process's own, or to the terminals.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// The most terminals that may be there before the command's own, for it to keep its name.
const MOST: u32 = 256;

const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Terminals of the new instance whose names the command's own have taken, to be kept as long as they are to have them.
pub struct Taken(#[expect(dead_code, reason = "held, not read")] Vec<File>);

/// Puts them in place of what is there. The command's standard input is this one.
pub fn replace(stdin: &OwnedFd) -> io::Result<Taken> {
    let dev = Path::new(DIRECTORY);
    let mut nodes = Vec::new();
    for node in NODES.map(|name| dev.join(name)) {
        if let Some(found) = opened(&node)? {
            nodes.push((node, found));
        }
    }
    let terminals = terminals(stdin)?;
    // Terminals of the system that are to be seen elsewhere, in what somebody may chroot to.
    let elsewhere = mounts::all()?.into_iter().filter(|mounted| matches!(mounted.kind.as_str(), "devpts" | "devtmpfs"));
    for mounted in elsewhere.filter(|mounted| !mounted.at.starts_with(dev)) {
        match mount("attache", &mounted.at, "tmpfs", FLAGS | MountFlags::RDONLY, c"size=4k,nr_inodes=2,mode=0555") {
            // Gone, out of our reach, or one device alone: what sockets are covered with.
            Ok(()) | Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }

    mount("attache", dev, "tmpfs", FLAGS, c"size=64k,nr_inodes=64,mode=0755")?;
    for (node, found) in nodes {
        put(&node, &found)?;
    }
    for (name, to) in LINKS {
        symlink(to, dev.join(name))?;
    }
    for name in ["pts", "shm"] {
        std::fs::create_dir(dev.join(name))?;
    }
    mount("attache", dev.join("shm"), "tmpfs", FLAGS | MountFlags::NODEV, c"mode=1777")?;
    mount("attache", dev.join("pts"), "devpts", FLAGS, c"newinstance,ptmxmode=0666,mode=0620")?;
    let taken = put_terminals(terminals)?;
    mount_remount(dev, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | FLAGS, "")?;
    Ok(taken)
}

/// A descriptor that leads to what is at a path, and no further; `None`: nothing is.
fn opened(path: &Path) -> io::Result<Option<OwnedFd>> {
    match openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Puts what a descriptor leads to at a path where there is nothing, or something of its kind.
fn put(at: &Path, found: &OwnedFd) -> io::Result<()> {
    if !at.exists() {
        File::create_new(at)?;
    }
    Ok(mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), at)?)
}

/// The terminals among the command's standard streams, by their names.
fn terminals(stdin: &OwnedFd) -> io::Result<BTreeMap<PathBuf, OwnedFd>> {
    let mut found = BTreeMap::new();
    let streams = [stdin.as_fd().is_terminal().then(|| stdin.as_fd().try_clone_to_owned())];
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let own = [(stdout.is_terminal(), stdout.as_fd()), (stderr.is_terminal(), stderr.as_fd())];
    let own = own.into_iter().filter(|(is, _)| *is).map(|(_, stream)| Some(stream.try_clone_to_owned()));
    for stream in streams.into_iter().chain(own).flatten() {
        let stream = stream?;
        let name = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd()))?;
        // A name that it had elsewhere, in a container around us, is that of another or of none here.
        let Ok(Some(node)) = opened(&name) else { continue };
        let (here, there) = (fstat(&node)?, fstat(&stream)?);
        let same = (here.st_dev, here.st_ino, here.st_rdev) == (there.st_dev, there.st_ino, there.st_rdev);
        if same && name.starts_with(DIRECTORY) {
            found.insert(name, node);
        }
    }
    Ok(found)
}

/// Each under the name that it has: `ttyname` finds it there, and nowhere else. In an instance of its own the kernel
/// gives the first number that is free, and no other.
fn put_terminals(mut terminals: BTreeMap<PathBuf, OwnedFd>) -> io::Result<Taken> {
    let number = |name: &Path| {
        let number = name.strip_prefix("/dev/pts").ok()?.to_str()?.parse::<u32>().ok()?;
        Some(number).filter(|number| *number < MOST)
    };
    let last = terminals.keys().filter_map(|name| number(name)).max();
    let mut kept = Vec::new();
    let mut passed_over = Vec::new();
    for next in last.into_iter().flat_map(|last| 0..=last) {
        // More than this process may have open.
        let Ok(new) = File::options().read(true).write(true).open("/dev/pts/ptmx") else { break };
        let name = Path::new("/dev/pts").join(next.to_string());
        match terminals.remove(&name) {
            Some(own) => {
                put(&name, &own)?;
                kept.push(new);
            }
            None => passed_over.push(new),
        }
    }
    for (name, own) in terminals {
        // A console keeps its name; what is left has the one that is looked at last.
        let keeps = name.parent() == Some(Path::new(DIRECTORY));
        put(if keeps { &name } else { Path::new("/dev/console") }, &own)?;
    }
    Ok(Taken(kept))
}
