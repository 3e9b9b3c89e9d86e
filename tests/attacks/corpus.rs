//! All cases: `tests/corpus/CLASS/NAME.case`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attache_tests::util::workspace_root;

use crate::case::Case;

/// The classes: the directory's name, and what an attack of it wants.
pub const CLASSES: [(&str, &str); 10] = [
    ("destination", "a credential at a host that it is not bound to"),
    ("echo", "the credential itself, out of an upstream's answer"),
    ("smuggled", "a credential by another door: a second one, a placeholder in another place, a rewritten request"),
    ("malformed", "the end of the filter's VM, or a request that two servers read differently"),
    ("path", "a path that a credential is not bound to"),
    ("read-only", "a write by a session that may only read"),
    ("identity", "to be somebody else, or nobody"),
    ("broker", "the broker's own doors"),
    ("interception", "the forward proxy: its door, its tunnels, the TLS that it ends"),
    ("upstream-tls", "a credential at a server that cannot prove its name"),
];

/// Where the cases lie, from the root of the repository.
pub const DIRECTORY: &str = "tests/corpus";

/// Reads all cases, by class and name.
///
/// # Errors
/// Every complaint about every file.
pub fn read() -> Result<Vec<Case>, Vec<String>> {
    read_from(&workspace_root().join(DIRECTORY))
}

/// Reads the cases of a directory.
///
/// # Errors
/// Every complaint about every file.
pub fn read_from(root: &Path) -> Result<Vec<Case>, Vec<String>> {
    let (mut cases, mut wrong) = (BTreeMap::new(), Vec::new());
    for directory in entries(root).into_iter().filter(|path| path.is_dir()) {
        let class = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !CLASSES.iter().any(|(name, _)| *name == class) {
            let classes = CLASSES.map(|(name, _)| name).join(", ");
            wrong.push(format!("{}: there is no class {class:?}: move it to one of {classes}", shown(&directory)));
            continue;
        }
        for file in entries(&directory) {
            if file.extension().is_none_or(|extension| extension != "case") {
                wrong.push(format!("{}: a case is one file: call it NAME.case", shown(&file)));
                continue;
            }
            let text = std::fs::read_to_string(&file);
            match text
                .map_err(|why| format!("{}: {why}", shown(&file)))
                .and_then(|text| Case::parse(&shown_path(&file), &text))
            {
                Ok(case) => {
                    cases.insert((place_of(&case.class), case.name.clone()), case);
                }
                Err(why) => wrong.push(why),
            }
        }
    }
    if wrong.is_empty() { Ok(cases.into_values().collect()) } else { Err(wrong) }
}

fn place_of(class: &str) -> usize {
    CLASSES.iter().position(|(name, _)| *name == class).unwrap_or(CLASSES.len())
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(directory).unwrap_or_else(|why| panic!("{}: {why}", directory.display()));
    let mut paths: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn shown_path(path: &Path) -> PathBuf {
    path.strip_prefix(workspace_root()).unwrap_or(path).to_owned()
}

fn shown(path: &Path) -> String {
    shown_path(path).display().to_string()
}
