//! The real broker: the `attache` binary as a process, and its command line.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::oracle::Evidence;
use crate::util;

/// How long the broker may take until its data plane answers.
const START: Duration = Duration::from_secs(15);

/// A running `attache serve`. Killed when dropped; its log is shown only by a failing test.
pub struct Attache {
    child: Mutex<Child>,
    config: PathBuf,
    env: Vec<(String, String)>,
    under: Vec<String>,
    log: PathBuf,
    evidence: Evidence,
}

impl Attache {
    /// Starts the broker and waits until it is ready.
    pub async fn serve(config: &Path, env: &[(&str, &str)]) -> Self {
        Self::serve_under(&[], config, env).await
    }

    /// The same, begun by another program (`strace …`) that becomes the broker: it keeps its process id.
    pub async fn serve_under(under: &[String], config: &Path, env: &[(&str, &str)]) -> Self {
        let log = config.with_file_name("broker.log");
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let child = Mutex::new(spawn(under, config, &env, &log));
        let evidence = Evidence::default();
        let broker = Self { child, config: config.to_owned(), env, under: under.to_vec(), log, evidence };
        broker.ready().await;
        broker
    }

    async fn ready(&self) {
        util::eventually(START, || {
            if !self.alive() {
                panic!("the broker ended:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
            }
            self.cli(&["session", "list", "--json"]).status.success()
        })
        .await;
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Whether the process lives.
    pub fn alive(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Where its log goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// kill -9, reaped.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it again on the same state.
    pub async fn restart(&self) {
        self.begin_again();
        self.ready().await;
    }

    /// The same, without waiting until it is ready.
    pub fn begin_again(&self) {
        self.kill();
        *self.child() = spawn(&self.under, &self.config, &self.env, &self.log);
    }

    /// Sends a signal by name (`STOP`, `CONT`, `TERM`).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Everything these commands have told about placeholders and sessions.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Runs `attache ARGS` against this broker's config.
    pub fn cli(&self, args: &[&str]) -> Output {
        let output = run(&self.config, args);
        if let (["session", "revoke", session, ..], true) = (args, output.status.success()) {
            self.evidence.ended(session);
        }
        output
    }

    /// Runs `attache ARGS --json`; panics unless it succeeds.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.cli(&[args, &["--json"]].concat());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "attache {args:?}: {}\n{out}{err}", output.status);
        let printed: Value =
            serde_json::from_str(&out).unwrap_or_else(|why| panic!("attache {args:?} printed no JSON ({why}):\n{out}"));
        if let (["session", "env", session, ..], Some(env)) = (args, printed.as_object()) {
            let exported = env.iter().filter_map(|(variable, value)| Some((variable, value.as_str()?)));
            exported.for_each(|(variable, value)| self.evidence.add(session, variable, value));
        }
        printed
    }

    /// What `attache session env` exports under this name.
    pub fn exported(&self, session: &str, variable: &str) -> String {
        let env = self.json(&["session", "env", session]);
        env[variable].as_str().unwrap_or_else(|| panic!("{variable} is not in {env:#}")).to_owned()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attache {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the broker's log\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Runs `attache ARGS --config CONFIG`.
pub fn run(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(util::broker_bin());
    command.args(args).arg("--config").arg(config).stdin(Stdio::null());
    command.output().expect("the attache binary runs")
}

fn spawn(under: &[String], config: &Path, env: &[(String, String)], log: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("the broker's log");
    let broker = util::broker_bin();
    let mut words = under.iter().map(std::ffi::OsStr::new).chain([broker.as_os_str()]);
    let mut command = Command::new(words.next().expect("the broker at least"));
    command.args(words).arg("serve").arg("--config").arg(config).envs(env.iter().cloned());
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
    command.spawn().unwrap_or_else(|why| panic!("{:?} does not start: {why}", command.get_program()))
}
