//! A broker whose doors schemathesis can reach, and schemathesis.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use attache_broker::config::{Config, Overrides};
use attache_tests::{Attache, util};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, copy, sink};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;

use crate::{EXAMPLES, SEED};

/// How long one run may take, on a machine that does much else: alone it takes some seconds. The first
/// time until pip has installed it, too.
const MOST: Duration = Duration::from_secs(180);
const INSTALL: Duration = Duration::from_secs(300);

/// Workers are never waited for, and polls end, soon.
const CONFIG: &str = "state_dir: state
limits: {stale_after: 1s, callout_timeout: 500ms}
credentials:
  github:
    source: {file: github}
    inject: bearer
    destinations: [{host: api.a.test}]
    agent_env: {GITHUB_TOKEN: placeholder}
sessions:
  - {name: reviewer, credentials: [github]}
";

/// A broker.
pub struct Scene {
    dir: TempDir,
    broker: Attache,
    config: Config,
}

/// What schemathesis has found.
pub struct Said {
    pub code: Option<i32>,
    pub text: String,
}

impl Scene {
    /// Starts one with a credential and a session.
    pub async fn start() -> Self {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = util::temp_dir();
        let path = dir.path().join("attache.yaml");
        std::fs::write(&path, CONFIG).expect("the config");
        let config = Config::load(Some(&path), &Overrides::default(), &|_| None).expect("a good config");
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(&config.sources.file_dir).expect("a directory");
        let secret = config.sources.file_dir.join("github");
        std::fs::write(&secret, "a-real-secret").expect("the secret");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).expect("the secret");
        let broker = Attache::serve(&path, &[]).await;
        Self { dir, broker, config }
    }

    /// The document of a door, as it is checked in; and which names this broker knows, so that it is
    /// asked for more than strangers. What revokes goes without: one that is revoked is none.
    pub fn document(&self, door: &str) -> Value {
        let path = util::workspace_root().join(format!("docs/openapi-{door}.json"));
        let mut document: Value = serde_json::from_slice(&std::fs::read(path).expect("the document")).expect("JSON");
        if door == "control" {
            let create = &mut document["components"]["schemas"]["CreateSession"]["properties"];
            create["credentials"]["items"] = json!({"type": "string", "enum": ["github"]});
            // In a path the number 0 is the name "0", and who asks for it asks for that session.
            create["name"] = json!({"type": "string", "pattern": "^s-[a-z0-9]{1,20}$"});
            for (path, method, known) in [
                ("/v1/sessions/{name}", "get", "reviewer"),
                ("/v1/sessions/{name}/env", "get", "reviewer"),
                ("/v1/sessions/{name}/access-mode", "put", "reviewer"),
                ("/v1/credentials/{name}/reload", "post", "github"),
                ("/v1/credentials/{name}/rotate", "post", "github"),
            ] {
                let name = &mut document["paths"][path][method]["parameters"][0];
                assert_eq!(name["name"], "name", "{path}");
                name["schema"] = json!({"type": "string", "enum": [known]});
            }
        }
        // Protobuf, which schemathesis cannot write: Envoy does, in `audits/reconciles.rs`.
        document["paths"].as_object_mut().expect("paths").remove("/v1/access-log");
        document
    }

    /// Has a door asked by this document. `None`, with the reason on standard error, where
    /// schemathesis cannot be had.
    pub async fn ask(&self, door: &str, document: &Value, more: &[&str]) -> Option<Said> {
        let script = util::workspace_root().join("scripts/schemathesis");
        let installed = Command::new(&script).arg("--version").stdout(Stdio::null()).status();
        let installed = util::within(INSTALL, installed).await.expect("the script runs");
        if installed.code() == Some(77) {
            util::skipped("no schemathesis here: scripts/schemathesis --version says what is missing");
            return None;
        }
        let (socket, token) = match door {
            "control" => (self.config.state_dir.join("control.sock"), None),
            _ => (self.config.state_dir.join("data-plane.sock"), Some(self.config.state_dir.join("data-plane.token"))),
        };
        let written = self.dir.path().join("document.json");
        std::fs::write(&written, document.to_string()).expect("the document");
        let url = format!("http://{}", forward(&socket).await);
        let mut command = Command::new(&script);
        command.arg("run").arg(&written).args(["--url", &url, "--no-color", "--request-timeout", "30"]);
        command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED]);
        // How fast requests are thought of says how busy the machine is, and nothing of the broker.
        command.args(["--suppress-health-check", "too_slow"]);
        // A server may close a kept connection whenever it likes, just when the next question is sent.
        command.args(["--header", "Connection: close"]);
        if let Some(token) = token {
            let token = std::fs::read_to_string(token).expect("the token");
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        command.args(more).env("SCHEMATHESIS_DIR", self.dir.path()).stdin(Stdio::null()).kill_on_drop(true);
        let output = util::within(MOST, command.output()).await.expect("the script runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Some(Said { code: output.status.code(), text })
    }

    /// The broker lives, serves a good client, and has not failed anywhere.
    pub fn is_unharmed(&self) {
        assert!(self.broker.alive());
        let ready = self.broker.json(&["credential", "list"]);
        assert_eq!(ready[0]["name"], "github");
        let log = std::fs::read_to_string(self.broker.log_path()).expect("the log");
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    }
}

impl Said {
    /// Every operation of the document was asked for, and none did otherwise than it says.
    pub fn is_clean(&self, document: &Value) {
        let methods = document["paths"].as_object().expect("paths").values();
        let operations: usize = methods.map(|path| path.as_object().expect("methods").len()).sum();
        assert_eq!(self.code, Some(0), "{}", self.text);
        assert!(self.text.contains(&format!("Tested: {operations}\n")), "all {operations}: {}", self.text);
    }
}

/// schemathesis speaks TCP alone: a loopback port that leads to a UNIX socket.
async fn forward(socket: &Path) -> SocketAddr {
    let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
    let address = listener.local_addr().expect("a bound socket has an address");
    let socket: PathBuf = socket.to_owned();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                let Ok(unix) = UnixStream::connect(socket).await else { return };
                let ((mut asks, mut is_told), (mut answers, mut hears)) = (tcp.into_split(), unix.into_split());
                // Who is refused before all was said cannot go on saying it, and is told nevertheless.
                let asked = async {
                    let _ = copy(&mut asks, &mut hears).await;
                    let _ = hears.shutdown().await;
                    let _ = copy(&mut asks, &mut sink()).await;
                };
                let told = async {
                    let _ = copy(&mut answers, &mut is_told).await;
                    let _ = is_told.shutdown().await;
                };
                tokio::join!(asked, told);
            });
        }
    });
    address
}
