//! Writes down what outlives the process besides sessions: what the feed told, who followed it, until
//! when sessions were alive, and how far the audit log reached. Off the path of every request: a poll touches memory only.

use crate::audit::{self, AuditLog, FileError};
use crate::changes::{Feed, Told};
use crate::clock::{Now, rfc3339};
use crate::store::{ChangeRow, HeadRow, Store, StoreError, WorkerRow};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often workers and the audit log's head are written down. What was cut off the end of the log
/// within this time before a crash is not noticed.
const PERIOD: Duration = Duration::from_secs(2);

/// Keeps the store's history.
pub struct Ledger {
    store: Arc<Store>,
    feed: Arc<Feed>,
    audit: Arc<AuditLog>,
    /// How many records the audit log held when it was opened.
    records_before: u64,
}

/// How the audit log that is there compares with what was noted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many records there were when the log was opened, as far as anybody knows.
    pub records: u64,
    /// What is missing, or there without anybody's word for it: words for a gap record.
    pub told: Option<Mismatch>,
}

/// What a gap record says of the log that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// In words.
    pub reason: String,
    /// How many records are there that were not noted; `None`: some are missing.
    pub unnoted: Option<u64>,
}

/// Looks whether the record that was noted last is still in the audit log, which is open already:
/// so it is a file, and ours.
pub async fn compare(store: &Store, path: &Path, log: &AuditLog) -> Result<Found, CompareError> {
    // Opening may have told of a torn end.
    let appended = log.head().appended;
    let before = |records: u64| records.saturating_sub(appended);
    let Some(noted) = store.last_head().await? else {
        let records = before(audit::count(path)?);
        // Not even a first life was noted: the database is new, or another.
        let none = HeadRow { records: 0, hash: String::new(), noted_ms: 0 };
        return Ok(Found { records, told: (records > 0).then(|| unnoted(&none, records)) });
    };
    Ok(match audit::count_after(path, &noted.hash)? {
        Some(since) => Found {
            records: before(noted.records.saturating_add(since)),
            told: Some(before(since)).filter(|count| *count > 0).map(|count| unnoted(&noted, count)),
        },
        None => {
            let HeadRow { records, hash, noted_ms } = noted;
            let when = rfc3339(noted_ms);
            let missing = format!(
                "the audit log was cut or replaced: record {records} of it, on disk at {when}, is no longer there \
                 (its hash was {hash})"
            );
            Found { records, told: Some(Mismatch { reason: missing, unnoted: None }) }
        }
    })
}

/// Records behind the last that was noted: a broker that is killed leaves those of its last moments,
/// and whoever may write the file can add others.
fn unnoted(noted: &HeadRow, count: u64) -> Mismatch {
    let HeadRow { records, noted_ms, .. } = noted;
    let (first, last) = (records.saturating_add(1), records.saturating_add(count));
    let noted = match records {
        0 => "none was".to_owned(),
        last => format!("record {last} was, at {}", rfc3339(*noted_ms)),
    };
    let reason = format!(
        "records {first} to {last} of the audit log were not noted before this start ({noted}): the broker ended \
         without order, or somebody else wrote them"
    );
    Mismatch { reason, unnoted: Some(count) }
}

/// Why the audit log and what was noted of it cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// What was noted cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error("audit log: {0}")]
    Log(#[from] FileError),
}

impl Ledger {
    /// A ledger of one life of the broker.
    pub fn new(store: Arc<Store>, feed: Arc<Feed>, audit: Arc<AuditLog>, found: &Found) -> Self {
        Self { store, feed, audit, records_before: found.records }
    }

    /// Writes, over and over.
    pub async fn keep(&self) {
        let mut noted = 0;
        let mut next = tokio::time::Instant::now();
        loop {
            let told = self.feed.unwritten(next.saturating_duration_since(tokio::time::Instant::now())).await;
            if let Err(error) = self.write_changes(told).await {
                tracing::warn!(%error, "changes are not written down");
                tokio::time::sleep(PERIOD).await;
            }
            if next <= tokio::time::Instant::now() {
                next = tokio::time::Instant::now() + PERIOD;
                noted = self.write_standing(noted).await;
            }
        }
    }

    /// Writes all that is left, once, at the end.
    pub async fn finish(&self) {
        if let Err(error) = self.write_changes(self.feed.unwritten(Duration::ZERO).await).await {
            tracing::warn!(%error, "changes are not written down");
        }
        self.write_standing(0).await;
    }

    async fn write_changes(&self, told: Vec<Told>) -> Result<(), StoreError> {
        let Some(last) = told.last().map(|told| told.change.cursor) else { return Ok(()) };
        let rows: Vec<_> = told.into_iter().map(|told| row(self.feed.epoch(), told)).collect();
        self.store.note_changes(&rows).await?;
        self.feed.wrote(last);
        Ok(())
    }

    /// Workers, and the audit log's head if it has moved; how many records were appended by then.
    async fn write_standing(&self, noted: u64) -> u64 {
        let now = Now::read();
        let workers = self.feed.followers(now).into_iter().map(|follower| WorkerRow {
            id: follower.id,
            first_seen_ms: follower.first_seen_ms,
            last_seen_ms: follower.last_seen_ms,
            epoch: self.feed.epoch().to_owned(),
            acked: follower.acked,
        });
        let workers: Vec<_> = workers.collect();
        let head = self.audit.head();
        let row = HeadRow {
            records: self.records_before.saturating_add(head.appended),
            hash: head.hash,
            noted_ms: now.wall_ms,
        };
        let moved = head.appended > noted;
        let written = async {
            self.store.note_seen(now.wall_ms).await?;
            if !workers.is_empty() {
                self.store.note_workers(&workers).await?;
            }
            if moved { self.store.note_head(&row).await } else { Ok(()) }
        };
        match written.await {
            Ok(()) => head.appended,
            Err(error) => {
                tracing::warn!(%error, "workers and the audit log's head are not written down");
                noted
            }
        }
    }
}

fn row(epoch: &str, told: Told) -> ChangeRow {
    let (kind, scope) = match (told.change.session_id, told.change.credential) {
        (Some(id), _) => ("session", id),
        (None, Some(credential)) => match told.change.destination {
            Some(destination) => ("credential", format!("{credential} at {destination}")),
            None => ("credential", credential.to_string()),
        },
        (None, None) => ("all", String::new()),
    };
    ChangeRow { epoch: epoch.to_owned(), cursor: told.change.cursor, kind: kind.into(), scope, told_ms: told.told_ms }
}
