//! `attache up` as a process that never outlives its test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use attache_tests::util;
use serde_json::Value;

/// Compiling the filter on a busy machine takes a while.
const START: Duration = Duration::from_secs(30);
/// It gives Envoy 5 s to end, and its own open calls 2 s.
const END: Duration = Duration::from_secs(10);
/// What the parts are found by; nothing else of our environment is handed on.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "ATTACHE_ENVOY", "ATTACHE_FILTER"];

/// A running, or ended, `attache up`.
pub struct Up {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

/// `attache` in an environment that holds nobody's secrets.
pub fn attache(args: &[&str], config: &Path) -> Command {
    let mut command = Command::new(util::broker_bin());
    command.args(args).arg("--config").arg(config).env_clear().stdin(Stdio::null());
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

impl Up {
    /// Starts it on a config, with these variables.
    pub fn start(config: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (out, err) = (config.with_file_name("up.out"), config.with_file_name("up.err"));
        let file = |path| std::fs::File::create(path).expect("a file");
        let mut command = attache(&[&["up"], args].concat(), config);
        command.envs(env.iter().copied()).stdout(file(&out)).stderr(file(&err));
        Self { child: command.spawn().expect("attache runs"), out, err }
    }

    /// What it prints with `--json` when it is ready.
    pub async fn ready(&mut self) -> Value {
        let end = Instant::now() + START;
        loop {
            if let Some(line) = self.said().lines().next().and_then(|line| serde_json::from_str(line).ok()) {
                return line;
            }
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none() && Instant::now() < end, "`attache up` is not ready: {ended:?}\n{}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        util::eventually_some(END, || child.try_wait().expect("a child can be waited for")).await
    }

    /// Its standard output.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Its standard error.
    pub fn told(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Killed, it takes Envoy with it by the kernel's hand.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- attache up\n{}", self.told());
        }
    }
}
