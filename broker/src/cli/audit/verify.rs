//! `attache audit verify`: every line, every signature, and what is known from elsewhere.

use crate::audit::head::Anchor;
use crate::audit::key::{PUBLIC, PublicKey};
use crate::audit::verify::{Against, Known, Report, verify};
use crate::cli::common::{Common, FAILED, complain, say};
use crate::cli::config;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the log is held against
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The hash before the first record, where older files have been moved away
    #[arg(long, value_name = "HASH")]
    after: Option<String>,
    /// What `attache audit head` printed, or the hash of any record: nothing up to there is missing
    #[arg(long, value_name = "ANCHOR")]
    head: Option<String>,
    /// A public key that may have signed, in PEM; may be repeated [default: audit.pub in the state
    /// directory, else the one beside the log]
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

/// Verifies the log and says what was found.
pub fn check(path: &Path, args: VerifyArgs, common: &Common) -> std::io::Result<ExitCode> {
    let keys = match keys(path, &args.keys, common) {
        Ok(keys) => keys,
        Err(complaint) => return Ok(complain(FAILED, complaint)),
    };
    let head = match args.head.as_deref().map(|head| known(head, &keys)).transpose() {
        Ok(head) => head,
        Err(complaint) => return Ok(complain(FAILED, format_args!("--head: {complaint}"))),
    };
    let anchored = head.is_some();
    let report = verify(path, &Against { after: args.after, keys, head, patience: super::PATIENCE })?;
    if common.json {
        say(serde_json::to_string_pretty(&report).unwrap_or_default());
        return Ok(if report.broken.is_none() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    Ok(match &report.broken {
        None => {
            say(told(&report, anchored));
            ExitCode::SUCCESS
        }
        Some(found) => complain(FAILED, format_args!("{}:{}: {}", found.file.display(), found.line, found.why)),
    })
}

fn told(report: &Report, anchored: bool) -> String {
    let by = match report.checkpoints {
        1 => "1 checkpoint".to_owned(),
        n => format!("{n} checkpoints"),
    };
    let signed = match (report.unsigned, report.checkpoints) {
        (Some(0), _) => format!("all signed, by {by}"),
        (Some(unsigned), _) => format!(
            "signed by {by} but for the last {unsigned}, which the next one signs: until then they prove no more than the \
             file does"
        ),
        (None, 0) => "not signed".to_owned(),
        (None, _) => format!("{by} NOT checked, for there is no key here: name it with --key"),
    };
    let complete = if anchored { "; nothing is missing up to the given head" } else { "" };
    format!("{} records, unbroken, {signed}{complete}; the last hash is {}", report.lines, report.head)
}

/// The keys named, or the one that can be found.
fn keys(path: &Path, named: &[PathBuf], common: &Common) -> Result<Vec<PublicKey>, String> {
    let read = |file: &PathBuf| {
        let pem = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        PublicKey::parse(&pem).map_err(|error| format!("{}: {error}", file.display()))
    };
    if !named.is_empty() {
        return named.iter().map(read).collect();
    }
    let of_instance = config::try_load(common).ok().map(|config| config.state_dir.join(PUBLIC));
    let found = [of_instance, Some(path.with_file_name(PUBLIC))];
    let mut found: Vec<_> = found.into_iter().flatten().filter(|file| file.exists()).collect();
    // Who can put a log there can put a key beside it: that one counts only where there is no other.
    found.truncate(1);
    found.iter().map(read).collect()
}

/// What is known from elsewhere: an anchor, whose signature is checked, or a bare hash.
fn known(text: &str, keys: &[PublicKey]) -> Result<Known, String> {
    let text = text.trim();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Known { hash: text.to_owned(), count: None });
    }
    let anchor: Anchor = text.parse().map_err(|error| format!("{error}, or the hash of a record"))?;
    if !keys.is_empty() {
        anchor.check(keys).map_err(|_| "this anchor was not signed by the key of this log".to_owned())?;
    }
    Ok(Known { hash: anchor.head.hash, count: Some(anchor.head.count) })
}
