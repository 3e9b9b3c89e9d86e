//! The one thread that writes: takes whatever is queued, writes it, syncs once, answers all.
//!
//! After an error it refuses everything and tries to open the file anew, by itself, until that
//! works; then a gap record says what was missing.

use super::file::{FileError, LogFile};
use super::numbering::{Numbering, Verdict};
use super::record::{BROKER, Kind, Record};
use super::{Fault, Head, Unavailable};
use crate::clock::{Now, rfc3339};
use attache_core::names::Name;
use attache_core::wire::UseRecord;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a broken log rests between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// Most jobs in one batch.
const BATCH: usize = 1024;

/// One append, and who waits for it. Who has stopped waiting is no reason not to write.
pub enum Job {
    /// The broker's own record.
    Append {
        /// The record.
        record: Box<Record>,
        /// Told when it is durable.
        done: oneshot::Sender<Result<(), Unavailable>>,
    },
    /// A worker's records.
    Uses {
        /// The worker.
        worker: String,
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
    head: Arc<Mutex<Head>>,
}

impl Writer {
    /// Continues `file`, which holds what `numbering` says; tells in `head` how far it reaches.
    pub fn new(file: LogFile, numbering: Numbering, instance: Name, fault: Fault, head: Arc<Mutex<Head>>) -> Self {
        let writer = Self { file, numbering, instance, fault, head };
        writer.reached(0);
        writer
    }

    fn reached(&self, more: usize) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        *head = Head { hash: self.file.head().to_owned(), appended: head.appended.saturating_add(more as u64) };
    }

    /// Works until all senders are gone.
    pub fn run(mut self, queue: &Receiver<Job>) {
        let mut broken = None;
        loop {
            let first = match broken {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => queue.recv_timeout(RETRY),
            };
            let batch = match first {
                Ok(first) => std::iter::once(first).chain(queue.try_iter().take(BATCH)).collect(),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(since) = broken {
                batch.into_iter().for_each(refuse);
                broken = self.recover(since).err().map(|_| since);
            } else if let Err(error) = self.commit(batch) {
                tracing::error!(%error, "the audit log cannot be written; no grant leaves until it can");
                *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                broken = Some(Now::read().wall_ms);
            }
        }
    }

    /// Writes one gap record, at once.
    pub fn record_gap(&mut self, what: &str) -> Result<(), FileError> {
        let gap = self.own(gap(what));
        self.file.append(std::slice::from_ref(&gap))?;
        self.reached(1);
        self.numbering.note(BROKER, gap.seq);
        self.numbering.settle();
        Ok(())
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
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            match job {
                Job::Append { record, done } => {
                    let record = self.own(*record);
                    self.numbering.note(BROKER, record.seq);
                    records.push(record);
                    answers.push(Answer::Append(done));
                }
                Job::Uses { worker, records: seen, done } => {
                    self.admit(&worker, seen, &mut records);
                    answers.push(Answer::Uses(self.numbering.last(&worker), done));
                }
            }
        }
        let written = if records.is_empty() { Ok(()) } else { self.file.append(&records) };
        match written {
            Ok(()) => {
                self.reached(records.len());
                self.numbering.settle();
            }
            Err(_) => self.numbering.take_back(),
        }
        for answer in answers {
            answer.give(written.is_ok());
        }
        written
    }

    /// Takes those of a worker's records that come next. A worker sends its oldest one first, so what
    /// is missing before a batch was acknowledged by somebody else, or lost here: it never comes, and the
    /// worker, which waits for this batch, must not wait for ever.
    fn admit(&mut self, worker: &str, seen: Vec<UseRecord>, into: &mut Vec<Record>) {
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
                    let gap = self.own(gap(&missing));
                    self.numbering.note(BROKER, gap.seq);
                    into.push(gap);
                }
            }
            self.numbering.note(worker, seq);
            let instance = Some(self.instance.clone());
            into.push(Record { instance, ..Record::of_use(worker, record) });
        }
    }

    /// Numbers a record of the broker's own.
    fn own(&self, record: Record) -> Record {
        let seq = self.numbering.last(BROKER).saturating_add(1);
        Record { instance: Some(self.instance.clone()), seq, worker: BROKER.into(), ..record }
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
        Job::Append { done, .. } => Answer::Append(done).give(false),
        Job::Uses { done, .. } => Answer::Uses(0, done).give(false),
    }
}

fn gap(what: &str) -> Record {
    Record { reason: Some(what.into()), ..Record::new(Kind::Gap, Now::read().wall_ms) }
}
