//! How far a log reaches: what the broker notes of it elsewhere, and finds again at the next start.

use super::FileError;
use super::files::rotated;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The end of a log that is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The hash of the last record on disk.
    pub hash: String,
    /// How many records were appended since the log was opened.
    pub appended: u64,
}

/// How many records a log holds, all its files together.
pub fn count(path: &Path) -> Result<u64, FileError> {
    let mut count = 0;
    for file in files(path)? {
        for_lines(&file, |_| count += 1)?;
    }
    Ok(count)
}

/// How many records follow the one with this hash; `None`: there is none.
pub fn count_after(path: &Path, hash: &str) -> Result<Option<u64>, FileError> {
    let end = format!(",\"hash\":\"{hash}\"}}");
    let mut newer = 0;
    // The newest first: older ones are read only when the record is not in it.
    for file in files(path)?.iter().rev() {
        let (mut lines, mut at) = (0, None);
        for_lines(file, |line| {
            lines += 1;
            if line.ends_with(end.as_bytes()) {
                at = Some(lines);
            }
        })?;
        if let Some(at) = at {
            return Ok(Some(lines - at + newer));
        }
        newer += lines;
    }
    Ok(None)
}

/// The files of a log that are there, oldest first.
fn files(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let old = rotated(path).map_err(|cause| FileError::Io { path: path.to_owned(), cause })?;
    let all = old.into_iter().map(|(_, path)| path).chain([path.to_owned()]);
    // A link, or a FIFO that never ends, is no part of a log.
    Ok(all.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file())).collect())
}

fn for_lines(path: &Path, mut each: impl FnMut(&[u8])) -> Result<(), FileError> {
    let failed = |cause| FileError::Io { path: path.to_owned(), cause };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        // A torn last line was never promised to anybody.
        if let Some(line) = line.strip_suffix(b"\n") {
            each(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(hash: &str) -> String {
        format!("{{\"seq\":1,\"prev\":\"p\",\"hash\":\"{hash}\"}}\n")
    }

    #[test]
    fn a_record_is_found_in_whatever_file_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit.jsonl");
        std::fs::write(temp.path().join("audit.jsonl.1"), line("a") + &line("b")).unwrap();
        std::fs::write(temp.path().join("audit.jsonl.2"), line("c")).unwrap();
        std::fs::write(&path, line("d") + &line("e") + "{\"torn").unwrap();
        assert_eq!(count(&path).unwrap(), 5);
        let after = |hash| count_after(&path, hash).unwrap();
        assert_eq!([after("e"), after("d"), after("c"), after("a")], [Some(0), Some(1), Some(2), Some(4)]);
        assert_eq!((after("f"), after("p")), (None, None));
        let moved = temp.path().join("aside");
        std::fs::rename(temp.path().join("audit.jsonl.2"), &moved).unwrap();
        assert_eq!(after("c"), None);
        std::os::unix::fs::symlink(&moved, temp.path().join("audit.jsonl.2")).unwrap();
        assert_eq!(after("c"), None);
    }
}
