//! The same socket, the same router, the same parsing, and no decision: what a handler costs that grants always the same.
//! One that records writes to the broker's own log besides, and answers when the record is on disk: no grant may leave
//! before.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use attache_broker::api::server::Socket;
use attache_broker::audit::key::AuditKey;
use attache_broker::audit::{AuditLog, Kind, Record};
use attache_broker::clock::Now;
use attache_broker::config::{AuditConfig, Checkpoints};
use attache_core::wire::{GRANTS_PATH, GrantRequest};
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::watch;

use crate::counters::Meter;
use crate::instance::INSTANCE;
use crate::machine::{self, Cores};
use crate::variants::Alive;
use crate::variants::attache::free_port;

/// How long it may take to listen.
const SOON: Duration = Duration::from_secs(10);

/// The handler, in a process of its own.
#[derive(Debug)]
pub struct Bare {
    /// Where it listens.
    pub port: u16,
    process: Alive,
}

impl Bare {
    /// Starts it on the broker's core; it answers `answer`, and records that in `log`, a new file, if there is one.
    pub fn start(answer: &str, log: Option<&Path>, cores: Cores) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare-handler", &port.to_string(), answer]).args(log).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Alive(machine::pinned(cores.envoy, || Ok(command.spawn()?))?);
        let deadline = Instant::now() + SOON;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(Instant::now() < deadline, "the bare handler does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { port, process })
    }

    /// Its CPU time.
    pub fn meter(&self) -> Meter {
        super::meter(self.process.0.id())
    }
}

/// What `bench bare-handler PORT ANSWER [LOG]` does.
pub fn serve(port: &str, answer: String, log: Option<&str>) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().context("a port")?));
    let answer = Bytes::from(answer);
    let handlers = match log {
        None => post(move |body: Bytes| std::future::ready(handle(&body, answer.clone()))),
        Some(path) => {
            let log = Arc::new(open(Path::new(path))?);
            post(move |body: Bytes| record(body, answer.clone(), log.clone()))
        }
    };
    let router = Router::new().route(GRANTS_PATH, handlers);
    // As the broker's own.
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (_stop, stopped) = watch::channel(false);
        Socket::tcp(address).await?.serve(router, stopped, Default::default()).await;
        Ok(())
    })
}

/// The broker's own log, as it is configured for the broker beside it.
fn open(path: &Path) -> Result<AuditLog> {
    let config = AuditConfig {
        path: path.to_owned(),
        rotate_bytes: 10_000_000_000,
        checkpoints: Checkpoints { records: 1000, every: Duration::from_secs(60) },
        export: Vec::new(),
    };
    let instance = INSTANCE.to_owned().try_into().map_err(|_| anyhow!("{INSTANCE} is no name"))?;
    Ok(AuditLog::open(&config, &instance, AuditKey::from_seed([7; 32]))?)
}

fn handle(body: &[u8], answer: Bytes) -> Response {
    match serde_json::from_slice::<GrantRequest>(body) {
        Ok(_) => granted(answer),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The same after a record of as many words as a grant's.
async fn record(body: Bytes, answer: Bytes, log: Arc<AuditLog>) -> Response {
    let Ok(request) = serde_json::from_slice::<GrantRequest>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let record = Record {
        session_id: Some(request.nonce.clone()),
        destination: Some(request.destination),
        lease_id: Some(request.nonce),
        fingerprint: Some("0123456789abcdef".to_owned()),
        evidence: Some("placeholder".to_owned()),
        issued_to: Some(request.worker),
        ttl_ms: Some(3_600_000),
        count: Some(64),
        ..Record::new(Kind::Issue, Now::read().wall_ms)
    };
    match log.append(record).await {
        Ok(()) => granted(answer),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn granted(answer: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}
