//! Reads the log behind the writer's back: whole lines, in order, only what is durable.

use super::cursor::Cursor;
use crate::audit::{Durable, Files};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Most bytes of one batch; no record comes near it.
const BATCH: u64 = 256 * 1024;

/// A reader of one log.
pub struct Follower {
    path: PathBuf,
    durable: watch::Receiver<Durable>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records, without their line breaks; none, if there is nothing new.
    pub lines: Vec<String>,
    /// Where to go on, once they are delivered.
    pub next: Cursor,
    /// Whether the file that the cursor named is gone.
    pub lost: bool,
}

impl Follower {
    /// Follows the log at `path`, as far as `durable` says.
    pub fn new(path: PathBuf, durable: watch::Receiver<Durable>) -> Self {
        Self { path, durable }
    }

    /// What stands behind the cursor.
    pub async fn read(&mut self, cursor: Cursor) -> std::io::Result<Batch> {
        let durable = *self.durable.borrow_and_update();
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path, cursor, durable));
        read.await.map_err(std::io::Error::other)?
    }

    /// Waits for more, but not longer than this; `false` if there will never be any.
    pub async fn wait(&mut self, most: Duration) -> bool {
        !matches!(tokio::time::timeout(most, self.durable.changed()).await, Ok(Err(_)))
    }
}

fn read(path: &Path, cursor: Cursor, durable: Durable) -> std::io::Result<Batch> {
    let mut batch = Batch { next: cursor, ..Batch::default() };
    let files = Files::of(path)?;
    let identities = files.identities()?;
    let from = identities.iter().position(|identity| *identity == cursor.file);
    batch.lost = from.is_none();
    let from = from.unwrap_or(0);
    for (opened, identity) in files.without(from).zip(identities.into_iter().skip(from)) {
        let (_, mut file) = opened?;
        if batch.next.file != identity {
            (batch.next.file, batch.next.at) = (identity, 0);
        }
        let end = if identity == durable.file { durable.len } else { file.metadata()?.len() };
        batch.lines = lines(&mut file, &mut batch.next.at, end)?;
        // What is behind the durable file was begun after we were told how far that is.
        if !batch.lines.is_empty() || identity == durable.file {
            break;
        }
    }
    Ok(batch)
}

/// Whole lines between `at`, which moves on, and `end`.
fn lines(file: &mut File, at: &mut u64, end: u64) -> std::io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(*at))?;
    file.take(end.saturating_sub(*at).min(BATCH)).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    bytes.truncate(whole);
    *at += whole as u64;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}
