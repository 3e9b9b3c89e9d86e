//! The files of a log: `PATH.1`, `PATH.2` … in order, and `PATH` itself.
//!
//! However many there are, they are read one after the other, and one is open at a time beside the
//! current one. What is no regular file is no part of a log, and is refused rather than waited for.

use super::FileError;
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a log is looked for that is just being rotated, and how long in between.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// All files of a log, oldest first, opened as they are asked for: a file that is rotated meanwhile
/// is neither missing nor there twice.
pub struct Files {
    older: VecDeque<PathBuf>,
    current: Option<(PathBuf, File)>,
}

impl Files {
    /// The files of the log at `path`, as they are now.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let mut tries = TRIES;
        loop {
            let before = rotated(path)?;
            let current = open_current(path);
            if rotated(path)? != before {
                continue;
            }
            match current {
                // Moved aside, and the next one is not there yet.
                Err(error) if error.kind() == ErrorKind::NotFound && !before.is_empty() && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(PAUSE);
                }
                current => {
                    let older = before.into_iter().map(|(_, path)| path).collect();
                    return Ok(Self { older, current: Some((path.to_owned(), current?)) });
                }
            }
        }
    }

    /// Where they are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.older.iter().chain(self.current.iter().map(|(path, _)| path)).cloned().collect()
    }

    /// The device and inode of each.
    pub fn identities(&self) -> std::io::Result<Vec<(u64, u64)>> {
        let older = self.older.iter().map(|path| path.symlink_metadata());
        let current = self.current.iter().map(|(_, file)| file.metadata());
        older.chain(current).map(|found| found.map(|found| (found.dev(), found.ino()))).collect()
    }

    /// Without the oldest `count`, which are not opened.
    pub fn without(mut self, count: usize) -> Self {
        let older = count.min(self.older.len());
        self.older.drain(..older);
        if count > older {
            self.current = None;
        }
        self
    }
}

impl Iterator for Files {
    type Item = std::io::Result<(PathBuf, File)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.older.pop_front() {
            Some(path) => Some(open_rotated(&path).map(|file| (path, file))),
            None => self.current.take().map(Ok),
        }
    }
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

/// Opens a log by its own name, which may be a link: whoever named it chose it.
pub fn open_current(path: &Path) -> std::io::Result<File> {
    open(path, OFlags::empty())
}

/// Opens a rotated file. The broker makes no links, so one is somebody else's.
pub fn open_rotated(path: &Path) -> std::io::Result<File> {
    open(path, OFlags::NOFOLLOW)
}

fn open(path: &Path, flags: OFlags) -> std::io::Result<File> {
    let refused = || Error::new(ErrorKind::InvalidInput, FileError::NotAFile(path.to_owned()));
    // O_NONBLOCK: a FIFO must not make us wait.
    let flags = (flags | OFlags::NONBLOCK).bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() != ErrorKind::NotFound && path.is_symlink() => return Err(refused()),
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn log(rotated: u32) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit.jsonl");
        for number in 1..=rotated {
            std::fs::write(temp.path().join(format!("audit.jsonl.{number}")), format!("{number}\n")).unwrap();
        }
        std::fs::write(&path, "last\n").unwrap();
        (temp, path)
    }

    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn of_thousands_of_files_one_is_open_at_a_time() {
        const FILES: u32 = 300;
        let (_temp, path) = log(FILES);
        let before = open_files();
        let mut texts = Vec::new();
        for opened in Files::of(&path).unwrap() {
            let (_, file) = opened.unwrap();
            texts.push(std::io::read_to_string(file).unwrap());
            // Other tests of this process open files, too: a few.
            assert!(open_files() < before + 100, "{} files are open", open_files());
        }
        let expected = (1..=FILES).map(|number| format!("{number}\n")).chain(["last\n".into()]);
        assert_eq!(texts, expected.collect::<Vec<_>>());
        assert_eq!(Files::of(&path).unwrap().without(299).count(), 2);
        assert_eq!(Files::of(&path).unwrap().without(302).count(), 0);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let (temp, path) = log(1);
        let third = temp.path().join("audit.jsonl.3");
        let refused = || {
            let error = Files::of(&path).unwrap().find_map(Result::err).unwrap().to_string();
            assert!(error.contains("audit.jsonl.3 is not a regular file"), "{error}");
        };
        rustix::fs::mknodat(rustix::fs::CWD, &third, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        refused();
        std::fs::remove_file(&third).unwrap();
        symlink(temp.path().join("audit.jsonl.1"), &third).unwrap();
        refused();
        std::fs::remove_file(&third).unwrap();
        std::fs::create_dir(&third).unwrap();
        refused();
        // By its own name a log may be reached through a link.
        let link = temp.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(Files::of(&link).unwrap().count(), 1);
    }
}
