//! What existing files hold: how far they are good, and where chain and counts go on.

use super::numbering::Numbering;
use attache_core::audit::chain::{self, Verifier};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a log is looked for that is just being rotated, and how long in between.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

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
}

/// The good lines of one file.
#[derive(Default)]
struct Lines {
    bytes: u64,
    number: u64,
    head: Option<String>,
    /// The last checkpoint: which line it is, and how many records it counts before itself.
    checkpoint: Option<(u64, u64)>,
}

/// The members of a line that continue a chain and a count.
#[derive(Deserialize)]
struct Marks {
    seq: u64,
    worker: String,
    kind: String,
    #[serde(default)]
    count: Option<u64>,
    prev: String,
    hash: String,
}

/// Reads the current file of the log at `path`, and of the rotated ones as many as it takes: the
/// newest, which says where a fresh file goes on, and older ones back to the last checkpoint.
pub fn scan(path: &Path, current: &File) -> std::io::Result<Found> {
    let mut found = Found::default();
    let mut older = rotated(path)?;
    let before = match older.pop() {
        Some((_, newest)) => lines(&File::open(newest)?, &mut found.numbering)?,
        None => Lines::default(),
    };
    let now = lines(current, &mut found.numbering)?;
    found.len = now.bytes;
    found.head = now.head.clone().or_else(|| before.head.clone()).unwrap_or_else(chain::genesis);
    let mut read = vec![before, now];
    while read.iter().all(|file| file.checkpoint.is_none())
        && let Some((_, file)) = older.pop()
    {
        read.insert(0, lines(&File::open(file)?, &mut Numbering::default())?);
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
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(good);
        }
        at += read as u64;
        if let Some(marks) = line.strip_suffix(b"\n").and_then(good_line) {
            numbering.note(&marks.worker, marks.seq);
            numbering.settle();
            good.bytes = at;
            good.number += 1;
            good.head = Some(marks.hash);
            if marks.kind == "checkpoint" {
                good.checkpoint = marks.count.map(|count| (good.number, count));
            }
        }
    }
}

/// The marks of a line whose own hash fits. Whether lines fit each other is for `audit verify`.
fn good_line(line: &[u8]) -> Option<Marks> {
    let text = std::str::from_utf8(line).ok()?;
    let marks: Marks = serde_json::from_str(text).ok()?;
    Verifier::after(marks.prev.clone()).check(text).ok()?;
    Some(marks)
}

/// The rotated files of a log, oldest first.
pub fn rotated(path: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|n| n.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        found.extend(number.map(|number: u64| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// All files of a log, opened, oldest first: a file that is rotated meanwhile is neither missing nor
/// there twice.
pub fn open_all(path: &Path) -> std::io::Result<Vec<(PathBuf, File)>> {
    let mut tries = TRIES;
    loop {
        let before = rotated(path)?;
        let mut files = Vec::new();
        for (_, rotated) in &before {
            files.push((rotated.clone(), File::open(rotated)?));
        }
        let current = File::open(path);
        if rotated(path)? == before {
            match current {
                // Moved aside, and the next one is not there yet.
                Err(error) if error.kind() == ErrorKind::NotFound && !before.is_empty() && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(PAUSE);
                }
                current => {
                    files.push((path.to_owned(), current?));
                    return Ok(files);
                }
            }
        }
    }
}
