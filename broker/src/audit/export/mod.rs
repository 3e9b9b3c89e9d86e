//! Copies of the log for others: each follows the file, and only what is durable in it.
//!
//! An export never delays the log, nor what waits for the log: it reads the file behind the writer's
//! back, at its own pace, and remembers how far it came. What it cannot deliver it tries again, so a
//! record may come twice; what nobody would ever take is dropped, counted and told.

mod cursor;
mod follow;
mod journald;
mod otlp;
mod sighted;
mod stdout;
mod syslog;

use super::{AuditLog, Durable};
use crate::collector::CollectorError;
use crate::config::{Export, ExportKind};
use crate::state_dir::StateDir;
use attache_core::names::Name;
use cursor::Cursor;
use follow::Follower;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The first pause after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How often it is remembered how far an export came. So much may come twice after a restart.
const REMEMBER: Duration = Duration::from_secs(2);

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    /// The other side is not there, or the system said no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The collector has not taken them.
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

/// Where records go.
enum Sink {
    Stdout,
    Syslog(Box<syslog::Syslog>),
    Journald(journald::Journald),
    Otlp(Box<otlp::Otlp>),
}

impl Sink {
    /// Delivers lines; answers how many of them nobody would ever take.
    async fn send(&mut self, lines: &[String]) -> Result<u64, SinkError> {
        match self {
            Sink::Stdout => stdout::send(lines).await,
            Sink::Syslog(syslog) => syslog.send(lines).await,
            Sink::Journald(journald) => journald.send(lines).await,
            Sink::Otlp(otlp) => otlp.send(lines).await,
        }
    }

    fn new(kind: &ExportKind, instance: &Name) -> Self {
        match kind {
            ExportKind::Stdout => Sink::Stdout,
            ExportKind::Syslog(to) => Sink::Syslog(Box::new(syslog::Syslog::new(to.clone()))),
            ExportKind::Journald { socket } => Sink::Journald(journald::Journald::new(socket.clone())),
            ExportKind::Otlp { endpoint } => Sink::Otlp(Box::new(otlp::Otlp::new(endpoint.clone(), instance))),
        }
    }
}

/// All exports of an instance, not yet at work.
pub struct Exports {
    exports: Vec<Exporter>,
}

struct Exporter {
    name: String,
    sink: Sink,
    follower: Follower,
    cursor: Cursor,
    state_dir: Arc<StateDir>,
}

impl Exports {
    /// Exports of the log at `path`. One that has never run begins where the log is now.
    pub fn new(
        exports: &[Export],
        path: PathBuf,
        instance: &Name,
        audit: &AuditLog,
        state_dir: &Arc<StateDir>,
    ) -> Self {
        let begin: Durable = *audit.durable().borrow();
        let exports = exports.iter().map(|export| {
            let cursor = Cursor::load(state_dir.dir(), &export.name).unwrap_or_else(|| {
                let cursor = Cursor::at(begin);
                // Remembered at once: a life too short to deliver anything loses nothing.
                if let Err(error) = cursor.save(state_dir.dir(), &export.name) {
                    tracing::warn!(export = %export.name, %error, "where the export begins is not remembered");
                }
                cursor
            });
            let follower = Follower::new(path.clone(), audit.durable());
            let (name, sink) = (export.name.clone(), Sink::new(&export.kind, instance));
            Exporter { name, sink, follower, cursor, state_dir: state_dir.clone() }
        });
        Self { exports: exports.collect() }
    }

    /// Sets them to work. Each ends when the log is closed and all of it is delivered.
    pub fn spawn(self) -> JoinSet<()> {
        self.exports.into_iter().map(Exporter::run).collect()
    }
}

impl Exporter {
    async fn run(mut self) {
        let mut remembered = Instant::now();
        let mut is_new = false;
        loop {
            if is_new && remembered.elapsed() >= REMEMBER {
                self.remember().await;
                (remembered, is_new) = (Instant::now(), false);
            }
            let batch = match self.follower.read(self.cursor).await {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(export = %self.name, %error, "the audit log cannot be read");
                    tokio::time::sleep(RETRY.1).await;
                    continue;
                }
            };
            if batch.lost {
                tracing::warn!(export = %self.name, "the file it had come to is gone; records may be missing");
            }
            is_new |= (batch.next.file, batch.next.at) != (self.cursor.file, self.cursor.at);
            if !batch.lines.is_empty() {
                let dropped = self.deliver(&batch.lines).await;
                self.cursor.dropped += dropped;
            }
            (self.cursor.file, self.cursor.at) = (batch.next.file, batch.next.at);
            if batch.lines.is_empty() && !self.follower.wait(REMEMBER).await {
                self.remember().await;
                return;
            }
        }
    }

    /// Delivers a batch, however long it takes.
    async fn deliver(&mut self, lines: &[String]) -> u64 {
        let mut pause = RETRY.0;
        loop {
            match self.sink.send(lines).await {
                Ok(0) => return 0,
                Ok(dropped) => {
                    let total = self.cursor.dropped + dropped;
                    tracing::warn!(export = %self.name, dropped, total, "records that nobody takes were dropped");
                    return dropped;
                }
                Err(error) => tracing::warn!(export = %self.name, %error, "the export waits"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn remember(&self) {
        let (state_dir, name, cursor) = (self.state_dir.clone(), self.name.clone(), self.cursor);
        let saved = tokio::task::spawn_blocking(move || cursor.save(state_dir.dir(), &name)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(export = %self.name, %error, "how far the export came is not remembered");
        }
    }
}

#[cfg(test)]
mod tests;
