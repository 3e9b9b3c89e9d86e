//! Whoever is not the broker's own user, or does not hold its token, learns nothing from it.

#[path = "keeps_out/canaries.rs"]
mod canaries;
#[path = "keeps_out/data_plane.rs"]
mod data_plane;
#[path = "keeps_out/files.rs"]
mod files;
#[path = "keeps_out/others.rs"]
mod others;
#[path = "keeps_out/process.rs"]
mod process;
#[path = "commands/up.rs"]
mod up;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Everything in a directory is its owner's alone.
fn assert_private(dir: &Path) {
    let found = std::fs::symlink_metadata(dir).expect("the directory");
    assert_eq!(found.mode() & 0o7777, 0o700, "{}", dir.display());
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let found = std::fs::symlink_metadata(&path).expect("an entry");
        if found.is_dir() {
            assert_private(&path);
        } else {
            assert!(found.is_file() || found.file_type().is_socket(), "{}", path.display());
            assert_eq!(found.mode() & 0o7777, 0o600, "{}", path.display());
            assert_eq!(found.nlink(), 1, "{}", path.display());
        }
    }
}

/// A file of `/proc/PID`; empty when it cannot be read.
fn of_process(pid: u32, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process leaves no core file, whatever happens to it.
fn assert_no_core(pid: u32) {
    let limits = of_process(pid, "limits");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "soft and hard");
}
