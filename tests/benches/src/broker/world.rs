//! A broker with so many sessions, and everything that may be asked of it.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use attache_core::digest::Digest;
use attache_core::placeholder::Shape;
use attache_core::wire::{CHANGES_PATH, GRANTS_PATH};
use serde_json::{Map, Value, json};

use super::CREDENTIALS;
use crate::changes::exchange::exchange;
use crate::counters::{Meter, resident};
use crate::instance::{INSTANCE, SECRET, SECRET_FILE, directories};
use crate::machine::{self, Cores};
use crate::variants::Alive;
use crate::variants::attache::{self, Attache, free_port};

/// Who asks.
const WORKER: &str = "0badcafe";
/// The length of a placeholder.
const LENGTH: usize = 40;

/// What is running; ended when dropped.
#[derive(Debug)]
pub struct World {
    /// Of its data plane.
    pub port: u16,
    /// What every call on it shows.
    pub token: String,
    /// An answer with a grant.
    pub granted: String,
    /// Until it served.
    pub started: Duration,
    state: PathBuf,
    broker: Alive,
    /// The worker that is said to ask: one that were silent would be taken for dead, with all its leases.
    worker: Option<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        // Its call ends with the broker.
        let _ = self.broker.0.kill();
        self.worker.take().map(JoinHandle::join);
    }
}

impl World {
    /// Starts a broker with so many sessions, each of which may use all credentials.
    pub fn start(dir: &Path, target: &Path, sessions: usize, cores: Cores) -> Result<Self> {
        let dir = dir.join(format!("broker-{sessions}"));
        let (state, secrets) = directories(&dir, SECRET)?;
        let port = free_port()?;
        let names: Vec<_> = (0..CREDENTIALS).map(credential).collect();
        let declared = (0..sessions).map(|n| json!({"name": format!("agent-{n:05}"), "credentials": names}));
        let config = json!({
            "instance": INSTANCE,
            "state_dir": state,
            "listen": {"proxy": "127.0.0.1:0", "data_plane": format!("127.0.0.1:{port}")},
            "sources": {"order": ["file"], "file": {"dir": secrets}},
            "credentials": (0..CREDENTIALS).map(|n| (credential(n), bound(n))).collect::<Map<_, _>>(),
            "sessions": declared.collect::<Vec<_>>(),
            // None ends while it is counted, and one file has them all.
            "limits": {"grant_ttl": "1h"},
            "audit": {"rotate": "10GB"},
        });
        let path = dir.join("attache.yaml");
        fs::write(&path, serde_json::to_vec(&config)?)?;
        let binary = attache::broker(target).context("the broker is not built")?;
        let attache = Attache { binary: &binary, config: &path, module: Path::new("none") };
        let began = Instant::now();
        let broker = machine::pinned(cores.envoy, || attache.serve(&dir, port))?;
        let state = state.join(INSTANCE);
        let token = fs::read_to_string(state.join("data-plane.token"))?;
        let started = began.elapsed();
        let worker = Some(follow(port, &token)?);
        let mut world = Self { port, token, granted: String::new(), started, state, broker, worker };
        world.granted = world.prove()?;
        Ok(world)
    }

    /// Its CPU time.
    pub fn meter(&self) -> Meter {
        super::meter(self.broker.0.id())
    }

    /// Its resident memory.
    pub fn bytes(&self) -> Result<u64> {
        resident(self.broker.0.id())
    }

    /// How many grants are on record.
    pub fn issued(&self) -> Result<u64> {
        let log = fs::read_to_string(self.state.join("audit.jsonl"))?;
        Ok(u64::try_from(log.lines().filter(|record| record.contains(r#""kind":"issue""#)).count())?)
    }

    /// One request a line for each session and credential, in files of so many lines; the sessions take turns.
    pub fn asks(&self, dir: &Path, of_one: usize) -> Result<Vec<PathBuf>> {
        let key = self.key()?;
        let ids = self.session_ids()?;
        let all = (0..CREDENTIALS).flat_map(|n| ids.iter().map(move |id| (id, n)));
        let lines: Vec<_> = all.map(|(id, n)| ask(&key, id, n)).collect();
        let files = lines.chunks(of_one).enumerate().map(|(index, lines)| {
            let file = dir.join(format!("asks-{index}"));
            fs::write(&file, lines.join("\n") + "\n")?;
            Ok(file)
        });
        files.collect()
    }

    /// An answer, which must be a grant of the secret.
    fn prove(&self) -> Result<String> {
        let ids = self.session_ids()?;
        let body = ask(&self.key()?, ids.first().context("no session")?, 0);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let head = format!(
            "POST {GRANTS_PATH} HTTP/1.1\r\nhost: attache\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let (status, answer) = exchange(&mut stream, head.as_bytes())?;
        let answer = String::from_utf8(answer)?;
        ensure!(status == 200 && answer.contains(SECRET), "no grant: {status} {answer}");
        Ok(answer)
    }

    fn key(&self) -> Result<[u8; 32]> {
        let key = fs::read(self.state.join("instance.key"))?;
        key.try_into().ok().context("an instance.key of another length")
    }

    fn session_ids(&self) -> Result<Vec<String>> {
        let mut control = UnixStream::connect(self.state.join("control.sock"))?;
        let (status, body) = exchange(&mut control, b"GET /v1/sessions HTTP/1.1\r\nhost: attache\r\n\r\n")?;
        ensure!(status == 200, "the sessions are answered {status}");
        let all: Value = serde_json::from_slice(&body)?;
        let ids = all.as_array().into_iter().flatten().map(|one| one["id"].as_str().map(str::to_owned));
        ids.collect::<Option<_>>().context("a session without an id")
    }
}

/// Follows the change feed as a worker does, until the broker ends.
fn follow(port: u16, token: &str) -> Result<JoinHandle<()>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let token = token.to_owned();
    let mut poll = move |epoch: &str, after: u64| -> Result<Value> {
        let query = format!("worker={WORKER}&epoch={epoch}&after={after}&wait_ms=1000");
        let head =
            format!("GET {CHANGES_PATH}?{query} HTTP/1.1\r\nhost: attache\r\nauthorization: Bearer {token}\r\n\r\n");
        let (_, body) = exchange(&mut stream, head.as_bytes())?;
        Ok(serde_json::from_slice(&body)?)
    };
    let mut told = poll("", 0)?;
    Ok(std::thread::spawn(move || {
        while let (Some(epoch), Some(cursor)) = (told["epoch"].as_str(), told["cursor"].as_u64()) {
            let Ok(next) = poll(epoch, cursor) else { return };
            told = next;
        }
    }))
}

fn credential(n: usize) -> String {
    format!("bench-{n:02}")
}

fn bound(n: usize) -> Value {
    json!({
        "source": {"file": SECRET_FILE},
        "inject": "bearer",
        "placeholder": {"prefix": "", "length": LENGTH},
        "agent_env": {format!("BENCH_{n:02}"): "placeholder"},
        "destinations": [{"host": host(n)}],
    })
}

fn host(n: usize) -> String {
    format!("host-{n:02}.bench.test")
}

/// What a filter asks that has seen the placeholder of a session.
fn ask(key: &[u8; 32], session: &str, n: usize) -> String {
    let placeholder = Shape::new("", LENGTH).mint(key, session, &credential(n));
    let request = json!({
        "nonce": "0123456789abcdef0123456789abcdef",
        "worker": WORKER,
        "destination": format!("{}:443", host(n)),
        "evidence": {"placeholder": Digest::of(placeholder.as_bytes()).to_hex()},
    });
    request.to_string()
}
