//! Everything the demo needs: an upstream that records, two secrets, a config, and `attache up`.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attache_core::Secret;
use attache_core::digest::fingerprint;
use attache_tests::oracle::Evidence;
use attache_tests::upstream::Asked;
use attache_tests::{Ca, Oracle, Reply, Secrets, Upstream, util};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::screen::{Failed, Screen};

/// The secrets, each in its own kind of source.
const GITHUB: &str = "ghp_TheRealTokenThatNoAgentEverSees0001";
const OPENAI: &str = "sk-TheRealKeyThatNoAgentEverSees000000000000000000002";
/// The hosts that the upstream plays.
const HOSTS: [&str; 4] = ["api.github.com", "uploads.github.com", "github.com", "api.openai.com"];
/// Variables of ours that are none of the secrets' and that the parts are found by.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "ATTACHE_ENVOY", "ATTACHE_FILTER"];

/// Compiling the filter on a busy machine takes a while.
const START: Duration = Duration::from_secs(60);
/// `attache up` ends Envoy within 5 s, and itself within 2 s more.
const END: Duration = Duration::from_secs(10);

/// The parts, and what they said.
pub struct Stage {
    /// Plays all hosts.
    pub upstream: Upstream,
    /// Watches every byte.
    pub oracle: Oracle,
    dir: TempDir,
    attache: Mutex<Option<Child>>,
    said: Arc<Mutex<String>>,
}

/// What `attache up` printed when it was ready.
pub struct Ready {
    json: Value,
}

impl Stage {
    /// Everything but Attaché itself.
    pub async fn build() -> Self {
        let (dir, ca) = (util::temp_dir(), Ca::new());
        let secrets = Secrets::new([("github", GITHUB), ("openai", OPENAI)]);
        let audit = dir.path().join("state/default/audit.jsonl");
        let upstream = Upstream::tls(&ca, &HOSTS).handler(answer).start().await;
        let oracle = Oracle::new(&secrets);
        oracle.audit(audit);
        let bound =
            HOSTS.map(|host| (if host == "api.openai.com" { "openai" } else { "github" }, format!("{host}:443")));
        let bound: Vec<_> = bound.iter().map(|(name, place)| (*name, place.as_str())).collect();
        oracle.upstream("the upstream", &upstream, &bound);
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).expect("a temporary directory is writable");
        write_config(dir.path(), &upstream);
        write_secret(&dir.path().join("state/default/secrets"));
        Self { upstream, oracle, dir, attache: Mutex::default(), said: Arc::default() }
    }

    /// Runs `attache up` as a newcomer would, and shows what it says until it is ready.
    pub async fn up(&self, screen: &Arc<Screen>) -> Result<Ready, Failed> {
        let mut command = self.command(&["up", "--json"]);
        // Its own group: Ctrl-C reaches the demo alone, which ends it in order.
        command.env("OPENAI_API_KEY", OPENAI).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| Failed::because(format!("attache does not start: {error}")))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        *self.attache() = Some(child);

        let (said, shown, home) = (Arc::clone(&self.said), Arc::clone(screen), self.dir.path().display().to_string());
        tokio::spawn(async move {
            let mut lines = BufReader::new(err.expect("piped")).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                shown.passes_by(&line.replace(&home, "…"));
                said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&(line + "\n"));
            }
        });
        let mut lines = BufReader::new(out.expect("piped")).lines();
        let first = tokio::time::timeout(START, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else {
            return Err(Failed::because("`attache up` ended, or was not ready within a minute"));
        };
        let json = serde_json::from_str(&line).map_err(|_| Failed::because(format!("not JSON: {line}")))?;
        self.introduce(&json);
        Ok(Ready { json })
    }

    /// Tells the oracle what the agent was given.
    fn introduce(&self, ready: &Value) {
        let evidence = Evidence::default();
        let given = ready["sessions"][0]["env"].as_object().into_iter().flatten();
        for (variable, value) in given.filter_map(|(variable, value)| Some((variable, value.as_str()?))) {
            evidence.add("agent", variable, value);
        }
        self.oracle.evidence(&evidence);
        for (credential, variable) in [("github", "GITHUB_TOKEN"), ("github", "GH_TOKEN"), ("openai", "OPENAI_API_KEY")]
        {
            self.oracle.exports(credential, variable);
        }
    }

    /// Runs one command of the operator; what it printed.
    pub async fn attache_cli(&self, args: &[&str]) -> Result<String, Failed> {
        let output = self.command(args).output().await;
        let output = output.map_err(|error| Failed::because(format!("attache does not start: {error}")))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(Failed::because(format!("attache {}: {out}{err}", args.join(" "))));
        }
        Ok(out.trim_end().to_owned())
    }

    /// The fingerprint of some bytes, as the broker would take it: an HMAC under the instance's key.
    pub fn fingerprint(&self, secret: &str) -> Result<String, Failed> {
        let key = std::fs::read(self.state().join("instance.key")).unwrap_or_default();
        let key = <[u8; 32]>::try_from(key).map_err(|_| Failed::because("instance.key is not a key"))?;
        Ok(fingerprint(&key, &Secret::new(secret)))
    }

    /// Everything that was logged.
    pub fn logs(&self) -> Vec<(&'static str, String)> {
        let read = |name: &str| std::fs::read_to_string(self.state().join(name)).unwrap_or_default();
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![
            ("attache up", said),
            ("Envoy", read("logs/envoy.log")),
            ("Envoy's access log", read("logs/envoy-access.jsonl")),
            ("the audit log", read("audit.jsonl")),
        ]
    }

    /// Ends `attache up`, which ends broker and Envoy.
    pub async fn end(&self) {
        let Some(mut child) = self.attache().take() else { return };
        if let Some(pid) = child.id() {
            let told = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
            let ended = told.is_ok() && tokio::time::timeout(END, child.wait()).await.is_ok();
            if !ended {
                child.kill().await.ok();
            }
        }
    }

    /// The instance's directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state/default")
    }

    /// Text without the temporary directory, which says nothing to anybody.
    pub fn shorten(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "…")
    }

    /// The binary, in an environment that holds nobody's secrets.
    fn command(&self, args: &[&str]) -> Command {
        let beside = std::env::current_exe().ok().map(|demo| demo.with_file_name("attache"));
        let binary = beside.filter(|binary| binary.is_file()).unwrap_or_else(util::broker_bin);
        let mut command = Command::new(binary);
        command.args(args).arg("--config").arg(self.dir.path().join("attache.yaml")).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn attache(&self) -> MutexGuard<'_, Option<Child>> {
        self.attache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    /// A variable that the session's agent is given.
    pub fn exported(&self, variable: &str) -> Result<String, Failed> {
        let value = self.json["sessions"][0]["env"][variable].as_str();
        value.map(str::to_owned).ok_or_else(|| Failed::because(format!("`attache up` exports no {variable}")))
    }

    /// Where the agent calls.
    pub fn proxy(&self) -> Result<String, Failed> {
        self.json["proxy"].as_str().map(str::to_owned).ok_or_else(|| Failed::because("`attache up` names no proxy"))
    }
}

/// A new issue is created; everything else is fine. Nothing is echoed.
fn answer(asked: &Asked) -> Reply {
    let json = |status| Reply::new(status).field("content-type", "application/json");
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/repos/attache/demo/issues") => json(201).body(r#"{"number":1}"#),
        ("POST", "/v1/chat/completions") => json(200).body(r#"{"choices":[{"message":{"content":"Hello."}}]}"#),
        _ => json(200).body(r#"{"login":"octocat"}"#),
    }
}

fn write_config(dir: &Path, upstream: &Upstream) {
    // Where Envoy dials in place of the real hosts; the names it verifies stay theirs.
    let dial = format!("{{address: '{}', ca_file: ca.pem}}", upstream.addr());
    let github = HOSTS.iter().filter(|host| host.ends_with("github.com"));
    let github: Vec<String> = github.map(|host| format!("{{host: {host}, upstream: {dial}}}")).collect();
    let yaml = format!(
        "state_dir: state
listen: {{proxy: '127.0.0.1:0'}}
credentials:
  github: {{preset: github, destinations: [{}]}}
  openai: {{preset: openai, destinations: [{{host: api.openai.com, upstream: {dial}}}]}}
sessions:
  - {{name: agent, credentials: [github, openai], access_mode: read-only}}
",
        github.join(", ")
    );
    std::fs::write(dir.join("attache.yaml"), yaml).expect("a temporary directory is writable");
}

fn write_secret(dir: &Path) {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).expect("directories can be made");
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o600).open(dir.join("github_token")).expect("a new file");
    std::io::Write::write_all(&mut file, GITHUB.as_bytes()).expect("a temporary directory is writable");
}
