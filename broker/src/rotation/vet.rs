//! A command that makes secrets is run only where nobody else could have put another in its place.

use crate::config::rotation::SHARED;
use rustix::fs::{Access, access};
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Why a command is not run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// Not there.
    #[error("{0} is not there")]
    Absent(PathBuf),
    /// No program.
    #[error("{0} is no file that can be executed")]
    NotAProgram(PathBuf),
    /// Somebody else owns it.
    #[error("{path} belongs to user {owner}, who is neither root nor the broker's user")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write it.
    #[error("{path} can be written by others (mode {mode:04o})")]
    Writable {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// In a directory that no agent is kept from.
    #[error(
        "{0} lies in a directory that agents have, too, where more than root may change it: put it in a directory of \
         its own"
    )]
    Shared(PathBuf),
}

/// The most links that lead to one file, as in the kernel.
const MOST_LINKS: usize = 40;

/// Where commands run: arguments that are relative are so to this.
pub const RUNS_IN: &str = "/";

/// What is run for these words. The program, and every argument that names a file, is the one that links lead to: a
/// script is as good as its interpreter, and a name that is looked up twice can lead elsewhere the second time.
pub fn vet(argv: &[String]) -> Result<Vec<PathBuf>, Unsafe> {
    argv.iter().enumerate().map(|(index, word)| if index == 0 { program(word) } else { argument(word) }).collect()
}

fn program(word: &str) -> Result<PathBuf, Unsafe> {
    let absent = || Unsafe::Absent(word.into());
    let way = Some(word).filter(|word| word.starts_with('/')).and_then(Way::to).ok_or_else(absent)?;
    let found = way.real.symlink_metadata().map_err(|_| absent())?;
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(Unsafe::NotAProgram(way.real));
    }
    way.judge(&found)?;
    Ok(way.real)
}

fn argument(word: &str) -> Result<PathBuf, Unsafe> {
    match Way::to_file(word) {
        Some((way, found)) => way.judge(&found).map(|()| way.real),
        // It only looks like one.
        None => Ok(word.into()),
    }
}

/// Directories by which somebody who may write there would change what a word of a command is.
pub fn directories(word: &str) -> Vec<PathBuf> {
    let written = Path::new(word).parent().filter(|_| word.starts_with('/'));
    let is_shared = written.is_some_and(is_shared);
    let way = Way::to_file(word).map(|(way, _)| way);
    // Whoever is root writes what is root's. In directories that everybody needs there is nothing to save then.
    let is_safe = |entry: &Path| (is_shared || !geteuid().is_root()) && is_roots_alone(entry);
    let entries = way.iter().flat_map(|way| way.links.iter().chain([&way.real])).filter(|entry| !is_safe(entry));
    let parents = written.into_iter().chain(entries.filter_map(|entry| entry.parent()));
    parents.filter(|dir| !self::is_shared(dir)).map(Path::to_owned).collect()
}

fn is_shared(dir: &Path) -> bool {
    SHARED.iter().any(|shared| dir == Path::new(shared))
}

/// How a name is found.
struct Way {
    /// Where it ends: no part of it is a link.
    real: PathBuf,
    /// Directories in which a name was looked up, in that order, without links.
    dirs: Vec<PathBuf>,
    /// Links that were followed, each by a name without others.
    links: Vec<PathBuf>,
}

impl Way {
    /// `None`: there is nothing, or what is there is another thing for each process (`/dev/stdin`).
    fn to(word: &str) -> Option<Self> {
        let mut way = Self { real: RUNS_IN.into(), dirs: Vec::new(), links: Vec::new() };
        let mut ahead = names(Path::new(word));
        while let Some(name) = ahead.pop() {
            if name == ".." {
                way.real.pop();
                continue;
            }
            let next = way.real.join(name);
            let is_link = next.symlink_metadata().ok()?.is_symlink();
            if !way.dirs.contains(&way.real) {
                way.dirs.push(way.real.clone());
            }
            if !is_link {
                way.real = next;
                continue;
            }
            if way.links.len() == MOST_LINKS || next.starts_with("/proc") {
                return None;
            }
            let target = next.read_link().ok()?;
            if target.is_absolute() {
                way.real = "/".into();
            }
            ahead.extend(names(&target));
            way.links.push(next);
        }
        Some(way)
    }

    /// The same, if it leads to a file.
    fn to_file(word: &str) -> Option<(Self, Metadata)> {
        let way = Self::to(word)?;
        let found = way.real.symlink_metadata().ok().filter(Metadata::is_file)?;
        Some((way, found))
    }

    /// Nobody else has a hand in it: not in the file, nor in any directory or link on the way.
    fn judge(&self, found: &Metadata) -> Result<(), Unsafe> {
        self.dirs.iter().try_for_each(|dir| is_held(dir))?;
        self.links.iter().try_for_each(|link| is_our_link(link))?;
        is_ours(&self.real, found)?;
        let mut shared = self.links.iter().chain([&self.real]).filter(|entry| entry.parent().is_some_and(is_shared));
        match shared.find(|entry| !is_roots_alone(entry)) {
            Some(entry) => Err(Unsafe::Shared(entry.clone())),
            None => Ok(()),
        }
    }
}

/// The names in a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|name| name.as_os_str().to_owned()).collect()
}

/// A link of ours, in a directory where others write nothing: what is sticky does not count.
fn is_our_link(link: &Path) -> Result<(), Unsafe> {
    owned(link, &look(link)?)?;
    let dir = link.parent().unwrap_or(link);
    let mode = writable(&look(dir)?);
    mode.map_or(Ok(()), |mode| Err(Unsafe::Writable { path: dir.to_owned(), mode }))
}

/// Whether only root changes it, or puts another in its place.
fn is_roots_alone(entry: &Path) -> bool {
    let is_roots = |path: &Path, others: u32| {
        let found = path.symlink_metadata().ok()?;
        let closed = found.is_symlink() || found.mode() & others == 0 && !may_write(path);
        Some(found.uid() == 0 && closed)
    };
    let is_roots = |path: &Path, others| is_roots(path, others).unwrap_or(false);
    let mut dirs = entry.parent().into_iter().flat_map(Path::ancestors);
    // A group of administrators counts as root, unless we are in it.
    is_roots(entry, 0o022) && dirs.all(|dir| is_roots(dir, 0o002))
}

/// Whether we may, without being root.
fn may_write(path: &Path) -> bool {
    !geteuid().is_root() && access(path, Access::WRITE_OK).is_ok()
}

fn is_ours(path: &Path, found: &Metadata) -> Result<(), Unsafe> {
    owned(path, found)?;
    let mode = found.mode() & 0o7777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(Unsafe::Writable { path: path.to_owned(), mode }) }
}

/// A directory in which nobody else replaces what is ours. In a sticky one each owner keeps what is his.
fn is_held(dir: &Path) -> Result<(), Unsafe> {
    let found = look(dir)?;
    owned(dir, &found)?;
    match writable(&found) {
        Some(mode) if mode & 0o1000 == 0 => Err(Unsafe::Writable { path: dir.to_owned(), mode }),
        _ => Ok(()),
    }
}

/// The mode of a directory that others may write. Root's may have a group of administrators.
fn writable(found: &Metadata) -> Option<u32> {
    let others = if found.uid() == 0 { 0o002 } else { 0o022 };
    Some(found.mode() & 0o7777).filter(|mode| mode & others != 0)
}

fn look(path: &Path) -> Result<Metadata, Unsafe> {
    path.symlink_metadata().map_err(|_| Unsafe::Absent(path.to_owned()))
}

fn owned(path: &Path, found: &Metadata) -> Result<(), Unsafe> {
    let owner = found.uid();
    if owner == 0 || owner == geteuid().as_raw() {
        Ok(())
    } else {
        Err(Unsafe::Foreign { path: path.to_owned(), owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn judge(word: &Path) -> Result<(), Unsafe> {
        vet(&[word.to_str().unwrap().to_owned()]).map(drop)
    }

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_command_that_others_could_replace_is_not_run() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap().join("bin");
        create_dir(&dir).unwrap();
        let program = dir.join("rotate");
        write(&program, "#!/bin/sh\n").unwrap();
        chmod(&program, 0o700);
        chmod(&dir, 0o755);
        assert_eq!(judge(&program), Ok(()));
        for mode in [0o702, 0o720, 0o777] {
            chmod(&program, mode);
            assert_eq!(judge(&program), Err(Unsafe::Writable { path: program.clone(), mode }));
        }
        chmod(&program, 0o600);
        assert_eq!(judge(&program), Err(Unsafe::NotAProgram(program.clone())));
        chmod(&program, 0o755);
        let link = temp.path().join("link");
        symlink(&program, &link).unwrap();
        assert_eq!(judge(&link), Ok(()));
        chmod(&dir, 0o757);
        for word in [&program, &link] {
            let found = judge(word).unwrap_err();
            assert!(matches!(&found, Unsafe::Writable { path, .. } if path.ends_with("bin")), "{found:?}");
        }
        // A sticky directory keeps what is ours in it, as /tmp does.
        chmod(&dir, 0o1777);
        assert_eq!(judge(&program), Ok(()));
        assert_eq!(judge(Path::new("rotate")), Err(Unsafe::Absent("rotate".into())));
        assert_eq!(judge(&dir), Err(Unsafe::NotAProgram(dir.clone())));
        assert_eq!(judge(&dir.join("none")), Err(Unsafe::Absent(dir.join("none"))));
    }

    #[test]
    fn a_script_is_judged_behind_its_interpreter() {
        let temp = tempfile::tempdir().unwrap();
        let script = temp.path().join("rotate.sh");
        write(&script, "").unwrap();
        let argv = ["/bin/sh".to_owned(), script.to_str().unwrap().to_owned(), "/no/such".into(), "-x".into()];
        chmod(&script, 0o600);
        assert!(vet(&argv).is_ok());
        chmod(&script, 0o666);
        assert!(matches!(vet(&argv), Err(Unsafe::Writable { mode: 0o666, .. })));
        // Where it runs, not where the broker was started.
        let relative = script.to_str().unwrap().trim_start_matches('/').to_owned();
        let argv = ["/bin/sh".to_owned(), relative];
        assert!(matches!(vet(&argv), Err(Unsafe::Writable { mode: 0o666, .. })));
        chmod(&script, 0o600);
        assert_eq!(vet(&argv).unwrap()[1], script.canonicalize().unwrap());
    }

    #[test]
    fn what_is_run_is_what_was_judged_and_no_link() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for dir in ["bin", "between", "real"] {
            create_dir(root.join(dir)).unwrap();
            chmod(&root.join(dir), 0o755);
        }
        let (program, link) = (root.join("real/rotate"), root.join("bin/rotate"));
        write(&program, "#!/bin/sh\n").unwrap();
        chmod(&program, 0o755);
        symlink("../real/rotate", root.join("between/now")).unwrap();
        symlink("../between/now", &link).unwrap();
        let word = |path: &Path| path.to_str().unwrap().to_owned();
        let argv = [word(&link), word(&link), "-x".into(), "/no/such".into(), "a b".into(), "/dev/stdin".into()];
        let expected = [&word(&program), &word(&program), "-x", "/no/such", "a b", "/dev/stdin"];
        assert_eq!(vet(&argv).unwrap(), expected.map(PathBuf::from));
        // Who may write where a link in between lies leads it where he wants; sticky or not.
        for mode in [0o777, 0o1777] {
            chmod(&root.join("between"), mode);
            assert_eq!(judge(&link), Err(Unsafe::Writable { path: root.join("between"), mode }));
            assert!(matches!(vet(&["/bin/sh".into(), word(&link)]), Err(Unsafe::Writable { .. })));
        }
        chmod(&root.join("between"), 0o755);
        assert_eq!(judge(&link), Ok(()));
        // Only root gives a link away.
        if geteuid().is_root() {
            let between = root.join("between/now");
            std::os::unix::fs::lchown(&between, Some(65_534), None).unwrap();
            assert_eq!(judge(&link), Err(Unsafe::Foreign { path: between, owner: 65_534 }));
        }
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(judge(&root.join("loop")), Err(Unsafe::Absent(root.join("loop"))));
    }

    #[test]
    fn what_lies_where_agents_are_is_run_only_if_it_is_roots_alone() {
        assert!(vet(&["/bin/sh".into(), "/usr/bin/env".into()]).is_ok());
        let shared = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempfile_in("/tmp").unwrap();
        let found = judge(shared.path()).unwrap_err();
        assert_eq!(found, Unsafe::Shared(shared.path().to_owned()));
        assert!(found.to_string().ends_with("put it in a directory of its own"));
        let word = shared.path().to_str().unwrap().to_owned();
        assert_eq!(vet(&["/bin/sh".into(), word]), Err(found));
        let own = tempfile::tempdir_in("/tmp").unwrap();
        symlink("/bin/sh", own.path().join("sh")).unwrap();
        assert_eq!(judge(&own.path().join("sh")), Ok(()));
    }
}
