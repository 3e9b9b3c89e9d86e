//! Files: 0600 in a 0700 directory, regular, no links, at most 64 KiB, one final line break cut off; plain or sealed.

use super::{MOST, Mark, Reading, Source, SourceError};
use crate::private_file::{PrivateDir, PrivateError, Stamp};
use crate::seal::Sealer;
use attache_core::Secret;
use std::path::{Path, PathBuf};

/// One file. Every reading opens its directory anew: it may have been swapped.
pub struct SecretFile {
    path: PathBuf,
    sealer: Sealer,
}

impl SecretFile {
    pub(super) fn new(path: &Path, sealer: Sealer) -> Self {
        Self { path: path.to_owned(), sealer }
    }

    fn find(&self) -> Result<Option<Secret>, SourceError> {
        let Some((dir, name)) = self.split()? else { return Ok(None) };
        // Two bytes more than a secret may have: a final line break.
        let Some(bytes) = self.sealer.read(&dir, &name, MOST + 2)? else { return Ok(None) };
        let text = text(&bytes, || self.place())?;
        if text.len() > MOST {
            return Err(PrivateError::TooLong { path: self.path.clone(), most: MOST }.into());
        }
        Ok(Some(Secret::new(text)))
    }

    fn split(&self) -> Result<Option<(PrivateDir, String)>, PrivateError> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (self.path.parent(), name) else {
            return Err(PrivateError::NotAFile(self.path.clone()));
        };
        Ok(PrivateDir::open(parent)?.map(|dir| (dir, name.to_owned())))
    }

    fn stamp(&self) -> Option<Stamp> {
        self.split().ok()??.0.stamp(self.path.file_name()?.to_str()?).ok()
    }
}

/// The text of a file that somebody has written for us: one final line break is not of it.
pub fn text(bytes: &[u8], place: impl Fn() -> String) -> Result<&str, SourceError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SourceError::NotText(place()))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() { Err(SourceError::Empty(place())) } else { Ok(text) }
}

impl Source for SecretFile {
    fn read(&self) -> Reading<'_> {
        // A small local file: reading it here is quicker than handing it to another thread.
        Box::pin(async { Ok(self.find()?.map(Into::into)) })
    }

    fn mark(&self) -> Mark {
        Mark::File(self.stamp())
    }

    fn place(&self) -> String {
        format!("file {}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    fn secrets() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        set_permissions(temp.path(), Permissions::from_mode(0o700)).unwrap();
        temp
    }

    fn find(temp: &tempfile::TempDir, content: &[u8]) -> Result<Option<Secret>, SourceError> {
        let path = temp.path().join("token");
        write(&path, content).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        SecretFile::new(&path, Sealer::plain()).find()
    }

    fn text(found: Result<Option<Secret>, SourceError>) -> String {
        found.unwrap().unwrap().expose().to_owned()
    }

    #[test]
    fn one_final_line_break_is_cut_off() {
        let temp = secrets();
        for content in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(text(find(&temp, content.as_bytes())), "abc");
        }
        assert_eq!(text(find(&temp, b"abc\n\n")), "abc\n");
        assert_eq!(text(find(&temp, &[b'a'; MOST])).len(), MOST);
    }

    #[test]
    fn errors_name_the_place_and_never_the_content() {
        let temp = secrets();
        for content in [&b"s3cret\xff"[..], b"", b"\n", &[b's'; MOST + 1]] {
            let error = find(&temp, content).err().unwrap().to_string();
            assert!(error.contains("/token ") && !error.contains("s3cret") && !error.contains("sss"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_or_directory_is_absent() {
        let temp = secrets();
        assert!(matches!(SecretFile::new(&temp.path().join("none"), Sealer::plain()).find(), Ok(None)));
        assert!(matches!(SecretFile::new(&temp.path().join("none/none"), Sealer::plain()).find(), Ok(None)));
    }

    #[test]
    fn a_file_that_becomes_unreadable_gets_another_mark() {
        let temp = secrets();
        find(&temp, b"abc").unwrap();
        let source = SecretFile::new(&temp.path().join("token"), Sealer::plain());
        let before = source.mark();
        assert_eq!(before, source.mark());
        set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
        assert_ne!(before, source.mark());
    }
}
