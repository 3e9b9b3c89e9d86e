//! Other users of the machine, and other processes of the same user.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use attache_tests::stack::{Plan, SOON};
use attache_tests::util;

/// The uid and gid of `nobody`.
const NOBODY: &str = "65534";
const SECRET: &str = "a-real-secret-in-the-environment";

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("proc").uid() == 0
}

/// A command run as `nobody`.
pub fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program);
    command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// What `nobody` can read of a file; `None`: nothing.
fn read_by_nobody(path: &Path) -> Option<Vec<u8>> {
    let output = as_nobody("cat").arg(path).output().expect("setpriv and cat run");
    output.status.success().then_some(output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "becoming another user needs root: `make test` as root runs it"]
async fn another_user_reads_nothing_and_operates_nothing() {
    assert!(is_root(), "becoming another user needs root");
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    // Only the state directory itself may stand in the way.
    set_permissions(stack.dir(), Permissions::from_mode(0o755)).expect("ours");
    set_permissions(stack.site.config_path(), Permissions::from_mode(0o644)).expect("ours");
    assert!(read_by_nobody(&stack.site.config_path()).is_some(), "the probe can read what it may");

    let state = stack.dir().join("state/default");
    let mut files: Vec<PathBuf> = entries(&state);
    files.extend(entries(&state.join("secrets")));
    assert!(files.len() > 6, "{files:?}");
    for file in files {
        assert_eq!(read_by_nobody(&file), None, "{}", file.display());
    }
    let pid = stack.broker.pid();
    for file in ["environ", "mem", "maps", "auxv", "stack"] {
        assert_eq!(read_by_nobody(Path::new(&format!("/proc/{pid}/{file}"))), None, "{file}");
    }
    let descriptors = as_nobody("ls").arg(format!("/proc/{pid}/fd")).output().expect("ls runs");
    assert!(!descriptors.status.success() && descriptors.stdout.is_empty(), "{descriptors:?}");

    // The command line, as the other user: first as it is, then with the way to the socket opened.
    let attache = stack.dir().join("attache");
    std::fs::copy(util::broker_bin(), &attache).expect("a copy that anybody may run");
    let list = || {
        let mut command = as_nobody(&attache);
        command.args(["session", "list", "--config"]).arg(stack.site.config_path());
        command.output().expect("attache runs")
    };
    for opened in [&[][..], &["state", "state/default"]] {
        for dir in opened {
            set_permissions(stack.dir().join(dir), Permissions::from_mode(0o755)).expect("ours");
        }
        let refused = list();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("Permission denied"), "{text}");
    }
    // Even the socket's own permissions are not all that keeps others out.
    set_permissions(state.join("control.sock"), Permissions::from_mode(0o666)).expect("ours");
    let turned_away = list();
    assert_eq!(turned_away.status.code(), Some(1), "{}", String::from_utf8_lossy(&turned_away.stdout));
    assert!(turned_away.stdout.is_empty());
    for dir in ["state", "state/default"] {
        set_permissions(stack.dir().join(dir), Permissions::from_mode(0o700)).expect("ours");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_the_same_user_cannot_look_inside() {
    let dir = util::temp_dir();
    let home = dir.path();
    set_permissions(home, Permissions::from_mode(0o777)).expect("ours");
    let config = home.join("attache.yaml");
    let yaml = "state_dir: state\ncredentials:\n  a: {source: {env: A_KEY}, \
                inject: bearer, destinations: [{host: a.test}]}\n";
    std::fs::write(&config, yaml).expect("a config");
    let attache = home.join("attache");
    std::fs::copy(util::broker_bin(), &attache).expect("a copy that anybody may run");

    // As root nothing in /proc is closed: then both are `nobody`, else both are us.
    let command = |program: &Path| if is_root() { as_nobody(program) } else { Command::new(program) };
    let cat = |pid: u32, file: &str| {
        let output = command(Path::new("cat")).arg(format!("/proc/{pid}/{file}")).output().expect("cat runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let sleeper = Killed(command(Path::new("sleep")).arg("60").env("A_KEY", SECRET).spawn().expect("sleep runs"));
    util::eventually(SOON, || cat(sleeper.0.id(), "environ").1.contains(SECRET)).await;

    let log = std::fs::File::create(home.join("log")).expect("a log");
    let mut serve = command(&attache);
    serve.args(["serve", "--config"]).arg(&config).env("A_KEY", SECRET).stderr(log);
    let broker = Killed(serve.spawn().expect("attache runs"));
    util::eventually(SOON, || home.join("state/default/runtime.json").exists()).await;
    for file in ["environ", "mem", "maps", "auxv"] {
        let (opened, text) = cat(broker.0.id(), file);
        assert!(!opened && text.is_empty(), "{file}: {text}");
    }
    let debugger = command(Path::new("ls")).arg(format!("/proc/{}/fd", broker.0.id())).output().expect("ls runs");
    assert!(!debugger.status.success() && debugger.stdout.is_empty());
    let log = std::fs::read_to_string(home.join("log")).expect("a log");
    assert!(log.contains("serving") && !log.contains(SECRET), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "becoming another user needs root: `make test` as root runs it"]
async fn a_broker_of_another_user_is_not_believed_whatever_its_path() {
    assert!(is_root(), "becoming another user needs root");
    let dir = util::temp_dir();
    let home = dir.path();
    set_permissions(home, Permissions::from_mode(0o777)).expect("ours");
    let config = home.join("attache.yaml");
    std::fs::write(&config, "state_dir: state\n").expect("a config");
    let attache = home.join("attache");
    std::fs::copy(util::broker_bin(), &attache).expect("a copy that anybody may run");
    let log = std::fs::File::create(home.join("log")).expect("a log");
    let serve = as_nobody(&attache).args(["serve", "--config"]).arg(&config).stderr(log).spawn();
    let _broker = Killed(serve.expect("attache runs"));
    let socket = home.join("state/default/control.sock");
    util::eventually(SOON, || home.join("state/default/runtime.json").exists()).await;

    let list = |way: &[&str]| {
        let mut command = Command::new(&attache);
        command.args(["session", "list"]).args(way).env_remove("ATTACHE_RUNTIME_URL");
        let output = command.output().expect("attache runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = list(&["--runtime", &format!("unix:{}", socket.display())]);
    let said = format!("user {NOBODY} listens at {}, which is neither you (0) nor root", socket.display());
    assert!(code == Some(1) && text.contains(&said), "{text}");
    let (code, text) = list(&["--config", &config.display().to_string()]);
    assert!(code == Some(0) && text.starts_with("NAME"), "root operates whom its config names: {text}");
}

/// A child, killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).expect("a directory");
    listed.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect()
}
