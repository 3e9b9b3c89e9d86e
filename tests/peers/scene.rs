//! An Attaché, and clients as processes that know nothing but what their agent would: a home of their
//! own, what `attache session env` exports, and the settings that the document shows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use attache_core::refusal::Reason;
use attache_tests::agent::Port;
use attache_tests::stack::Plan;
use attache_tests::upstream::Held;
use attache_tests::{Attache, Stack, util};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// The gateway as the document writes it.
const GATEWAY: &str = "127.0.0.1:3030";
/// No client takes so long, even where everything is cold and the machine is busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A stack, the way to it for clients, and a home for them.
pub struct Scene {
    pub stack: Stack<Attache>,
    /// Leads to the gateway; the oracle sees what passes.
    pub port: Port,
    pub home: TempDir,
}

/// What a client printed, and whether it was content.
#[derive(Debug)]
pub struct Said {
    pub succeeded: bool,
    pub out: String,
    pub err: String,
}

impl Scene {
    pub async fn of(plan: Plan) -> Self {
        let stack = plan.start().await;
        let port = stack.agent().port(stack.proxy).await;
        Self { stack, port, home: util::temp_dir() }
    }

    /// Where clients call.
    pub fn gateway(&self) -> String {
        self.port.addr.to_string()
    }

    /// A file of the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a script as an agent of this session.
    pub async fn shell(&self, session: &str, script: &str) -> Said {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script.replace(GATEWAY, &self.gateway())]);
        command.current_dir(self.home.path()).kill_on_drop(true).stdin(Stdio::null()).env_clear();
        command.env("PATH", path()).env("HOME", self.home.path()).env("LANG", "C.UTF-8");
        // Whatever else a client would like to reach, it reaches nobody.
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("NO_PROXY", "127.0.0.1").envs(self.env(session));
        self.said(command, script).await
    }

    /// Runs a command that runs a script, to its end.
    pub async fn said(&self, mut command: Command, script: &str) -> Said {
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("longer than {PATIENCE:?}: {script}")).expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said { succeeded: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) };
        self.stack.site.oracle.text(script, format!("{}{}", said.out, said.err));
        said
    }

    /// The same, where an answer waits half-way until the client has written this file.
    pub async fn while_held(&self, session: &str, script: &str, file: &str, rest: &Held) -> Said {
        self.meanwhile(self.shell(session, script), file, rest).await
    }

    /// What a client says of which an answer waits half-way until it has written this file.
    pub async fn meanwhile(&self, client: impl Future<Output = Said>, file: &str, rest: &Held) -> Said {
        let written = util::eventually(PATIENCE, || self.path(file).exists());
        let (said, ()) = tokio::join!(client, async {
            written.await;
            rest.go();
        });
        said
    }

    /// What the session's agent has in its environment. Envoy took another port than the config's 0,
    /// which the broker cannot know.
    fn env(&self, session: &str) -> BTreeMap<String, String> {
        let (said, meant) = (self.stack.config.listen.proxy.to_string(), self.gateway());
        let exported: BTreeMap<String, Value> =
            serde_json::from_value(self.stack.broker.json(&["session", "env", session])).expect("variables");
        let text = |value: Value| value.as_str().unwrap_or_default().replace(&said, &meant);
        exported.into_iter().map(|(name, value)| (name, text(value))).collect()
    }

    /// Everything adds up, and something was there to add up.
    pub async fn reconcile(&self) {
        assert!(!self.stack.upstream().hits().is_empty(), "nothing arrived");
        self.stack.reconcile().await;
    }
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.succeeded, "{}\n{}", self.out, self.err);
        self
    }

    /// It failed, and whoever ran it reads why and what to do.
    #[track_caller]
    pub fn refused(self, reason: Reason) -> Self {
        assert!(!self.succeeded, "{}\n{}", self.out, self.err);
        self.shows(reason)
    }

    /// Whoever ran it reads why and what to do. Clients break lines where they like.
    #[track_caller]
    pub fn shows(self, reason: Reason) -> Self {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = plain(&format!("{}\n{}", self.out, self.err));
        assert!(shown.contains(reason.hint()), "no hint in:\n{}\n{}", self.out, self.err);
        self
    }
}

/// The block of `docs/clients.md` with this info string: what a test runs is what the document shows.
#[track_caller]
pub fn shown(info: &str) -> String {
    let page = std::fs::read_to_string(util::workspace_root().join("docs/clients.md")).expect("the page");
    let fence = format!("```{info}\n");
    let (_, rest) = page.split_once(&fence).unwrap_or_else(|| panic!("no block {fence:?} in docs/clients.md"));
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// Whether `scripts/peers` has installed what begins with this name; else says that the test is skipped.
pub fn is_installed(name: &str) -> bool {
    let entries = std::fs::read_dir(util::workspace_root().join(".tools")).into_iter().flatten().flatten();
    let found = entries.into_iter().any(|entry| {
        // The stamp: the last thing that an installation writes.
        entry.path().is_file() && entry.file_name().to_string_lossy().starts_with(name)
    });
    if !found {
        util::skipped(format_args!("{name} is not in .tools; scripts/peers installs it"));
    }
    found
}

/// Whether all of these are there; else says that the test is skipped, and why.
pub fn has(wanted: &[&str]) -> bool {
    let path = path();
    let found = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing: Vec<_> = wanted.iter().filter(|name| !found(name)).collect();
    if !missing.is_empty() {
        util::skipped(format_args!("{missing:?} not here; scripts/peers gets them, some only as root on Debian"));
    }
    missing.is_empty()
}

/// Where programs are: what `scripts/peers` installed first, then where this test looks.
pub fn path() -> std::ffi::OsString {
    let tools = util::workspace_root().join(".tools");
    let ours = [
        "python/bin",
        "python-packages/bin",
        "codex/node_modules/.bin",
        "claude/node_modules/.bin",
        "verdaccio/node_modules/.bin",
        "debian/usr/sbin",
        "skopeo/usr/bin",
    ];
    let ours = ours.map(|dir| tools.join(dir));
    let given = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root looks.
    let dirs = ours.into_iter().chain(std::env::split_paths(&given)).chain(["/usr/sbin"].map(PathBuf::from));
    std::env::join_paths(dirs).expect("directories without a colon")
}

/// The program of this name.
pub fn program(name: &str) -> PathBuf {
    let path = path();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| Path::is_file(file));
    found.unwrap_or_else(|| panic!("{name} is not here"))
}
