//! What is mounted in this namespace (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The number of its file system.
    pub device: String,
    /// What of that is mounted, as a path in it.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// The kind of its file system.
    pub kind: String,
}

/// All of them, in the order in which they were mounted.
pub fn all() -> io::Result<Vec<Mounted>> {
    Ok(std::fs::read(MOUNTS)?.split(|byte| *byte == b'\n').filter_map(read).collect())
}

/// Where something is to be seen, too.
#[derive(Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The path.
    pub path: PathBuf,
    /// All of it, or what lies in it.
    pub whole: bool,
}

/// Where what is at a path is to be seen, too, for its file system, or a part of it, is mounted in more than one place.
pub fn elsewhere(path: &Path) -> io::Result<Vec<Elsewhere>> {
    let all = all()?;
    // Of those at one path the last one is to be seen.
    let holds = all.iter().filter(|mounted| path.starts_with(&mounted.at));
    let Some(own) = holds.max_by_key(|mounted| mounted.at.components().count()) else { return Ok(Vec::new()) };
    let inner = own.root.join(path.strip_prefix(&own.at).unwrap_or(path));
    let others = all.iter().filter(|other| other.device == own.device);
    let paths = others.filter_map(|other| match inner.strip_prefix(&other.root) {
        Ok(rest) => Some(Elsewhere { path: other.at.components().chain(rest.components()).collect(), whole: true }),
        Err(_) => other.root.starts_with(&inner).then(|| Elsewhere { path: other.at.clone(), whole: false }),
    });
    Ok(paths.filter(|found| found.path != path).collect())
}

/// `36 35 98:0 /root /at rw,noatime shared:1 - ext4 /dev/sda rw`, with any number of words before the dash.
fn read(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let device = text(words.nth(2)?);
    let (root, at) = (PathBuf::from(unescaped(words.next()?)), PathBuf::from(unescaped(words.next()?)));
    let kind = text(words.skip_while(|word| *word != b"-").nth(1)?);
    Some(Mounted { device, root, at, kind })
}

/// Spaces and the like are there as `\040`.
fn unescaped(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_whatever_its_path_and_however_it_is_shared() {
        let read = |line: &str| read(line.as_bytes()).map(|found| (found.at.display().to_string(), found.kind));
        let whole = super::read(b"36 35 98:0 /a\\040b /mnt2 rw - ext3 /dev/root rw").unwrap();
        assert_eq!((whole.device.as_str(), whole.root.as_path()), ("98:0", Path::new("/a b")));
        let of = |at: &str, kind: &str| Some((at.to_owned(), kind.to_owned()));
        assert_eq!(read("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw"), of("/mnt2", "ext3"));
        assert_eq!(read(r"3 2 0:5 / /a\040b\134c ro - tmpfs none rw"), of(r"/a b\c", "tmpfs"));
        assert_eq!(read("3 2 0:5 / /x\\01 rw shared:2 master:1 - proc proc rw"), of("/x\\01", "proc"));
        assert_eq!(read(""), None);
        assert!(all().unwrap().iter().any(|mounted| mounted.kind == "proc"));
    }
}
