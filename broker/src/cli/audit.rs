//! `attache audit …`: reads the log itself; no broker has to run.

use super::common::{Common, FAILED, complain, say};
use super::config;
use crate::audit::verify::verify;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The audit log: what was used, refused, issued and changed
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// Print the last records
    Tail {
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: usize,
        /// Go on as records come
        #[arg(short, long)]
        follow: bool,
        /// The log [default: the config's]
        #[arg(long, value_name = "FILE")]
        path: Option<std::path::PathBuf>,
    },
    /// Check that no record was changed, dropped, inserted or swapped
    Verify {
        /// The log [default: the config's]
        #[arg(long, value_name = "FILE")]
        path: Option<std::path::PathBuf>,
        /// The hash before the first record, where older files have been moved away
        #[arg(long, value_name = "HASH")]
        after: Option<String>,
    },
}

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Does what the arguments say.
pub async fn run(args: AuditArgs, common: &Common) -> ExitCode {
    let (AuditCommand::Tail { path, .. } | AuditCommand::Verify { path, .. }) = &args.command;
    let path = match path {
        Some(path) => path.clone(),
        None => match config::load(common) {
            Ok(config) => config.audit.path,
            Err(code) => return code,
        },
    };
    let done = match args.command {
        AuditCommand::Tail { lines, follow, .. } => tail(&path, lines, follow, common.json).await,
        AuditCommand::Verify { after, .. } => check(&path, after, common.json),
    };
    done.unwrap_or_else(|error| complain(FAILED, format_args!("{}: {error}", path.display())))
}

fn check(path: &Path, after: Option<String>, json: bool) -> std::io::Result<ExitCode> {
    let report = verify(path, after)?;
    if json {
        say(serde_json::to_string_pretty(&report).unwrap_or_default());
        return Ok(if report.broken.is_none() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    Ok(match &report.broken {
        None => {
            say(format_args!("{} records, unbroken; the last hash is {}", report.lines, report.head));
            ExitCode::SUCCESS
        }
        Some(found) => complain(FAILED, format_args!("{}:{}: {}", found.file.display(), found.line, found.why)),
    })
}

async fn tail(path: &Path, lines: usize, follow: bool, json: bool) -> std::io::Result<ExitCode> {
    let mut file = File::open(path)?;
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
            reader = BufReader::new(File::open(path)?);
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

/// A record for people: what happened, to whom, why.
fn plain(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return visible(line.trim_end()) };
    let text = |field: &str| match record.get(field) {
        Some(Value::String(text)) => visible(text),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    // Where the request went says more than how the agent spelled it.
    let destination = text("destination");
    let place = if destination.is_empty() { text("authority") } else { destination };
    let where_to = format!("{place}{}", text("path"));
    let fields = [
        text("timestamp"),
        format!("{:6}", text("kind")),
        text("session"),
        text("access_mode"),
        text("method"),
        where_to,
        text("response_code"),
        text("decision"),
        text("reason"),
        text("credential"),
        text("lease_id"),
    ];
    fields.into_iter().filter(|field| !field.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Text in printable ASCII, as the log itself writes it: agents chose some of it, and none of it
/// shall steer a terminal.
fn visible(text: &str) -> String {
    let escape = |c: char| match c {
        ' '..='~' => String::from(c),
        _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    text.chars().map(escape).collect()
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

    #[test]
    fn a_record_is_told_in_one_line() {
        let line = r#"{"timestamp":"T","kind":"deny","method":"GET","path":"/x","authority":"a.test","response_code":403,"reason":"read_only"}"#;
        assert_eq!(plain(line), "T deny   GET a.test/x 403 read_only");
    }

    #[test]
    fn what_an_agent_chose_steers_no_terminal() {
        assert_eq!(plain(r#"{"kind":"deny","path":"/\u001b[31m\u009b\u202e"}"#), r"deny   /\u001b[31m\u009b\u202e");
        assert_eq!(plain("no JSON \u{1b}c\n"), r"no JSON \u001bc");
    }
}
