//! A package registry: verdaccio, without an uplink, which lets in nobody without its own token.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use attache_tests::{Agent, util};
use tempfile::TempDir;

use crate::scene::program;

const START: Duration = Duration::from_secs(60);

/// A running registry. Ends when dropped.
pub struct Registry {
    child: Child,
    dir: TempDir,
    pub addr: SocketAddr,
    /// What its one user's requests must carry.
    pub token: String,
}

impl Registry {
    /// Starts one that writes this address into what it says of packages, where one is given.
    pub async fn start(public: Option<&str>) -> Self {
        let (dir, addr) = (util::temp_dir(), SocketAddr::from(([127, 0, 0, 1], util::free_port())));
        let at = dir.path().display();
        let config = format!(
            "storage: {at}/storage\nauth: {{htpasswd: {{file: {at}/users}}}}\nuplinks: {{}}\nweb: {{enable: false}}\n\
             packages: {{'**': {{access: $authenticated, publish: $authenticated}}}}\n\
             middlewares: {{audit: {{enabled: false}}}}\nlog: {{type: file, path: {at}/log, level: info}}\n"
        );
        std::fs::write(dir.path().join("config.yaml"), config).expect("the config");
        let mut command = Command::new(program("verdaccio"));
        command.arg("--listen").arg(addr.to_string()).arg("--config").arg(dir.path().join("config.yaml"));
        command.envs(public.map(|url| ("VERDACCIO_PUBLIC_URL", url)));
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut registry = Self { child: command.spawn().expect("it starts"), dir, addr, token: String::new() };
        util::eventually(START, || std::net::TcpStream::connect(addr).is_ok()).await;
        registry.token = registry.sign_up().await;
        registry
    }

    async fn sign_up(&self) -> String {
        let (host, json) = (self.addr.to_string(), [("content-type", "application/json")]);
        let body = br#"{"name": "agent", "password": "a-password-of-verdaccio"}"#;
        let path = "/-/user/org.couchdb.user:agent";
        let answer = Agent::new().request(self.addr, "PUT", &host, path, &json, body).await;
        answer.json()["token"].as_str().unwrap_or_else(|| panic!("no token: {}", answer.text())).to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- verdaccio's log\n{log}");
        }
    }
}
