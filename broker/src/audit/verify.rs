//! `attache audit verify`: follows the chain through all files and names the first broken line.

use super::file::rotated;
use attache_core::audit::chain::{Broken, Verifier, genesis};
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a line may stay unfinished while a broker is writing it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
    /// How many good lines, up to the first broken one.
    pub lines: u64,
    /// The hash of the last good line.
    pub head: String,
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
    pub why: Broken,
}

/// Verifies the log at `path` with its rotated files. The chain begins after `after`, or with the
/// very first record.
pub fn verify(path: &Path, after: Option<String>) -> std::io::Result<Report> {
    let mut files: Vec<_> = rotated(path)?.into_iter().map(|(_, file)| file).collect();
    files.push(path.to_owned());
    let mut verifier = Verifier::after(after.unwrap_or_else(genesis));
    let (mut lines, mut broken) = (0, None);
    for file in &files {
        let (good, why) = follow(file, &mut verifier)?;
        lines += good;
        broken = why.map(|why| Break { file: file.clone(), line: good + 1, why });
        if broken.is_some() {
            break;
        }
    }
    Ok(Report { files, lines, head: verifier.head().to_owned(), broken })
}

fn follow(path: &Path, verifier: &mut Verifier) -> std::io::Result<(u64, Option<Broken>)> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut good = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if !read_line(&mut reader, &mut line)? {
            return Ok((good, None));
        }
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        if let Err(why) = text.map_or(Err(Broken::Torn), |text| verifier.check(text)) {
            return Ok((good, Some(why)));
        }
        good += 1;
    }
}

/// Reads one line, with its line break; waits a moment for one that is just being written.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        reader.read_until(b'\n', line)?;
        if line.is_empty() || line.ends_with(b"\n") || Instant::now() > deadline {
            return Ok(!line.is_empty());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn as_text<S: serde::Serializer>(why: &Broken, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(why)
}
