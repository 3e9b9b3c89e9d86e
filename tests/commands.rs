//! The command line, as its own process: what it says, how it ends, and what `attache up` leaves.

#[path = "commands/bootstraps.rs"]
mod bootstraps;
#[path = "commands/configs.rs"]
mod configs;
#[path = "commands/proxied.rs"]
mod proxied;
#[path = "commands/sessions.rs"]
mod sessions;
#[path = "commands/starts.rs"]
mod starts;
#[path = "commands/up.rs"]
mod up;
#[path = "commands/usage.rs"]
mod usage;

use std::path::{Path, PathBuf};

use attache_tests::util;
use serde_json::Value;
use tempfile::TempDir;

/// What a command came to.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// Its standard output as JSON.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {}{}", self.out, self.err))
    }
}

/// Runs `attache ARGS --config CONFIG` in an environment that holds nothing of ours.
fn run(config: &Path, args: &[&str]) -> Said {
    said(&mut up::attache(args, config))
}

fn said(command: &mut std::process::Command) -> Said {
    let output = command.output().expect("attache runs");
    Said {
        code: output.status.code().expect("it ends by itself"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A directory with this config in it.
fn config(yaml: &str) -> (TempDir, PathBuf) {
    let dir = util::temp_dir();
    let path = dir.path().join("attache.yaml");
    std::fs::write(&path, yaml).expect("a temporary directory is writable");
    (dir, path)
}

/// A config that is good, and dials nothing.
const GOOD: &str = "state_dir: state
listen: {proxy: '127.0.0.1:0'}
credentials:
  lab:
    source: {env: LAB_KEY}
    inject: bearer
    destinations: [{host: lab.test, upstream: {address: '127.0.0.1:9'}}]
sessions:
  - {name: one, credentials: [lab], access_mode: read-only}
";
