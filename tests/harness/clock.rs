//! A wall clock that jumps, for the broker and Envoy: a library that they are started with (`clock.c`).
//! Their monotonic clock, and the times of files, stay as they are.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::util;

/// The wall clock of some processes.
pub struct Clock {
    dir: TempDir,
    offset: std::fs::File,
}

impl Clock {
    /// A clock that goes right.
    ///
    /// # Panics
    /// When there is no C compiler, which Rust needs, too.
    #[must_use]
    pub fn right() -> Self {
        let dir = util::temp_dir();
        let source = util::workspace_root().join("tests/harness/clock.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(library(&dir)).arg(source);
        let compiled = compile.output().expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let offset = std::fs::File::create_new(dir.path().join("offset")).expect("a file");
        let clock = Self { dir, offset };
        clock.off_by(0);
        clock
    }

    /// From now on it is so many seconds ahead, or behind.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn off_by(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).expect("the file is writable");
    }

    /// What a process that lives by it has in its environment.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let parts = [("LD_PRELOAD", library(&self.dir)), ("ATTACHE_TEST_CLOCK", self.dir.path().join("offset"))];
        parts.map(|(name, path)| (name.to_owned(), path.to_str().expect("a plain path").to_owned())).into()
    }
}

fn library(dir: &TempDir) -> PathBuf {
    dir.path().join("clock.so")
}
