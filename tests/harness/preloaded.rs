//! A library of ours that processes are started with, and the eight bytes by which it is told what to do.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::util;

/// The library, built, and what it is told.
pub struct Preloaded {
    dir: TempDir,
    told: std::fs::File,
    variable: &'static str,
}

impl Preloaded {
    /// Builds `tests/harness/SOURCE`, which finds the path of what it is told in `variable`. It is told 0.
    ///
    /// # Panics
    /// When there is no C compiler, which Rust needs, too.
    #[must_use]
    pub fn of(source: &str, variable: &'static str) -> Self {
        let dir = util::temp_dir();
        let source = util::workspace_root().join("tests/harness").join(source);
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(library(&dir)).arg(source);
        let compiled = compile.output().expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let told = std::fs::File::create_new(told(&dir)).expect("a file");
        let preloaded = Self { dir, told, variable };
        preloaded.tell(0);
        preloaded
    }

    /// From now on this is what it is told.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn tell(&self, what: i64) {
        self.told.write_all_at(&what.to_ne_bytes(), 0).expect("the file is writable");
    }

    /// What a process that has it loaded has in its environment.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let parts = [("LD_PRELOAD", library(&self.dir)), (self.variable, told(&self.dir))];
        parts.map(|(name, path)| (name.to_owned(), path.to_str().expect("a plain path").to_owned())).into()
    }
}

fn library(dir: &TempDir) -> PathBuf {
    dir.path().join("preloaded.so")
}

fn told(dir: &TempDir) -> PathBuf {
    dir.path().join("told")
}
