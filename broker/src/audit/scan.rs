//! What existing files hold: how far they are good, and where chain and counts go on.

use super::files::{open_rotated, rotated};
use super::numbering::Numbering;
use attache_core::audit::chain::{self, Verifier};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Where a log goes on.
#[derive(Debug, Default)]
pub struct Found {
    /// The last record of each worker.
    pub numbering: Numbering,
    /// How far the current file is good, in bytes.
    pub len: u64,
    /// The hash of the last record of all files.
    pub head: String,
    /// How many records all files hold together.
    pub count: u64,
    /// How many of them stand after the last checkpoint.
    pub unsigned: u64,
    /// What was cut off the end, in words for a gap record.
    pub torn: Option<String>,
    /// Lines between good ones that are none, in words for gap records; without those told before.
    pub damaged: Vec<String>,
}

/// The good lines of one file.
#[derive(Default)]
struct Lines {
    bytes: u64,
    number: u64,
    head: Option<String>,
    /// The last checkpoint: which line it is, and how many records it counts before itself.
    checkpoint: Option<(u64, u64)>,
    /// Which lines before the last good one are not good, from 1.
    bad: Vec<u64>,
    /// What gap records say.
    told: Vec<String>,
}

/// The members of a line that continue a chain and a count.
#[derive(Deserialize)]
struct Marks {
    seq: u64,
    worker: String,
    kind: String,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
    prev: String,
    hash: String,
}

/// How many damaged lines of one file are told of one by one.
const MOST_DAMAGED: usize = 8;

/// Reads the current file of the log at `path`, and of the rotated ones as many as it takes: the
/// newest, which says where a fresh file goes on, and older ones back to the last checkpoint.
pub fn scan(path: &Path, current: &File) -> std::io::Result<Found> {
    let mut found = Found::default();
    let mut older = rotated(path)?;
    let newest = older.pop().map(|(_, newest)| newest);
    let before = match &newest {
        Some(newest) => lines(&open_rotated(newest)?, &mut found.numbering)?,
        None => Lines::default(),
    };
    let now = lines(current, &mut found.numbering)?;
    let told: Vec<_> = before.told.iter().chain(&now.told).collect();
    let damage = newest.iter().flat_map(|newest| damage(newest, &before.bad)).chain(damage(path, &now.bad));
    found.damaged = damage.filter(|damage| !told.contains(&damage)).collect();
    found.len = now.bytes;
    found.head = now.head.clone().or_else(|| before.head.clone()).unwrap_or_else(chain::genesis);
    let mut read = vec![before, now];
    while read.iter().all(|file| file.checkpoint.is_none())
        && let Some((_, file)) = older.pop()
    {
        read.insert(0, lines(&open_rotated(&file)?, &mut Numbering::default())?);
    }
    for file in read {
        (found.count, found.unsigned) = match file.checkpoint {
            Some((at, count)) => (count + 1 + file.number - at, file.number - at),
            None => (found.count + file.number, found.unsigned + file.number),
        };
    }
    Ok(found)
}

/// How far one file is good, in bytes.
pub fn good_bytes(file: &File) -> std::io::Result<u64> {
    Ok(lines(file, &mut Numbering::default())?.bytes)
}

fn lines(file: &File, numbering: &mut Numbering) -> std::io::Result<Lines> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut at, mut good) = (0u64, Lines::default());
    let (mut line, mut number, mut bad) = (Vec::new(), 0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(good);
        }
        at += read as u64;
        number += 1;
        if let Some(marks) = line.strip_suffix(b"\n").and_then(good_line) {
            good.bad.append(&mut bad);
            good.told.extend(marks.reason.filter(|_| marks.kind == "gap"));
            numbering.note(&marks.worker, marks.seq);
            numbering.settle();
            good.bytes = at;
            good.number += 1;
            good.head = Some(marks.hash);
            if marks.kind == "checkpoint" {
                good.checkpoint = marks.count.map(|count| (good.number, count));
            }
        } else if good.bad.len() + bad.len() <= MOST_DAMAGED {
            bad.push(number);
        }
    }
}

/// In words for gap records: which lines of a file are no records. What stood there nobody knows.
fn damage(path: &Path, bad: &[u64]) -> impl Iterator<Item = String> {
    let file = path.display().to_string();
    bad.iter().enumerate().map(move |(index, line)| {
        let more = if index < MOST_DAMAGED { "" } else { " (and maybe others after it)" };
        format!(
            "the audit log is damaged: line {line} of {file}{more} is no record that was ever written; what stood \
             there, an issue perhaps, is not known"
        )
    })
}

/// The marks of a line whose own hash fits. Whether lines fit each other is for `audit verify`.
fn good_line(line: &[u8]) -> Option<Marks> {
    let text = std::str::from_utf8(line).ok()?;
    let marks: Marks = serde_json::from_str(text).ok()?;
    Verifier::after(marks.prev.clone()).check(text).ok()?;
    Some(marks)
}
