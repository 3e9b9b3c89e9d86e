//! The audit log: a hash-chained file, one JSON object a line.
//!
//! [`AuditLog::append`] and [`AuditLog::append_uses`] answer when the records are on disk, never
//! before. One thread writes; whatever queues up while it syncs shares the next sync. A record
//! never holds a secret, a placeholder or a query value.

mod ascii;
mod decision;
pub mod export;
mod file;
mod files;
pub mod head;
pub mod key;
mod numbering;
mod reach;
mod record;
mod scan;
pub mod verify;
mod writer;

pub use decision::Decision;
pub use file::{Durable, FileError};
pub use files::{Files, open_current};
pub use reach::{Reach, count, count_after};
pub use record::{Kind, Record};

use crate::config::AuditConfig;
use crate::meters::AuditMeters;
use attache_core::names::Name;
use attache_core::wire::UseRecord;
use file::LogFile;
use key::AuditKey;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use writer::{Job, Writer};

/// The records are not on disk: the log is broken or too far behind. Nothing that needs them may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct Unavailable;

/// How many appends may wait for the disk before the next is refused.
const QUEUE: usize = 4096;

/// How long an append waits for the disk. A record that gets there later stands there all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many requests that were forwarded are on record, of one life of the broker.
#[derive(Debug, Default)]
struct Uses {
    /// Those with a credential.
    injected: AtomicU64,
    /// All of them.
    all: AtomicU64,
}

/// What is wrong with the log, while something is.
type Fault = Arc<Mutex<Option<String>>>;

/// The log of one instance, open for writing.
pub struct AuditLog {
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    fault: Fault,
    head: Arc<Mutex<Reach>>,
    durable: watch::Receiver<Durable>,
    uses: Arc<Uses>,
    meters: AuditMeters,
}

impl AuditLog {
    /// Opens the log, cuts off a torn end (and records that it did, and which lines are damaged), and
    /// continues the chain.
    /// `key` signs it.
    pub fn open(config: &AuditConfig, instance: &Name, key: AuditKey) -> Result<Self, FileError> {
        let (file, mut found) = LogFile::open(&config.path, config.rotate_bytes)?;
        let gaps: Vec<_> = found.torn.take().into_iter().chain(std::mem::take(&mut found.damaged)).collect();
        let (fault, head) = (Fault::default(), Arc::default());
        let mut writer =
            Writer::new(file, found, instance.clone(), (fault.clone(), Arc::clone(&head)), key, config.checkpoints);
        for gap in &gaps {
            writer.record_gap(gap)?;
        }
        let (durable, uses, meters) = (writer.durable(), writer.uses(), writer.meters());
        let (jobs, queue) = sync_channel(QUEUE);
        let spawned = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&queue));
        let writer = spawned.map_err(|cause| FileError::Io { path: config.path.clone(), cause })?;
        Ok(Self { jobs: Some(jobs), writer: Some(writer), fault, head, durable, uses, meters })
    }

    /// Appends one record and waits until it is durable.
    pub async fn append(&self, record: impl Into<Box<Record>>) -> Result<(), Unavailable> {
        let (done, answer) = oneshot::channel();
        self.submit(Job::Append { record: record.into(), done })?;
        durable(answer, patience()).await
    }

    /// Appends records and waits until they are durable, for all of them together no longer than for one; answers for
    /// each. One that comes too late for its answer is in the log all the same.
    pub async fn append_all(&self, records: Vec<Record>) -> Vec<Result<(), Unavailable>> {
        let submit = |record| {
            let (done, answer) = oneshot::channel();
            self.submit(Job::Append { record: Box::new(record), done }).map(|()| answer)
        };
        let submitted: Vec<_> = records.into_iter().map(submit).collect();
        let until = patience();
        let mut done = Vec::with_capacity(submitted.len());
        for answer in submitted {
            done.push(match answer {
                Ok(answer) => durable(answer, until).await,
                Err(unavailable) => Err(unavailable),
            });
        }
        done
    }

    /// Signs what is not signed yet, and waits until that is durable.
    pub async fn sign(&self) -> Result<(), Unavailable> {
        let (done, answer) = oneshot::channel();
        self.submit(Job::Sign { done })?;
        durable(answer, patience()).await
    }

    /// How many requests with a credential are on record, of this life of the broker.
    pub fn uses(&self) -> u64 {
        self.uses.injected.load(Ordering::Relaxed)
    }

    /// How many requests that were forwarded, with a credential or without.
    pub fn forwarded(&self) -> u64 {
        self.uses.all.load(Ordering::Relaxed)
    }

    /// Appends a worker's records and waits until they are durable. Answers with the number of its
    /// last durable record: records at or below it are skipped, those behind a hole within them
    /// are not taken, and a hole before them is recorded as a gap. `asked_by` is the SPIFFE ID of its Envoy.
    pub async fn append_uses(
        &self,
        worker: String,
        asked_by: Option<String>,
        records: Vec<UseRecord>,
    ) -> Result<u64, Unavailable> {
        let (done, answer) = oneshot::channel();
        self.submit(Job::Uses { worker, asked_by, records, done })?;
        durable(answer, patience()).await
    }

    /// What is counted here.
    pub fn meters(&self) -> &AuditMeters {
        &self.meters
    }

    /// How far the log is durable, from now on.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.clone()
    }

    /// What is wrong with the log, while something is.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far the log reaches.
    pub fn head(&self) -> Reach {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn submit(&self, job: Job) -> Result<(), Unavailable> {
        // Counted first: the writer may have taken it off again before this returns.
        self.meters.queued.inc();
        let sent = self.jobs.as_ref().ok_or(Unavailable).and_then(|jobs| jobs.try_send(job).map_err(|_| Unavailable));
        if sent.is_err() {
            self.meters.queued.dec();
        }
        sent
    }
}

fn patience() -> tokio::time::Instant {
    tokio::time::Instant::now() + PATIENCE
}

async fn durable<T>(
    answer: oneshot::Receiver<Result<T, Unavailable>>,
    until: tokio::time::Instant,
) -> Result<T, Unavailable> {
    match tokio::time::timeout_at(until, answer).await {
        Ok(Ok(answer)) => answer,
        // The disk hangs, or the writer is gone.
        Ok(Err(_)) | Err(_) => Err(Unavailable),
    }
}

impl Drop for AuditLog {
    /// Waits for what is queued.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
