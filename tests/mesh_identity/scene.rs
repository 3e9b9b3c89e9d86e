//! A stack whose Envoy reaches its broker by mutual TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use attache_tests::agent::{Agent, H1, Unanswered, Wire};
use attache_tests::ca::Leaf;
use attache_tests::stack::Plan;
use attache_tests::{Attache, Ca, Response, Stack, util};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pki::{BROKER, GATEWAY, READER, SERVER, SIDECAR, Volume, broker_leaf, client_leaf};

pub const HOST: &str = "api.github.com";

/// A stack, and who signs in its mesh.
pub struct Scene {
    pub stack: Stack<Attache>,
    pub mesh: Ca,
    /// The broker's files.
    pub broker: Volume,
    /// Envoy's.
    pub envoy: Volume,
    /// The broker's door.
    pub door: SocketAddr,
    _dir: TempDir,
}

impl Scene {
    /// With an Envoy that is this peer.
    pub async fn start(peer: &str, plan: Plan) -> Self {
        Self::start_by(peer, plan, |envoy, _| files(envoy)).await
    }

    /// The same, where Envoy finds its certificate as this says; it may write into a directory.
    pub async fn start_by(peer: &str, plan: Plan, how: impl FnOnce(&Volume, &std::path::Path) -> String) -> Self {
        let mesh = Ca::new();
        let broker = Volume::of(&broker_leaf(&mesh), mesh.pem());
        let envoy = Volume::of(&client_leaf(&mesh, &[peer]), mesh.pem());
        let door = SocketAddr::from(([127, 0, 0, 1], util::free_port()));
        let dir = util::temp_dir();
        let stack = plan.door(&written(door, &broker, &how(&envoy, dir.path()))).start().await;
        Self { stack, mesh, broker, envoy, door, _dir: dir }
    }

    /// A caller of the broker with a certificate of the mesh's authority for this SPIFFE ID.
    pub fn caller(&self, id: &str) -> Caller {
        self.caller_with(&client_leaf(&self.mesh, &[id]))
    }

    pub fn caller_with(&self, leaf: &Leaf) -> Caller {
        Caller { door: self.door, tls: self.mesh.client_as(&["http/1.1"], leaf) }
    }

    /// What `/readyz` says of the certificates, on the operators' door.
    pub async fn certificates(&self) -> Value {
        let socket = self.stack.config.listen.control.clone();
        let text = over_socket(&socket, "/readyz").await;
        let (_, body) = text.split_once("\r\n\r\n").expect("an answer");
        let all: Value = serde_json::from_str(body).expect("JSON");
        let all = all["dependencies"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["name"] == "certificates").expect("told of")
    }
}

async fn over_socket(socket: &std::path::Path, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("the operators' door");
    let head = format!("GET {path} HTTP/1.1\r\nhost: attache\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// `listen.data_plane`, as a config writes it.
pub fn written(at: SocketAddr, broker: &Volume, envoy: &str) -> String {
    format!(
        "{{address: '{at}', tls: {{certificate: {}, key: {}, client_ca: {}}}, peers: [{{id: '{GATEWAY}'}}, {{id: \
         '{SIDECAR}', sessions: [writer, pinned]}}, {{id: '{READER}', sessions: [reader]}}], envoy: {{broker_id: '{BROKER}', {envoy}}}}}",
        broker.file("tls.crt"),
        broker.file("tls.key"),
        broker.file("ca.crt")
    )
}

/// Envoy's own files, as a config names them.
pub fn files(envoy: &Volume) -> String {
    format!(
        "files: {{certificate: {}, key: {}, ca: {}}}",
        envoy.file("tls.crt"),
        envoy.file("tls.key"),
        envoy.file("ca.crt")
    )
}

/// Somebody with a certificate who calls the broker as a filter does. Not watched: grants hold secrets.
pub struct Caller {
    pub door: SocketAddr,
    pub tls: Arc<ClientConfig>,
}

impl Caller {
    /// A connection; TLS 1.3 tells a client that it is refused only when it reads.
    pub async fn connect(&self) -> std::io::Result<H1> {
        let wire = Wire::dial(self.door).await?.secured(SERVER, Arc::clone(&self.tls)).await?;
        Ok(Agent::new().h1_over(wire, "a caller of the broker"))
    }

    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Response, Unanswered> {
        let mut connection = self.connect().await.map_err(|why| Unanswered::Broken(why.to_string()))?;
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        connection.request(method, "attache", path, &[], &body).await
    }

    /// A question for a grant by this evidence: the answer, as JSON.
    pub async fn grant(&self, worker: &str, evidence: Value) -> Value {
        let nonce = "0123456789abcdef0123456789abcdef";
        let request =
            json!({"nonce": nonce, "worker": worker, "destination": format!("{HOST}:443"), "evidence": evidence});
        let answer = self.ask("POST", "/v1/grants", &request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}
