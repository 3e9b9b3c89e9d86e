//! A git server: nginx that asks for the real secret, and git's own `git http-backend` behind it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use attache_tests::util;
use tempfile::TempDir;

use crate::scene::program;

const START: Duration = Duration::from_secs(15);

/// A running server with one repository, `o/r.git`. Ends when dropped.
pub struct Forge {
    dir: TempDir,
    pub addr: SocketAddr,
    children: Vec<Child>,
}

impl Forge {
    /// Starts one that lets in whoever shows this password as `x-access-token`. Locations are nginx's,
    /// beside git's own.
    pub async fn start(password: &str, locations: &str) -> Self {
        let dir = util::temp_dir();
        let addr = SocketAddr::from(([127, 0, 0, 1], util::free_port()));
        let at = dir.path();
        std::fs::write(at.join("users"), format!("x-access-token:{{PLAIN}}{password}\n")).expect("the users");
        std::fs::write(at.join("nginx.conf"), config(at, addr, locations)).expect("the config");
        seed(at);
        let mut forge = Self { addr, children: Vec::new(), dir };
        let at = forge.dir.path();
        let mut wrap = Command::new(program("fcgiwrap"));
        // One alone forks no workers, which would outlive it.
        wrap.args(["-c", "1", "-s"]).arg(format!("unix:{}", at.join("cgi.sock").display()));
        // Of the one that `scripts/peers` has unpacked.
        wrap.env("LD_LIBRARY_PATH", libraries());
        let mut nginx = Command::new(program("nginx"));
        nginx.arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf")).args(["-e", "error.log"]);
        for command in [&mut wrap, &mut nginx] {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            forge.children.push(command.spawn().expect("it starts"));
        }
        util::eventually(START, || std::net::TcpStream::connect(addr).is_ok()).await;
        forge
    }

    /// The commit at the tip of a branch.
    pub fn tip(&self, branch: &str) -> Option<String> {
        let asked = git(&self.dir.path().join("repos/o/r.git"), &["rev-parse", "--verify", "-q", branch]);
        asked.map(|commit| commit.trim().to_owned())
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("error.log"));
            eprintln!("--- nginx's error log\n{}", log.unwrap_or_default());
        }
    }
}

fn config(dir: &Path, addr: SocketAddr, locations: &str) -> String {
    let backend = git(dir, &["--exec-path"]).map(|path| PathBuf::from(path.trim()).join("git-http-backend"));
    let (dir, backend) = (dir.display(), backend.expect("git says where its programs are").display().to_string());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.map(|kind| format!("{kind}_temp_path {dir}/{kind};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}\
         server {{\nlisten {addr};\nclient_max_body_size 0;\n\
         auth_basic git;\nauth_basic_user_file {dir}/users;\n{locations}\n\
         location / {{\nfastcgi_pass unix:{dir}/cgi.sock;\n\
         fastcgi_param SCRIPT_FILENAME {backend};\nfastcgi_param GIT_PROJECT_ROOT {dir}/repos;\n\
         fastcgi_param GIT_HTTP_EXPORT_ALL '';\nfastcgi_param HOME {dir};\nfastcgi_param PATH_INFO $uri;\n\
         fastcgi_param QUERY_STRING $query_string;\nfastcgi_param REQUEST_METHOD $request_method;\n\
         fastcgi_param CONTENT_TYPE $content_type;\nfastcgi_param CONTENT_LENGTH $content_length;\n\
         fastcgi_param REMOTE_USER $remote_user;\n}}\n}}\n}}\n"
    )
}

/// A bare repository with three commits on `main`.
fn seed(dir: &Path) {
    let (work, bare) = (dir.join("work"), dir.join("repos/o/r.git"));
    std::fs::create_dir_all(&bare).expect("a directory");
    std::fs::create_dir_all(&work).expect("a directory");
    let run = |at: &Path, args: &[&str]| git(at, args).unwrap_or_else(|| panic!("git {args:?}"));
    run(&bare, &["init", "-q", "--bare", "-b", "main"]);
    run(&work, &["init", "-q", "-b", "main"]);
    for name in ["one", "two", "three"] {
        std::fs::write(work.join(name), name).expect("a file");
        run(&work, &["add", "."]);
        run(&work, &["commit", "-q", "-m", name]);
    }
    run(&work, &["push", "-q", &bare.display().to_string(), "main"]);
}

/// Directories of unpacked libraries; there are none where the server was installed.
fn libraries() -> std::ffi::OsString {
    let lib = util::workspace_root().join(".tools/debian/usr/lib");
    let dirs = std::fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
    std::env::join_paths(dirs).expect("directories without a colon")
}

/// What git prints, where it succeeds.
fn git(at: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program("git"));
    command.current_dir(at).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
    let output = command.env("HOME", at).env("GIT_CONFIG_NOSYSTEM", "1").output().expect("git runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
