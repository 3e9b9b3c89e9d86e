//! `attache audit verify`: follows the chain through all files, checks every signature, and names
//! the first line that is wrong.

use super::files::Files;
use super::head::{Anchor, Head};
use super::key::PublicKey;
use attache_core::audit::chain::{Broken, Verifier, genesis};
use attache_core::names::Name;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What marks a checkpoint: quotes in values are escaped, so nothing else holds this.
const CHECKPOINT: &str = "\"kind\":\"checkpoint\"";

/// What the log is held against.
#[derive(Debug, Default)]
pub struct Against {
    /// The hash before the first record, where older files have been moved away.
    pub after: Option<String>,
    /// The keys that may have signed. With none, signatures are not checked.
    pub keys: Vec<PublicKey>,
    /// What the log is known to have held.
    pub head: Option<Known>,
    /// How long a line may stay unfinished: a broker may just be writing it.
    pub patience: Duration,
}

/// What is known of a log from elsewhere.
#[derive(Clone, Debug)]
pub struct Known {
    /// The hash of one of its records.
    pub hash: String,
    /// Which one it was, counted from 1 through all files.
    pub count: Option<u64>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
    /// How many good lines, up to the first broken one.
    pub lines: u64,
    /// The hash of the last good line.
    pub head: String,
    /// How many records there are up to there in all files that ever were, where that is known:
    /// from the beginning, or from a checkpoint.
    pub count: Option<u64>,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// How many records stand after the last checkpoint; `None` if signatures were not checked.
    pub unsigned: Option<u64>,
    /// The first broken line.
    pub broken: Option<Break>,
}

/// A broken line.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Break {
    /// In which file.
    pub file: PathBuf,
    /// Which line of it, from 1.
    pub line: u64,
    /// What is wrong with it.
    #[serde(serialize_with = "as_text")]
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is no link of the chain.
    #[error(transparent)]
    Chain(#[from] Broken),
    /// A checkpoint that none of the keys signed.
    #[error("the checkpoint's signature does not fit any known key: it, or a line before, was forged")]
    Signature,
    /// A checkpoint that lacks one of its fields.
    #[error("the checkpoint is not one that was ever written")]
    NoCheckpoint,
    /// A checkpoint that counts other records than there are.
    #[error("the checkpoint counts {told} records before it, and there are {found}: some were dropped or inserted")]
    Count {
        /// How many it counts.
        told: u64,
        /// How many there are.
        found: u64,
    },
    /// There are records, and not one checkpoint.
    #[error("no record is signed, and this instance has a key: the log was written by somebody else")]
    NeverSigned,
    /// The record that is known from elsewhere is another one here.
    #[error("this is record {0}, and not the one that the given head names: the log was written anew")]
    Rewritten(u64),
    /// The record that is known from elsewhere is not here.
    #[error("the log ends before the record that the given head names: its end was cut off")]
    CutOff,
}

/// Verifies the log at `path` with its rotated files.
pub fn verify(path: &Path, against: &Against) -> std::io::Result<Report> {
    let files = Files::of(path)?;
    let paths = files.paths();
    let mut way = Way::begin(against);
    let mut last = (path.to_owned(), 0);
    let mut broken = None;
    for opened in files {
        let (path, file) = opened?;
        let (good, why) = way.follow(&file)?;
        last = (path, good);
        broken = why;
        if broken.is_some() {
            break;
        }
    }
    let why = broken.or_else(|| way.missing());
    let unsigned = (!against.keys.is_empty()).then_some(way.unsigned);
    Ok(Report {
        files: paths,
        lines: way.lines,
        head: way.chain.head().to_owned(),
        count: way.count,
        checkpoints: way.checkpoints,
        unsigned,
        broken: why.map(|why| Break { file: last.0, line: last.1 + 1, why }),
    })
}

/// How far a log was followed.
struct Way<'a> {
    against: &'a Against,
    chain: Verifier,
    lines: u64,
    /// How many records there are up to here, in all files that ever were, once that is known.
    count: Option<u64>,
    checkpoints: u64,
    unsigned: u64,
    /// Whether what is known from elsewhere was found, or nothing is.
    reached: bool,
}

/// What a checkpoint says.
#[derive(Deserialize)]
struct Checkpoint {
    timestamp: String,
    instance: Name,
    count: u64,
    signature: String,
    prev: String,
}

impl<'a> Way<'a> {
    fn begin(against: &'a Against) -> Self {
        let start = against.after.clone().unwrap_or_else(genesis);
        let reached = against.head.as_ref().is_none_or(|known| known.hash == start);
        let count = against.after.is_none().then_some(0);
        Self { against, chain: Verifier::after(start), lines: 0, count, checkpoints: 0, unsigned: 0, reached }
    }

    /// Follows one file: answers how many lines are good, and what is wrong with the next.
    fn follow(&mut self, file: &File) -> std::io::Result<(u64, Option<Why>)> {
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut good = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            if !read_line(&mut reader, &mut line, self.against.patience)? {
                return Ok((good, None));
            }
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            if let Err(why) = text.map_or(Err(Broken::Torn.into()), |text| self.step(text)) {
                return Ok((good, Some(why)));
            }
            good += 1;
        }
    }

    fn step(&mut self, line: &str) -> Result<(), Why> {
        self.chain.check(line)?;
        if line.contains(CHECKPOINT) {
            self.check(serde_json::from_str(line).map_err(|_| Why::NoCheckpoint)?)?;
        } else {
            self.unsigned += 1;
        }
        self.lines += 1;
        self.count = self.count.map(|count| count + 1);
        if let Some(known) = &self.against.head {
            self.reached |= known.hash == self.chain.head();
            match self.count {
                Some(count) if known.count == Some(count) && !self.reached => return Err(Why::Rewritten(count)),
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&mut self, checkpoint: Checkpoint) -> Result<(), Why> {
        let Checkpoint { timestamp, instance, count, signature, prev } = checkpoint;
        if let Some(found) = self.count.filter(|found| *found != count) {
            return Err(Why::Count { told: count, found });
        }
        let anchor = Anchor { head: Head { instance, count, hash: prev, timestamp }, signature };
        let keys = &self.against.keys;
        if !keys.is_empty() && anchor.check(keys).is_err() {
            return Err(Why::Signature);
        }
        self.count = Some(count);
        self.checkpoints += 1;
        self.unsigned = 0;
        Ok(())
    }

    /// What should have come, at the end of the last file.
    fn missing(&self) -> Option<Why> {
        if !self.reached {
            return Some(Why::CutOff);
        }
        // The first records of a log are signed at once; what is left of one may hold no checkpoint yet.
        let all = self.against.after.is_none() && self.lines > 0;
        let never = all && self.checkpoints == 0 && !self.against.keys.is_empty();
        never.then_some(Why::NeverSigned)
    }
}

/// Reads one line, with its line break; waits a moment for one that is just being written.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, patience: Duration) -> std::io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        reader.read_until(b'\n', line)?;
        if line.is_empty() || line.ends_with(b"\n") || Instant::now() > deadline {
            return Ok(!line.is_empty());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn as_text<S: serde::Serializer>(why: &Why, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(why)
}
