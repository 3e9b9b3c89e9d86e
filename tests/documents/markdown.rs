//! As much Markdown as our documents use: prose, fenced blocks, code spans, links, headings, tables.

use std::path::{Path, PathBuf};

use super::{at, read};

/// One document.
pub struct Document {
    /// From the root.
    pub path: PathBuf,
    /// Lines outside fenced blocks, numbered from 1.
    pub prose: Vec<(usize, String)>,
    /// Fenced blocks.
    pub blocks: Vec<Block>,
}

/// A fenced block.
pub struct Block {
    /// What stands after the fence: `sh runnable`.
    pub info: String,
    /// Its content.
    pub text: String,
    /// The line of its fence, from 1.
    pub line: usize,
}

impl Document {
    pub fn read(path: &Path) -> Self {
        let text = read(&at(&path.to_string_lossy()));
        let (mut prose, mut blocks, mut open) = (Vec::new(), Vec::new(), None::<Block>);
        for (index, line) in text.lines().enumerate() {
            match (open.take(), line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some(Block { info: info.trim().to_owned(), text: String::new(), line: index + 1 });
                }
                (None, None) => prose.push((index + 1, line.to_owned())),
                (Some(block), Some(_)) => blocks.push(block),
                (Some(mut block), None) => {
                    block.text += line;
                    block.text.push('\n');
                    open = Some(block);
                }
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", path.display());
        Self { path: path.to_owned(), prose, blocks }
    }

    /// `FILE:LINE`, for complaints.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// All code spans, with their lines.
    pub fn spans(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose.iter().flat_map(|(line, text)| spans(text).into_iter().map(|span| (*line, span)))
    }

    /// The targets of all links and pictures.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (line, text) in &self.prose {
            let plain = without_spans(text);
            for after in plain.split("](").skip(1) {
                found.extend(after.split(')').next().map(|target| (*line, target.to_owned())));
            }
        }
        found
    }

    /// The anchors of its headings, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose.iter().filter(|(_, text)| text.starts_with('#'));
        headings.map(|(_, text)| anchor(text.trim_start_matches('#').trim())).collect()
    }

    /// The cells of all table rows, with their lines; separators left out.
    pub fn rows(&self) -> impl Iterator<Item = (usize, Vec<&str>)> {
        let rows = self.prose.iter().filter(|(_, text)| text.starts_with('|') && !text.starts_with("|-"));
        rows.map(|(line, text)| (*line, text.trim_matches('|').split(" | ").map(str::trim).collect()))
    }
}

/// The code spans of one line.
pub fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn without_spans(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
