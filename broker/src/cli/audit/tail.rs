//! `attache audit tail`: the last records, and those that come.

use super::show::plain;
use crate::audit::open_current;
use crate::cli::common::say;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Prints the last `lines` records; with `follow`, those that come, too.
pub async fn tail(path: &Path, lines: usize, follow: bool, json: bool) -> std::io::Result<ExitCode> {
    let mut file = open_current(path)?;
    let start = start_of_last(&mut file, lines)?;
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        while reader.read_line(&mut line)? > 0 {
            if line.ends_with('\n') {
                say(if json { line.trim_end().to_owned() } else { plain(&line) });
                line.clear();
            }
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
        // A full log is moved aside; the next records stand in a new file of the same name.
        let is_same = |now: std::fs::Metadata| Ok(now.ino() == reader.get_ref().metadata()?.ino());
        if !std::fs::metadata(path).and_then(is_same).unwrap_or(true) && reader.fill_buf()?.is_empty() {
            reader = BufReader::new(open_current(path)?);
        }
    }
}

/// Where the last `count` lines begin.
fn start_of_last(file: &mut File, count: usize) -> std::io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut at = file.metadata()?.len();
    let mut breaks = 0;
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(STEP);
        file.seek(SeekFrom::Start(from))?;
        block.clear();
        Read::by_ref(file).take(at - from).read_to_end(&mut block)?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The break of the last line ends it; that of the line before `count` lines begins them.
            if breaks == count {
                return Ok(from + offset as u64 + 1);
            }
            breaks += 1;
        }
        at = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_found_in_files_of_any_size() {
        let mut file = tempfile::tempfile().unwrap();
        for n in 0..3_000 {
            writeln!(file, "{n:>100}").unwrap();
        }
        for (count, start) in [(0, 3_000), (1, 2_999), (700, 2_300), (3_000, 0), (9_999, 0)] {
            assert_eq!(start_of_last(&mut file, count).unwrap(), start * 101, "{count}");
        }
    }
}
