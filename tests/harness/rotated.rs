//! A log and what was rotated away from it: `NAME.1`, `NAME.2` …, then `NAME` itself.

use std::path::{Path, PathBuf};

/// The whole log, oldest bytes first; what is not there is empty.
#[must_use]
pub fn read(log: &Path) -> Vec<u8> {
    at_rest(log, |files| files.iter().flat_map(|file| std::fs::read(file).unwrap_or_default()).collect())
}

/// The length of the whole log, in bytes.
#[must_use]
pub fn len(log: &Path) -> u64 {
    let length = |file: &PathBuf| std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    at_rest(log, |files| files.iter().map(length).sum())
}

/// Looks at the files of a log, once more when it was rotated meanwhile.
fn at_rest<T>(log: &Path, look: impl Fn(&[PathBuf]) -> T) -> T {
    loop {
        let before = files(log);
        let seen = look(&before);
        if files(log) == before {
            return seen;
        }
    }
}

fn files(log: &Path) -> Vec<PathBuf> {
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let beside = log.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let number = |file: std::fs::DirEntry| file.file_name().to_str()?.strip_prefix(&name)?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = beside.filter_map(number).collect();
    numbers.sort_unstable();
    let rotated = numbers.into_iter().map(|number| log.with_file_name(format!("{name}{number}")));
    rotated.chain([log.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util;

    #[test]
    fn the_oldest_comes_first_and_what_only_looks_like_it_does_not_count() {
        let dir = util::temp_dir();
        let log = dir.path().join("audit.jsonl");
        assert_eq!((read(&log), len(&log)), (vec![], 0));
        for (name, text) in [("", "d"), (".10", "c"), (".9", "b"), (".1", "a"), (".torn", "no"), (".1.gz", "no")] {
            std::fs::write(dir.path().join(format!("audit.jsonl{name}")), text).expect("a file");
        }
        assert_eq!((read(&log), len(&log)), (b"abcd".to_vec(), 4));
    }
}
