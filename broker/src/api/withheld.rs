//! What is kept from agents, held: a path may lead elsewhere by the time it is told, a descriptor does not.

use super::view::{HiddenDirectory, Identity};
use crate::config::OutOfReach;
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What is kept from agents.
pub struct Withheld {
    directories: Vec<(PathBuf, Option<OwnedFd>)>,
    /// Names of environment variables.
    pub variables: Vec<String>,
}

impl Withheld {
    /// Takes hold of the directories that are there.
    pub fn hold(out_of_reach: OutOfReach) -> Self {
        let directories = out_of_reach.directories.into_iter().map(|path| {
            let held = held(&path);
            (path, held)
        });
        Self { directories: directories.collect(), variables: out_of_reach.variables }
    }

    /// Each, and which one it is.
    pub fn directories(&self) -> Vec<HiddenDirectory> {
        let told = self.directories.iter().map(|(path, held)| HiddenDirectory {
            path: path.clone(),
            identity: held.as_ref().and_then(|held| fstat(held).ok()).map(|found| Identity::of(&found)),
        });
        told.collect()
    }
}

fn held(path: &Path) -> Option<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_told_by_what_it_is_and_not_by_its_path() {
        let temp = tempfile::tempdir().unwrap();
        let (path, absent) = (temp.path().join("state"), temp.path().join("absent"));
        std::fs::create_dir(&path).unwrap();
        let directories = vec![path.clone(), absent.clone()];
        let withheld = Withheld::hold(OutOfReach { directories, variables: Vec::new() });
        let before = withheld.directories();
        std::fs::rename(&path, temp.path().join("moved")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(withheld.directories(), before);
        let planted = Identity::of(&rustix::fs::stat(&path).unwrap());
        assert!(before[0].identity.is_some_and(|identity| identity != planted));
        assert_eq!(before[1], HiddenDirectory { path: absent, identity: None });
    }
}
