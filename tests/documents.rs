//! What the documents say is there, is there; what they show, works; and the house is as they tell.
//!
//! Reads the repository and runs the built `attache`; writes to a temporary directory only.

#[path = "documents/examples.rs"]
mod examples;
#[path = "documents/house.rs"]
mod house;
#[path = "documents/markdown.rs"]
mod markdown;
#[path = "documents/names.rs"]
mod names;
#[path = "documents/tables.rs"]
mod tables;

use std::path::{Path, PathBuf};

use attache_tests::util::workspace_root;
use markdown::Document;

/// What lies in the repository and nobody wrote.
const NOT_OURS: [&str; 6] = ["target", ".git", ".venv", ".tools", ".attache", "node_modules"];

/// A file of the repository, as its path from the root.
fn at(path: &str) -> PathBuf {
    workspace_root().join(path)
}

/// A file's text; empty where it is no text.
fn read(path: &Path) -> String {
    std::fs::read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// All files that somebody wrote, as paths from the root.
fn files() -> Vec<PathBuf> {
    let root = workspace_root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the repository").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            // In a worktree .git is a file.
            if NOT_OURS.contains(&name.to_string_lossy().as_ref()) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(&root).expect("a path below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// All Rust sources below one of these directories.
fn sources(dirs: &[&str]) -> Vec<(PathBuf, String)> {
    let wanted = |path: &PathBuf| {
        dirs.iter().any(|dir| path.starts_with(dir)) && path.extension().is_some_and(|extension| extension == "rs")
    };
    files().into_iter().filter(wanted).map(|path| (path.clone(), read(&workspace_root().join(path)))).collect()
}

/// All documents, parsed.
fn documents() -> Vec<Document> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let documents: Vec<_> = files().into_iter().filter(is_document).map(|path| Document::read(&path)).collect();
    assert!(documents.len() >= 12, "the documents are not where they are looked for");
    documents
}

/// Fails with all complaints at once, each with its file and line.
#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
