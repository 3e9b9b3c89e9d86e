//! The same socket, the same router, the same parsing, and no decision: what a handler costs that grants always the same.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use attache_broker::api::server::Socket;
use attache_core::wire::{GRANTS_PATH, GrantRequest};
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::watch;

use crate::counters::Meter;
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
    /// Starts it on the broker's core; it answers `answer`.
    pub fn start(answer: &str, cores: Cores) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare-handler", &port.to_string(), answer]).stdin(Stdio::null()).stdout(Stdio::null());
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

/// What `bench bare-handler PORT ANSWER` does.
pub fn serve(port: &str, answer: String) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().context("a port")?));
    let answer = Bytes::from(answer);
    let handle = move |body: Bytes| std::future::ready(handle(&body, answer.clone()));
    let router = Router::new().route(GRANTS_PATH, post(handle));
    // As the broker's own.
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (_stop, stopped) = watch::channel(false);
        Socket::tcp(address).await?.serve(router, stopped, Default::default()).await;
        Ok(())
    })
}

fn handle(body: &[u8], answer: Bytes) -> Response {
    match serde_json::from_slice::<GrantRequest>(body) {
        Ok(_) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}
