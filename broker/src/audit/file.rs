//! The log's file: opened, continued, cut where it is torn, rotated when it is full.
//!
//! Only whole batches become part of the chain: after a failed write or sync the file is cut back
//! to what was durable. Rotated files are `PATH.1`, `PATH.2` … in order; the chain runs through them.

use super::files::rotated;
use super::head::Head;
use super::key::AuditKey;
use super::record::{Kind, Record};
use super::scan::{self, Found};
use crate::clock::rfc3339;
use attache_core::audit::chain;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system said no.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process writes it.
    #[error("{0} is being written by another process: give each instance an audit log of its own")]
    InUse(PathBuf),
    /// A symbolic link, a directory or a device.
    #[error("{0} is not a regular file: a log is made of regular files, move it away")]
    NotAFile(PathBuf),
    /// Others may write to it, or own it.
    #[error("{0} can be changed by other users: make it yours, chmod 600 {0}")]
    Exposed(PathBuf),
    /// The file is no longer where, or as long as, we left it.
    #[error("{0} was removed, replaced or cut by somebody else")]
    Disturbed(PathBuf),
    /// A record that is not a JSON object on one line. Cannot happen with [`Record`].
    #[error("a record could not be written as a line")]
    NotALine,
}

/// The file that is being written.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    inode: (u64, u64),
    /// How much of it is durable, in bytes.
    len: u64,
    /// The hash of its last durable line.
    head: String,
    /// How many records all files hold together.
    count: u64,
    rotate_bytes: u64,
}

/// Room for a line, in bytes: most take less.
const LINE: usize = 1024;

/// How far the log is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The current file: its device and inode.
    pub file: (u64, u64),
    /// How much of it is durable, in bytes.
    pub len: u64,
}

impl LogFile {
    /// Opens the log at `path`, or begins it.
    pub fn open(path: &Path, rotate_bytes: u64) -> Result<(Self, Found), FileError> {
        let (file, inode) = open(path)?;
        let at = |cause| FileError::Io { path: path.to_owned(), cause };
        let mut found = scan::scan(path, &file).map_err(at)?;
        let (len, head, count) = (found.len, found.head.clone(), found.count);
        let log = Self { path: path.to_owned(), file, inode, len, head, count, rotate_bytes };
        found.torn = log.cut_torn_end().map_err(at)?;
        log.sync_dir().map_err(at)?;
        Ok((log, found))
    }

    /// The hash of the last durable line.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Seals the records and makes them durable, all or none. Checkpoints among them are signed.
    pub fn append(&mut self, records: &[Box<Record>], key: &AuditKey) -> Result<(), FileError> {
        self.check_undisturbed()?;
        let (mut head, mut count) = (self.head.clone(), self.count);
        let mut batch = String::with_capacity(records.len() * LINE);
        let mut line = Vec::with_capacity(LINE);
        for record in records {
            let text = match record.kind {
                Kind::Checkpoint => super::ascii::to_line(&mut line, &signed(record, count, &head, key)),
                _ => super::ascii::to_line(&mut line, record),
            };
            let text = text.map_err(|_| FileError::NotALine)?;
            head = chain::seal_onto(&mut batch, text, &head).map_err(|_| FileError::NotALine)?;
            batch.push('\n');
            count += 1;
        }
        let written = self.file.write_all(batch.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(cause) = written {
            // What may have got there was promised to nobody.
            let _ = self.file.set_len(self.len);
            return Err(FileError::Io { path: self.path.clone(), cause });
        }
        self.len += batch.len() as u64;
        self.head = head;
        self.count = count;
        Ok(())
    }

    /// Opens the file anew after a failure. The chain goes on from the last durable line, so that
    /// whatever was done to the file in between shows as a broken link.
    pub fn reopen(&mut self) -> Result<(), FileError> {
        let unlocked = self.file.unlock();
        let (file, inode) = open(&self.path)?;
        let at = |cause| FileError::Io { path: self.path.clone(), cause };
        unlocked.map_err(at)?;
        if inode == self.inode && file.metadata().map_err(at)?.len() > self.len {
            file.set_len(self.len).map_err(at)?;
        }
        let len = scan::good_bytes(&file).map_err(at)?;
        (self.file, self.inode, self.len) = (file, inode, len);
        let at = |cause| FileError::Io { path: self.path.clone(), cause };
        self.cut_torn_end().map_err(at)?;
        self.sync_dir().map_err(at)
    }

    fn check_undisturbed(&self) -> Result<(), FileError> {
        let at = |cause| FileError::Io { path: self.path.clone(), cause };
        let ours = self.file.metadata().map_err(at)?;
        if ours.nlink() == 0 || ours.len() != self.len {
            return Err(FileError::Disturbed(self.path.clone()));
        }
        Ok(())
    }

    /// Moves what follows the last good line into `PATH.torn`.
    fn cut_torn_end(&self) -> std::io::Result<Option<String>> {
        let excess = self.file.metadata()?.len().saturating_sub(self.len);
        if excess == 0 {
            return Ok(None);
        }
        let aside = suffixed(&self.path, "torn");
        let mut torn = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(NOFOLLOW).open(&aside)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.len))?;
        std::io::copy(&mut file.take(excess), &mut torn)?;
        torn.write_all(b"\n")?;
        torn.sync_all()?;
        self.file.set_len(self.len)?;
        self.file.sync_all()?;
        Ok(Some(format!("{excess} bytes of torn records were moved to {}", aside.display())))
    }

    /// How far it is durable.
    pub fn durable(&self) -> Durable {
        Durable { file: self.inode, len: self.len }
    }

    /// Whether a new file should be begun.
    pub fn is_full(&self) -> bool {
        self.len >= self.rotate_bytes
    }

    /// Begins a new file. A failure is no reason to stop writing to the old one.
    pub fn rotate(&mut self) -> Result<(), FileError> {
        let at = |cause| FileError::Io { path: self.path.clone(), cause };
        let number = rotated(&self.path).map_err(at)?.last().map_or(1, |(number, _)| number + 1);
        let aside = suffixed(&self.path, &number.to_string());
        std::fs::rename(&self.path, &aside).map_err(at)?;
        let (file, inode) = begun_or_back(&self.path, &aside, open)?;
        self.sync_dir().map_err(at)?;
        (self.file, self.inode, self.len) = (file, inode, 0);
        Ok(())
    }

    fn sync_dir(&self) -> std::io::Result<()> {
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    }
}

/// Begins a file where one was until it was put aside. Where that fails the old one is put back: whoever reads the log
/// looks for it by its name, and it is what is written to.
fn begun_or_back<T>(
    path: &Path,
    aside: &Path,
    begin: impl FnOnce(&Path) -> Result<T, FileError>,
) -> Result<T, FileError> {
    begin(path).inspect_err(|_| drop(std::fs::rename(aside, path)))
}

impl Drop for LogFile {
    /// Unlocks, rather than closes: a child that is being spawned may have the descriptor, too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Opens a file for appending, makes sure that it is ours to change alone, and locks it.
fn open(path: &Path) -> Result<(File, (u64, u64)), FileError> {
    let at = |cause| FileError::Io { path: path.to_owned(), cause };
    // O_NONBLOCK: a FIFO must not make us wait; O_NOFOLLOW: ELOOP for a link.
    let flags = NOFOLLOW | rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut options = OpenOptions::new();
    let opened = options.read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path);
    let file = match opened {
        Err(_) if path.is_symlink() || path.is_dir() => return Err(FileError::NotAFile(path.to_owned())),
        opened => opened.map_err(at)?,
    };
    let found = file.metadata().map_err(at)?;
    if !found.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    if found.mode() & 0o022 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(FileError::Exposed(path.to_owned()));
    }
    match file.try_lock() {
        Ok(()) => Ok((file, (found.dev(), found.ino()))),
        Err(TryLockError::WouldBlock) => Err(FileError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(at(cause)),
    }
}

/// A checkpoint of what stands before it.
fn signed(record: &Record, count: u64, head: &str, key: &AuditKey) -> Record {
    let Some(instance) = record.instance.clone() else { return record.clone() };
    let head = Head { instance, count, hash: head.to_owned(), timestamp: rfc3339(record.at_ms) };
    let signature = Some(head.sign(key).signature);
    Record { count: Some(count), key: Some(key.public().id()), signature, ..record.clone() }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_a_child_still_has_holds_no_lock() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit.jsonl");
        let (log, _) = LogFile::open(&path, u64::MAX).unwrap();
        let inherited = log.file.try_clone().unwrap();
        drop(log);
        assert!(LogFile::open(&path, u64::MAX).is_ok());
        drop(inherited);
    }

    #[test]
    fn a_file_that_cannot_be_begun_leaves_the_old_one_where_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (path, aside) = (temp.path().join("audit.jsonl"), temp.path().join("audit.jsonl.1"));
        std::fs::write(&aside, "old").unwrap();
        // What a disk without room for one more file does.
        let failed = begun_or_back(&path, &aside, |path| {
            File::create(path).unwrap();
            Err::<(), _>(FileError::NotAFile(path.to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), aside.exists()), ("old", false));
        begun_or_back(&path, &aside, |_| Ok(())).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    }

    fn append(log: &mut LogFile) -> Result<(), FileError> {
        log.append(&[Record::new(Kind::Start, 0).into()], &AuditKey::from_seed([1; 32]))
    }

    /// What a full disk and a failing one do, by descriptors that do the same: one that takes no
    /// write, and a pipe, which takes it and cannot be synced.
    #[test]
    fn what_cannot_be_written_or_synced_is_no_part_of_the_log_and_the_next_is() {
        let temp = tempfile::tempdir().unwrap();
        for (name, whole) in [("write.jsonl", 2), ("sync.jsonl", 1)] {
            let path = temp.path().join(name);
            let (mut log, _) = LogFile::open(&path, u64::MAX).unwrap();
            let (_reader, writer) = std::io::pipe().unwrap();
            let good = if name == "write.jsonl" {
                append(&mut log).unwrap();
                std::mem::replace(&mut log.file, File::open(&path).unwrap())
            } else {
                std::mem::replace(&mut log.file, std::os::fd::OwnedFd::from(writer).into())
            };
            let before = (log.len, log.head.clone(), log.count);
            assert!(matches!(append(&mut log), Err(FileError::Io { .. })), "{name}");
            assert_eq!((log.len, log.head.clone(), log.count), before, "{name}");
            good.unlock().unwrap();
            log.reopen().unwrap();
            append(&mut log).unwrap();
            let report = crate::audit::verify::verify(&path, &crate::audit::verify::Against::default()).unwrap();
            assert_eq!((report.broken, report.lines), (None, whole), "{name}");
        }
    }
}
