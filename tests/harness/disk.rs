//! A small disk: memory, mounted, which can be filled and emptied.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted disk; dropping it unmounts it.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Whether this user may mount: root alone.
    #[must_use]
    pub fn may_be_mounted() -> bool {
        let probe = crate::util::temp_dir();
        mount(probe.path(), 1 << 16) && unmount(probe.path())
    }

    /// Makes the directory, and mounts a disk of so many bytes there.
    ///
    /// # Panics
    /// When this user may not.
    #[must_use]
    pub fn at(directory: &Path, bytes: u64) -> Self {
        std::fs::create_dir(directory).expect("a directory for the disk");
        assert!(mount(directory, bytes), "a disk can be mounted at {}", directory.display());
        Self { at: directory.to_owned() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// Takes all the room that is left on the disk of this file, which must not be there yet.
///
/// # Panics
/// When the file cannot be made.
pub fn fill(with: &Path) {
    let mut filler = std::fs::File::create_new(with).expect("a file on the disk");
    // First by pages, then by bytes.
    for piece in [vec![b'x'; 4096], vec![b'x'; 1]] {
        while filler.write_all(&piece).is_ok() {}
    }
}

fn mount(at: &Path, bytes: u64) -> bool {
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "tmpfs"]).arg(at))
}

fn unmount(at: &Path) -> bool {
    run(Command::new("umount").arg("--lazy").arg(at))
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
