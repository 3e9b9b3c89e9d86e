//! `attache run`: what a child finds, how it ends and what ends with it, and what it does not get to.

#[path = "runs/ends.rs"]
mod ends;
#[path = "runs/isolates.rs"]
mod isolates;
#[path = "runs/nobody.rs"]
mod nobody;
#[path = "runs/stops.rs"]
mod stops;
#[path = "runs/terminals.rs"]
mod terminals;
#[path = "runs/wears.rs"]
mod wears;
#[path = "runs/withstands.rs"]
mod withstands;

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use attache_tests::stack::SOON;
use attache_tests::{Attache, Stack, util};

/// In a cell, in a session that is there.
const ALWAYS: [&str; 4] = ["--session", "writer", "--isolate", "always"];

/// `attache run FLAGS -- sh -c SCRIPT`, in an environment that holds nothing of ours.
fn run(stack: &Stack<Attache>, flags: &[&str], script: &str) -> Command {
    run_as(stack, stack.proxy, &[], flags, script)
}

/// The same, begun by another program that becomes it.
fn run_under(stack: &Stack<Attache>, under: &[&str], flags: &[&str], script: &str) -> Command {
    run_as(stack, stack.proxy, under, flags, script)
}

/// The same, with a proxy at another address.
fn run_as(stack: &Stack<Attache>, proxy: SocketAddr, under: &[&str], flags: &[&str], script: &str) -> Command {
    let attache = util::broker_bin();
    let mut words = under.iter().map(std::ffi::OsStr::new).chain([attache.as_os_str()]);
    let mut command = Command::new(words.next().expect("attache at least"));
    command.args(words).args(["run", "--proxy", &proxy.to_string()]).args(flags).args(["--", "sh", "-c", script]);
    command.env_clear().env("ATTACHE_CONFIG", stack.site.config_path()).stdin(Stdio::null());
    command.envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

fn output(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

/// A child that runs; its output goes to a file.
struct Running {
    child: Child,
    out: std::path::PathBuf,
}

impl Running {
    fn start(stack: &Stack<Attache>, mut command: Command) -> Self {
        let out = stack.dir().join("child.out");
        command.stdout(std::fs::File::create(&out).expect("a file"));
        Self { child: command.spawn().expect("it starts"), out }
    }

    async fn says(&self, word: &str) {
        util::eventually(SOON, || self.said().contains(word)).await;
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        util::eventually_some(SOON, || child.try_wait().expect("a child can be waited for")).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
}

/// The state of the one session that `attache run` made.
fn made(stack: &Stack<Attache>) -> Option<String> {
    let all = stack.broker.json(&["session", "list", "--all"]);
    let of_run = |one: &&serde_json::Value| one["name"].as_str().is_some_and(|name| name.starts_with("run-"));
    let found = all.as_array().expect("a list").iter().find(of_run)?;
    Some(found["state"].as_str().expect("a state").to_owned())
}

/// How a child may be isolated here; where it cannot be, that is said.
fn ways() -> Vec<&'static str> {
    if has_cells() { vec!["never", "always"] } else { vec!["never"] }
}

/// Whether this kernel gives the namespaces; where it does not, that is said.
fn has_cells() -> bool {
    let made = Command::new("unshare").args(["-Urmpnf", "--mount-proc", "true"]).status();
    let gives = made.is_ok_and(|status| status.success());
    if !gives {
        util::skipped(
            "`attache run --isolate always`: `unshare -Urmpnf --mount-proc true` fails here; it needs user namespaces \
             (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns) and, in a container, a /proc \
             that is all visible (docker run --security-opt systempaths=unconfined)",
        );
    }
    gives
}
