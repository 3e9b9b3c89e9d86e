//! A Docker engine of our own: in namespaces of its own, with a directory of its own, for as long as this lives.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use attache_tests::util;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::images;

/// No call takes so long, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the machine's own service listens that no agent may reach.
pub const HOST_PORT: u16 = 9999;

/// What has to be on `PATH`.
const PROGRAMS: [&str; 10] =
    ["dockerd", "containerd", "runc", "docker", "docker-init", "iptables", "ip", "unshare", "nsenter", "setpriv"];

/// One that runs.
pub struct Engine {
    dir: TempDir,
    outside: Outside,
    /// Its child: the first process in there.
    inside: u32,
    cgroup: String,
}

/// `unshare`, whose end ends all.
struct Outside(Child);

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

/// The engine of all tests of this process, started by the first; `None`: there can be none here, which was said.
pub async fn shared() -> Option<Arc<Engine>> {
    static SHARED: Mutex<Weak<Engine>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(engine) = shared.upgrade() {
        return Some(engine);
    }
    if let Some(missing) = missing() {
        util::skipped(format_args!("containers: {missing}"));
        return None;
    }
    let engine = match Engine::start().await {
        Ok(engine) => Arc::new(engine),
        Err(why) => {
            util::skipped(format_args!("containers: no Docker engine can be started here: {why}"));
            return None;
        }
    };
    images::build(&engine).await;
    *shared = Arc::downgrade(&engine);
    Some(engine)
}

/// What an engine would need and is not here.
fn missing() -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(true, |us| us.uid() != 0) {
        return Some("it takes root to start a Docker engine".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let absent: Vec<_> = PROGRAMS.into_iter().filter(|name| !found(name)).collect();
    if !absent.is_empty() {
        return Some(format!("{absent:?} not here; scripts/compose gets them as root on Debian"));
    }
    (!compose().is_file()).then(|| "docker compose is not in .tools; scripts/compose gets it".to_owned())
}

fn compose() -> PathBuf {
    util::workspace_root().join(".tools/compose/bin/docker-compose")
}

impl Engine {
    async fn start() -> Result<Self, String> {
        let dir = util::temp_dir();
        let resolv = "nameserver 127.0.0.53\n";
        std::fs::write(dir.path().join("resolv.conf"), resolv).map_err(|error| error.to_string())?;
        let cgroup = format!("attache-compose-{}", std::process::id());
        // The machine, as containers see it: its own loopback, its service, its DNS server.
        let script = format!(
            "set -e\n\
             ip link set lo up\n\
             mount --bind \"$DIR/resolv.conf\" \"$(readlink -f /etc/resolv.conf)\"\n\
             \"$STAND_IN\" host {HOST_PORT} >\"$DIR/host.log\" 2>&1 &\n\
             exec docker-init -- dockerd --data-root \"$DIR/data\" --exec-root \"$DIR/exec\" \
             --host \"unix://$DIR/docker.sock\" --pidfile \"$DIR/docker.pid\" --cgroup-parent /{cgroup}"
        );
        let mut command = std::process::Command::new("setpriv");
        // Where this process is killed, so is the engine, and with it whatever it runs.
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--ipc", "--fork"]);
        command.args(["--kill-child=KILL", "--mount-proc", "--propagation", "private", "sh", "-c", &script]);
        command.env("DIR", dir.path()).env("STAND_IN", stand_in()).stdin(Stdio::null()).stdout(Stdio::null());
        let log = dir.path().join("docker.log");
        command.stderr(std::fs::File::create(&log).map_err(|error| error.to_string())?);
        let mut outside = Outside(spawn_for_good(command).map_err(|error| error.to_string())?);
        let pid = outside.0.id();
        let children = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
        let socket = dir.path().join("docker.sock");
        let mut inside = None;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Ok(Some(status)) = outside.0.try_wait() {
                return Err(format!("{status}: {}", last_lines(&log)));
            }
            inside = std::fs::read_to_string(&children).ok().and_then(|all| all.trim().parse().ok());
            if let Some(inside) = inside.filter(|_| socket.exists()) {
                let engine = Self { dir, outside, inside, cgroup };
                let version = engine.docker(&["version"]).await;
                return if version.status.success() { Ok(engine) } else { Err(version.err) };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("it is not ready after {PATIENCE:?} (process {inside:?}): {}", last_lines(&log)))
    }

    /// A directory that goes with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What has reached the machine itself.
    pub fn host_log(&self) -> String {
        std::fs::read_to_string(self.dir().join("host.log")).unwrap_or_default()
    }

    pub async fn docker(&self, arguments: &[&str]) -> Said {
        self.run(Path::new("docker"), arguments, &[]).await
    }

    pub async fn compose(&self, arguments: &[&str], env: &[(&str, &str)]) -> Said {
        self.run(&compose(), arguments, env).await
    }

    /// Runs a program that asks this engine. It finds nobody's settings, and no other engine.
    pub async fn run(&self, program: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Said {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(util::workspace_root()).stdin(Stdio::null()).kill_on_drop(true).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir()).env("DOCKER_CONFIG", self.dir().join("client"));
        command.env("DOCKER_HOST", format!("unix://{}", self.dir().join("docker.sock").display()));
        // The builder that is part of every engine: no plugin is taken for granted.
        command.env("DOCKER_BUILDKIT", "0").envs(env.iter().copied());
        let output = util::within(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { status: output.status, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Kills a process by its number in there, as the engine tells it.
    pub async fn kill(&self, pid: &str) {
        let target = self.inside.to_string();
        let inside = ["--target", &target, "--pid", "--mount", "kill", "-KILL", pid];
        let said = self.run(Path::new("nsenter"), &inside, &[]).await;
        assert!(said.status.success(), "{said:?}");
    }
}

impl Outside {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a program from a thread that lives as long as this process: a signal for a parent's death comes when the
/// thread that started it ends, and those of a test's runtime do.
fn spawn_for_good(mut command: std::process::Command) -> std::io::Result<Child> {
    let (started, child) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = started.send(command.spawn());
        loop {
            std::thread::park();
        }
    });
    child.recv().unwrap_or_else(|gone| Err(std::io::Error::other(gone)))
}

impl Drop for Engine {
    /// With the first process in there all others end, and with the last of them the network and the mounts.
    fn drop(&mut self) {
        self.outside.end();
        let dir = self.dir.path().to_string_lossy().into_owned();
        let deadline = std::time::Instant::now() + PATIENCE;
        // A group can be removed once its last process is gone, containers' included.
        while !(of_engine(&dir).is_empty() && remove_cgroups(&self.cgroup)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if !std::thread::panicking() {
            let left = of_engine(&dir);
            assert!(left.is_empty() && remove_cgroups(&self.cgroup), "the engine has left processes: {left:?}");
            assert!(!mounts.contains(&dir), "the engine has left mounts: {mounts}");
        }
    }
}

/// Processes that name its directory.
fn of_engine(dir: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).filter(|line| line.contains(dir)).collect()
}

/// Removes the engine's groups, of each hierarchy there is, the deepest first; whether none is left.
fn remove_cgroups(name: &str) -> bool {
    fn remove(dir: &Path) -> bool {
        let inner = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        inner.filter(|path| path.is_dir()).for_each(|path| {
            remove(&path);
        });
        let _ = std::fs::remove_dir(dir);
        !dir.exists()
    }
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join(name));
    // Each is tried, whatever became of the one before.
    hierarchies.chain([root.join(name)]).filter(|dir| !remove(dir)).count() == 0
}

/// The program that stands around containers.
pub fn stand_in() -> &'static str {
    env!("CARGO_BIN_EXE_stand_in")
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
