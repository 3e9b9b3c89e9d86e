//! A real PostgreSQL, as Debian ships it, on a port of its own.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use attache_tests::util;
use tempfile::TempDir;

/// A running server. Ends when dropped.
pub struct Postgres {
    child: Child,
    dir: TempDir,
    pub addr: SocketAddr,
    pub user: &'static str,
    pub password: &'static str,
}

/// Debian keeps them where only its own wrappers look.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").is_file())
}

impl Postgres {
    /// Starts one; `None`: there is none to be had, which is told.
    pub async fn start() -> Option<Self> {
        let Some(bin) = programs() else {
            util::skipped("no PostgreSQL here (Debian's postgresql): leases of a database are not tested");
            return None;
        };
        let (dir, addr) = (util::temp_dir(), SocketAddr::from(([127, 0, 0, 1], util::free_port())));
        let (user, password) = ("keeper", "the-password-of-the-keeper");
        // It refuses to be root; nobody is somebody on every machine.
        let root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
        let as_nobody = |command: &mut Command| {
            if root {
                command.uid(65_534).gid(65_534);
            }
        };
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("its directory");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("its directory");
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).expect("its directory");
        std::fs::write(dir.path().join("password"), password).expect("its password");
        if root {
            chown(&data, Some(65_534), Some(65_534)).expect("its directory");
        }
        let mut made = Command::new(bin.join("initdb"));
        made.args(["--username", user, "--auth=scram-sha-256", "--no-sync", "--pwfile"])
            .arg(dir.path().join("password"));
        made.arg("--pgdata").arg(&data).current_dir(dir.path()).stdin(Stdio::null());
        as_nobody(&mut made);
        let made = made.output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new(bin.join("postgres"));
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-F", "-k", ""]);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        as_nobody(&mut command);
        let postgres = Self { child: command.spawn().expect("it starts"), dir, addr, user, password };
        util::eventually(Duration::from_secs(60), || {
            let log = std::fs::read_to_string(postgres.dir.path().join("log")).unwrap_or_default();
            log.contains("ready to accept connections")
        })
        .await;
        Some(postgres)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGTERM alone would wait for whoever is connected.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!(
                "--- PostgreSQL's log\n{}",
                std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
        }
    }
}
