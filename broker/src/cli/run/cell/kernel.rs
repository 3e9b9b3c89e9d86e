//! The kernel's switches. They obey the user that they belong to, capabilities or not: root's own are in root's reach in
//! every namespace, and a part of the cgroups may be anybody's.

use super::mounts;
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use rustix::process::geteuid;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Kinds of file systems whose files are switches.
const SWITCHES: [&str; 14] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "efivarfs",
    "fusectl",
    "proc",
    "pstore",
    "resctrl",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Of a `/proc`.
const PROC: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Switches that are mounted anywhere are there to be read. For `/proc`, see [`mount_proc`].
pub fn read_only() -> io::Result<()> {
    for mounted in mounts::all()? {
        let switches = SWITCHES.contains(&mounted.kind.as_str()) || mounted.at.starts_with("/sys");
        if switches && !mounted.at.starts_with("/proc") {
            remount(&mounted.at)?;
        }
    }
    Ok(())
}

/// Read-only, with all that holds of it already: nothing of that can be taken away in here.
fn remount(at: &Path) -> io::Result<()> {
    let flags = match statvfs(at) {
        Ok(found) => found.f_flag,
        // Out of our reach, and so of the child's; or mounted where nobody gets to.
        Err(Errno::ACCESS | Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let both = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = both.into_iter().filter(|(found, _)| flags.contains(*found)).map(|(_, kept)| kept);
    match mount_remount(at, MountFlags::BIND | MountFlags::RDONLY | kept.collect(), "") {
        // What is mounted at this path is beneath something else.
        Err(Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Processes of the new namespace alone. What else root finds there is to be read; an ordinary user may write to none of
/// it, and could not make a namespace with a `/proc` in it where a part of this one is covered.
pub fn mount_proc() -> io::Result<()> {
    mount("proc", "/proc", "proc", PROC, None)?;
    if !geteuid().is_root() {
        return Ok(());
    }
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let found = std::fs::symlink_metadata(entry.path())?;
        let may_write = found.is_dir() || (found.is_file() && found.permissions().mode() & 0o222 != 0);
        if !is_process && may_write {
            mount_bind(entry.path(), entry.path())?;
            mount_remount(entry.path(), MountFlags::BIND | MountFlags::RDONLY | PROC, "")?;
        }
    }
    Ok(())
}
