//! The one thread that writes: takes whatever is queued, writes it, syncs once, answers all.
//!
//! After an error it refuses everything and tries to open the file anew, by itself, until that
//! works; then a gap record says what was missing.

use super::file::{Durable, FileError, LogFile};
use super::key::AuditKey;
use super::numbering::{Numbering, Verdict};
use super::record::{BROKER, Kind, Record};
use super::scan::Found;
use super::{Fault, Reach, Unavailable, Uses};
use crate::clock::{Now, rfc3339};
use crate::config::Checkpoints;
use crate::meters::AuditMeters;
use attache_core::names::Name;
use attache_core::wire::UseRecord;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How long a broken log rests between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// Most jobs in one batch.
const BATCH: usize = 1024;

/// A batch of so many jobs is one of a busy log.
const BUSY: usize = 16;

/// How long a busy log waits for more before it syncs: a sync takes as long, and its time from whoever else would use
/// the processor, for one record as for a hundred.
const LINGER: Duration = Duration::from_millis(1);

/// One append, and who waits for it. Who has stopped waiting is no reason not to write.
pub enum Job {
    /// The broker's own record.
    Append {
        /// The record.
        record: Box<Record>,
        /// Told when it is durable.
        done: oneshot::Sender<Result<(), Unavailable>>,
    },
    /// A checkpoint, unless everything is signed.
    Sign {
        /// Told when it is durable.
        done: oneshot::Sender<Result<(), Unavailable>>,
    },
    /// A worker's records.
    Uses {
        /// The worker.
        worker: String,
        /// Who its Envoy is, where a certificate says so.
        asked_by: Option<String>,
        /// Its records, in ascending order.
        records: Vec<UseRecord>,
        /// Told the number of the worker's last durable record.
        done: oneshot::Sender<Result<u64, Unavailable>>,
    },
}

/// Owns the file.
pub struct Writer {
    file: LogFile,
    numbering: Numbering,
    instance: Name,
    fault: Fault,
    head: Arc<Mutex<Reach>>,
    key: AuditKey,
    pace: Checkpoints,
    /// How many records stand after the last checkpoint.
    unsigned: u64,
    /// When the first of them was written.
    unsigned_since: Option<Instant>,
    /// Whether nothing was signed yet in this life: its first records are, at once. Not before there
    /// is one: what the life before left unsigned is not signed without a word of this one after it.
    begins: bool,
    durable: watch::Sender<Durable>,
    /// How many requests that were forwarded were recorded in this life.
    uses: Arc<Uses>,
    meters: AuditMeters,
}

/// What becomes one batch.
struct Batch {
    #[expect(clippy::vec_box, reason = "they come boxed, and are 800 bytes each: a vector that grows would move them")]
    records: Vec<Box<Record>>,
    unsigned: u64,
    signs: bool,
}

impl Writer {
    /// Continues `file`, which holds what `found` says; tells what is wrong, and how far it reaches.
    pub fn new(
        file: LogFile,
        found: Found,
        instance: Name,
        (fault, head): (Fault, Arc<Mutex<Reach>>),
        key: AuditKey,
        pace: Checkpoints,
    ) -> Self {
        let durable = watch::Sender::new(file.durable());
        let Found { numbering, unsigned, .. } = found;
        let unsigned_since = (unsigned > 0).then(Instant::now);
        let writer = Self {
            file,
            numbering,
            instance,
            fault,
            head,
            key,
            pace,
            unsigned,
            unsigned_since,
            begins: true,
            durable,
            uses: Arc::default(),
            meters: AuditMeters::default(),
        };
        writer.reached(0);
        writer
    }

    /// Tells how far the log is durable.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// Counts the requests that were forwarded and are durable.
    pub fn uses(&self) -> Arc<Uses> {
        self.uses.clone()
    }

    /// What is counted here.
    pub fn meters(&self) -> AuditMeters {
        self.meters.clone()
    }

    fn reached(&self, more: usize) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        *head = Reach { hash: self.file.head().to_owned(), appended: head.appended.saturating_add(more as u64) };
    }

    /// Works until all senders are gone.
    pub fn run(mut self, queue: &Receiver<Job>) {
        let (mut broken, mut busy) = (None, false);
        loop {
            let first = match (broken, self.sign_at()) {
                (None, None) => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (None, Some(at)) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
                (Some(_), _) => queue.recv_timeout(RETRY),
            };
            if busy && first.is_ok() {
                std::thread::sleep(LINGER);
            }
            let batch: Vec<_> = match first {
                Ok(first) => std::iter::once(first).chain(queue.try_iter().take(BATCH)).collect(),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return self.end(broken.is_some()),
            };
            busy = batch.len() >= BUSY;
            self.meters.queued.dec_by(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            if let Some(since) = broken {
                batch.into_iter().for_each(refuse);
                broken = self.recover(since).err().map(|_| since);
            } else if let Err(error) = self.commit(batch) {
                tracing::error!(%error, "the audit log cannot be written; no grant leaves until it can");
                broken = Some(Now::read().wall_ms);
                self.meters.faults.inc();
            }
        }
    }

    /// Writes one gap record, at once.
    pub fn record_gap(&mut self, what: &str) -> Result<(), FileError> {
        let mut batch = self.batch();
        self.add_own(gap(what).into(), &mut batch);
        self.write(&batch)
    }

    fn batch(&self) -> Batch {
        Batch { records: Vec::new(), unsigned: self.unsigned, signs: false }
    }

    /// When what is not signed yet has to be; `None` if everything is.
    fn sign_at(&self) -> Option<Instant> {
        let since = self.unsigned_since.filter(|_| !self.begins)?;
        Some(since + self.pace.every)
    }

    /// Signs what is not signed yet: the log of a broker that ends in order ends in a checkpoint.
    fn end(mut self, broken: bool) {
        if broken || self.begins || self.unsigned == 0 {
            return;
        }
        if let Err(error) = self.sign() {
            tracing::error!(%error, "the end of the audit log is not signed");
        }
    }

    /// Signs all there is, at once.
    fn sign(&mut self) -> Result<(), FileError> {
        let mut batch = self.batch();
        self.add_checkpoint(&mut batch);
        self.write(&batch)
    }

    fn recover(&mut self, since_ms: u64) -> Result<(), FileError> {
        self.file.reopen()?;
        self.record_gap(&format!("the audit log could not be written since {}", rfc3339(since_ms)))?;
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tracing::info!("the audit log can be written again");
        Ok(())
    }

    /// Makes a batch durable and answers it; on an error, refuses it.
    fn commit(&mut self, batch: Vec<Job>) -> Result<(), FileError> {
        let mut into = self.batch();
        let mut answers = Vec::with_capacity(batch.len());
        let mut due = self.begins;
        for job in batch {
            match job {
                Job::Sign { done } => {
                    due = true;
                    answers.push(Answer::Append(done));
                }
                Job::Append { record, done } => {
                    self.add_own(record, &mut into);
                    answers.push(Answer::Append(done));
                }
                Job::Uses { worker, asked_by, records: seen, done } => {
                    self.admit(&worker, asked_by.as_deref(), seen, &mut into);
                    answers.push(Answer::Uses(self.numbering.last(&worker), done));
                }
            }
        }
        due |= self.sign_at().is_some_and(|at| at <= Instant::now());
        if due && into.unsigned > 0 {
            self.add_checkpoint(&mut into);
        }
        let written = if into.records.is_empty() { Ok(()) } else { self.write(&into) };
        for answer in answers {
            answer.give(written.is_ok());
        }
        written?;
        if self.file.is_full() { self.rotate() } else { Ok(()) }
    }

    /// Makes a batch durable, or takes back all that was noted of it.
    fn write(&mut self, batch: &Batch) -> Result<(), FileError> {
        let began = Instant::now();
        if let Err(error) = self.file.append(&batch.records, &self.key) {
            self.numbering.take_back();
            // Before anybody hears that it is not there: whoever then asks why is told.
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            return Err(error);
        }
        self.meters.synced.observe(began.elapsed());
        self.meters.records.inc_by(batch.records.len() as u64);
        self.numbering.settle();
        if batch.signs {
            (self.begins, self.unsigned_since) = (false, None);
        }
        self.unsigned = batch.unsigned;
        if self.unsigned > 0 {
            self.unsigned_since.get_or_insert_with(Instant::now);
        }
        let count = |is: fn(&Record) -> bool| batch.records.iter().filter(|record| is(record)).count() as u64;
        self.uses.injected.fetch_add(count(|record| record.auth_injected), Ordering::Relaxed);
        self.uses.all.fetch_add(count(|record| record.kind == Kind::Use), Ordering::Relaxed);
        self.reached(batch.records.len());
        self.durable.send_replace(self.file.durable());
        Ok(())
    }

    /// Begins a new file; the old one ends in a checkpoint.
    fn rotate(&mut self) -> Result<(), FileError> {
        if self.unsigned > 0 {
            self.sign()?;
        }
        if let Err(error) = self.file.rotate() {
            tracing::warn!(%error, "the audit log could not be rotated");
        }
        self.durable.send_replace(self.file.durable());
        Ok(())
    }

    fn add(&mut self, record: Box<Record>, batch: &mut Batch) {
        self.numbering.note(&record.worker, record.seq);
        batch.records.push(record);
        batch.unsigned += 1;
        if batch.unsigned >= self.pace.records {
            self.add_checkpoint(batch);
        }
    }

    /// Adds a record of the broker's own.
    fn add_own(&mut self, mut record: Box<Record>, batch: &mut Batch) {
        self.number(&mut record);
        self.add(record, batch);
    }

    /// Adds a checkpoint, which the file signs when it knows what stands before it.
    fn add_checkpoint(&mut self, batch: &mut Batch) {
        let mut checkpoint = Record::new(Kind::Checkpoint, Now::read().wall_ms);
        self.number(&mut checkpoint);
        self.numbering.note(BROKER, checkpoint.seq);
        batch.records.push(checkpoint.into());
        (batch.unsigned, batch.signs) = (0, true);
    }

    /// Takes those of a worker's records that come next. A worker sends its oldest one first, so what
    /// is missing before a batch was acknowledged by somebody else, or lost here: it never comes, and the
    /// worker, which waits for this batch, must not wait for ever.
    fn admit(&mut self, worker: &str, asked_by: Option<&str>, seen: Vec<UseRecord>, into: &mut Batch) {
        for (index, record) in seen.into_iter().enumerate() {
            let seq = record.seq;
            match self.numbering.judge(worker, seq) {
                Verdict::Duplicate => continue,
                Verdict::BehindHole if index > 0 => return,
                Verdict::Next => {}
                Verdict::FirstHeard | Verdict::BehindHole => {
                    let known = self.numbering.last(worker);
                    let missing = match known {
                        0 => format!("records of worker {worker} before its number {seq} are not known"),
                        _ => format!("records of worker {worker} between its numbers {known} and {seq} are not known"),
                    };
                    self.add_own(gap(&missing).into(), into);
                }
            }
            let (instance, asked_by) = (Some(self.instance.clone()), asked_by.map(str::to_owned));
            self.add(Record { instance, asked_by, ..Record::of_use(worker, record) }.into(), into);
        }
    }

    /// Numbers a record of the broker's own.
    fn number(&self, record: &mut Record) {
        record.instance = Some(self.instance.clone());
        record.seq = self.numbering.last(BROKER).saturating_add(1);
        BROKER.clone_into(&mut record.worker);
    }
}

enum Answer {
    Append(oneshot::Sender<Result<(), Unavailable>>),
    Uses(u64, oneshot::Sender<Result<u64, Unavailable>>),
}

impl Answer {
    fn give(self, durable: bool) {
        // Whoever has gone away needs no answer.
        match self {
            Answer::Append(done) => drop(done.send(if durable { Ok(()) } else { Err(Unavailable) })),
            Answer::Uses(last, done) => drop(done.send(if durable { Ok(last) } else { Err(Unavailable) })),
        }
    }
}

fn refuse(job: Job) {
    match job {
        Job::Append { done, .. } | Job::Sign { done } => Answer::Append(done).give(false),
        Job::Uses { done, .. } => Answer::Uses(0, done).give(false),
    }
}

fn gap(what: &str) -> Record {
    Record { reason: Some(what.into()), ..Record::new(Kind::Gap, Now::read().wall_ms) }
}
