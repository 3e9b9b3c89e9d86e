//! A command that makes secrets is run only where nobody else could have put another in its place.

use rustix::process::geteuid;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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
}

/// The program and every argument that is the absolute path of a file: a script is as good as its interpreter.
pub fn vet(argv: &[String]) -> Result<(), Unsafe> {
    for (index, word) in argv.iter().enumerate() {
        let path = Path::new(word);
        match path.metadata() {
            Ok(found) if found.is_file() => {
                if index == 0 && found.mode() & 0o111 == 0 {
                    return Err(Unsafe::NotAProgram(path.to_owned()));
                }
                // By the names in the config, and by those that links lead to.
                let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                is_ours(&real, &found)?;
                [path, &real].into_iter().flat_map(|path| path.ancestors().skip(1)).try_for_each(is_held)?;
            }
            Ok(_) if index == 0 => return Err(Unsafe::NotAProgram(path.to_owned())),
            Err(_) if index == 0 => return Err(Unsafe::Absent(path.to_owned())),
            // An argument that only looks like a file.
            _ => {}
        }
        if !path.is_absolute() && index == 0 {
            return Err(Unsafe::Absent(path.to_owned()));
        }
    }
    Ok(())
}

fn is_ours(path: &Path, found: &Metadata) -> Result<(), Unsafe> {
    owned(path, found)?;
    let mode = found.mode() & 0o7777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(Unsafe::Writable { path: path.to_owned(), mode }) }
}

/// A directory in which nobody else replaces what is ours. Root's may have a group of administrators; in a sticky one
/// each owner keeps what is his.
fn is_held(dir: &Path) -> Result<(), Unsafe> {
    let Ok(found) = dir.metadata() else { return Err(Unsafe::Absent(dir.to_owned())) };
    owned(dir, &found)?;
    let mode = found.mode() & 0o7777;
    let others = if found.uid() == 0 { 0o002 } else { 0o022 };
    let held = mode & others == 0 || mode & 0o1000 != 0;
    if held { Ok(()) } else { Err(Unsafe::Writable { path: dir.to_owned(), mode }) }
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

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_command_that_others_could_replace_is_not_run() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bin");
        create_dir(&dir).unwrap();
        let program = dir.join("rotate");
        write(&program, "#!/bin/sh\n").unwrap();
        let judge = |word: &Path| vet(&[word.to_str().unwrap().to_owned()]);
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
        assert_eq!(vet(&argv), Ok(()));
        chmod(&script, 0o666);
        assert!(matches!(vet(&argv), Err(Unsafe::Writable { mode: 0o666, .. })));
    }
}
