//! The bootstrap and `attache up` on a real Envoy: `$ATTACHE_ENVOY`, `.venv` or `PATH`, as for operators.
//!
//! The filter here is an empty module, so that these tests need no wasm build: it decides nothing.
//! What the real one decides is tested elsewhere.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod accepts;
mod hands_over;
mod module;
mod runs;
mod tells;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Every kind of destination there is.
const CONFIG: &str = "
state_dir: state
listen: {proxy: '127.0.0.1:0'}
credentials:
  github: {preset: github}
  openai: {preset: openai}
  anthropic: {preset: anthropic}
  unifi:
    source: {file: unifi_key}
    inject: {header: X-API-Key}
    destinations: [{host: unifi.lan, port: 8443, paths: [/proxy/network/], spki_sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=}]
  lab:
    source: {file: lab}
    inject: {query: key}
    destinations:
      - {host: lab.lan, plaintext: true}
      - {host: '[::1]', port: 9000, plaintext: true}
      - {host: 127.0.0.1, port: 9, upstream: {ca_file: CA}}
sessions:
  - {name: dev, credentials: [github, openai]}
";

/// A directory with a config, a filter and a CA.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/ca.pem");
        std::fs::write(dir.path().join("attache.yaml"), config.replace("CA}", &format!("{}}}", ca.display()))).unwrap();
        std::fs::write(dir.path().join("empty.wasm"), module::EMPTY).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `attache ARGS`, with this place's config and filter and one secret in its environment.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
        command.args(args).arg("--config").arg(self.path("attache.yaml"));
        command.env("ATTACHE_FILTER", self.path("empty.wasm")).env("GITHUB_TOKEN", "ghp_real").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}\n{text}\n{}", output.status, errors(&output)))
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
