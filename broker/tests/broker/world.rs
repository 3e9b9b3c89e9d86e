//! A broker of one's own: a fresh state directory, port 0, and clients for both doors.

use attache_broker::Running;
use attache_broker::config::{Config, Overrides};
use attache_broker::sources::Environment;
use attache_core::digest::Digest;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// What must never be seen outside an answer to a grant.
pub const SECRET: &str = "ghp_realSecretOfTheGithubCredential0000";
pub const OTHER_SECRET: &str = "other-real-secret";
pub const WORKER: &str = "0123abcd";
pub const NONCE: &str = "00112233445566778899aabbccddeeff";

const CONFIG: &str = r#"
state_dir: state
listen: {proxy: "127.0.0.1:3030", data_plane: "127.0.0.1:0"}
credentials:
  github:
    source: {file: github}
    inject: bearer
    destinations: [{host: api.a.test}, {host: both.test}]
    placeholder: {prefix: ghp_, length: 40}
    agent_env: {GITHUB_TOKEN: placeholder, GITHUB_API_URL: {gateway: {host: api.a.test, path: /v3}}}
  other:
    source: {file: other}
    inject: {query: key}
    destinations: [{host: b.test, port: 8443}, {host: both.test}]
    agent_env: {TEST_OTHER: placeholder}
sessions:
  - {name: reviewer, credentials: [github], access_mode: read-write}
"#;

/// One instance, running or not.
pub struct World {
    pub temp: tempfile::TempDir,
    pub config: Config,
    running: Option<Running>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }
}

impl World {
    /// A running broker with two credentials and one session.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, with another config.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::stopped();
        change(&mut world.config);
        world.start().await;
        world
    }

    /// A config and its secrets, and nobody who serves it.
    pub fn stopped() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("attache.yaml");
        std::fs::write(&file, CONFIG).unwrap();
        let config = Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let world = Self { temp, config, running: None };
        for dir in [&world.config.state_dir, &world.config.sources.file_dir] {
            std::fs::create_dir_all(dir).unwrap();
            set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
        }
        world.write_secret("github", SECRET);
        world.write_secret("other", OTHER_SECRET);
        world
    }

    pub async fn start(&mut self) {
        let running = attache_broker::start(self.config.clone(), &Environment::default()).await;
        self.running = Some(running.unwrap_or_else(|error| panic!("{error}")));
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().shutdown(attache_broker::Workers::MayLive).await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn secret_path(&self, name: &str) -> PathBuf {
        self.config.sources.file_dir.join(name)
    }

    pub fn write_secret(&self, name: &str, content: &str) {
        let path = self.secret_path(name);
        std::fs::write(&path, content).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Until grants no longer go by what a look before this has found.
    pub async fn until_a_look_is_due(&self) {
        tokio::time::sleep(attache_broker::leases::FRESH + Duration::from_millis(1)).await;
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.config.state_dir.join("data-plane.token")).unwrap()
    }

    /// All records of the audit log.
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.config.audit.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Replaces the audit log by something that cannot be written.
    pub fn break_audit(&self) {
        std::fs::rename(&self.config.audit.path, self.temp.path().join("aside")).unwrap();
        std::fs::create_dir(&self.config.audit.path).unwrap();
        // The file that is still open must not look whole.
        std::fs::remove_file(self.temp.path().join("aside")).unwrap();
    }

    pub fn mend_audit(&self) {
        std::fs::remove_dir(&self.config.audit.path).unwrap();
    }

    /// The address of the filters' door.
    pub fn data_plane(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().data_plane_address.unwrap()
    }

    /// Calls the filters' door without adding anything.
    pub async fn knock(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send(TcpStream::connect(self.data_plane()).await.unwrap(), method, path, headers, body).await
    }

    /// Calls the filters' door with its token.
    pub async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_as(&self.token(), method, path, body).await
    }

    /// The same, with a token that was read before.
    pub async fn ask_as(&self, token: &str, method: &str, path: &str, body: &[u8]) -> Answer {
        self.knock(method, path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    /// Calls the operator's door.
    pub async fn operate(&self, method: &str, path: &str, body: Value) -> Answer {
        let stream = UnixStream::connect(&self.config.listen.control).await.unwrap();
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        send(stream, method, path, &[], &body).await
    }

    /// What a session's agent would find in its environment.
    pub async fn env(&self, session: &str, variable: &str) -> String {
        let answer = self.operate("GET", &format!("/v1/sessions/{session}/env"), Value::Null).await.json();
        let found = answer.as_array().unwrap().iter().find(|v| v["name"] == variable);
        found.unwrap_or_else(|| panic!("{variable} is not in {answer}"))["value"].as_str().unwrap().to_owned()
    }

    /// Asks for a grant, showing these texts.
    pub async fn grant(&self, destination: &str, placeholder: Option<&str>, token: Option<&str>) -> Value {
        let digest = |text: Option<&str>| text.map(|text| Digest::of(text.as_bytes()).to_hex());
        let mut evidence = json!({"placeholder": digest(placeholder), "session_token": digest(token)});
        evidence.as_object_mut().unwrap().retain(|_, digest| !digest.is_null());
        let body = json!({"nonce": NONCE, "worker": WORKER, "destination": destination, "evidence": evidence});
        let answer = self.ask("POST", "/v1/grants", body.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let json = answer.json();
        assert_eq!(json["nonce"], NONCE);
        json
    }

    /// Asks for a way to a host, showing this session token.
    pub async fn way(&self, host: &str, port: u16, token: &str) -> Value {
        let evidence = json!({"session_token": Digest::of(token.as_bytes()).to_hex()});
        self.way_by(json!({"host": host, "port": port, "evidence": evidence})).await
    }

    /// Asks for a way with these fields beside the common ones.
    pub async fn way_by(&self, mut question: Value) -> Value {
        question["nonce"] = NONCE.into();
        question["worker"] = WORKER.into();
        let answer = self.ask("POST", "/v1/tunnels", question.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let json = answer.json();
        assert_eq!(json["nonce"], NONCE);
        json
    }

    /// Asks for a grant for the declared session at its own destination.
    pub async fn plain_grant(&self) -> Value {
        let placeholder = self.env("reviewer", "GITHUB_TOKEN").await;
        self.grant("api.a.test:443", Some(&placeholder), None).await
    }

    /// Polls the change feed.
    pub async fn poll(&self, epoch: &str, after: u64, wait_ms: u64) -> Value {
        let path = format!("/v1/changes?worker={WORKER}&epoch={epoch}&after={after}&wait_ms={wait_ms}");
        self.ask("GET", &path, b"").await.json()
    }
}

/// One call on a connection of its own.
pub async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_send(stream, method, path, headers, body).await.unwrap()
}

/// The same, to a broker that may die meanwhile.
pub async fn try_send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(path).header("host", "broker");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let answer = sender.send_request(request).await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}
