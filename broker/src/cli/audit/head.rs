//! `attache audit head`: how far the log reaches, signed with the instance's key.

use crate::audit::head::Head;
use crate::audit::key::AuditKey;
use crate::audit::verify::{Against, verify};
use crate::cli::common::{Common, FAILED, complain, say};
use crate::cli::config;
use crate::clock::{Now, rfc3339};
use crate::private_file::PrivateDir;
use std::path::Path;
use std::process::ExitCode;

/// Verifies the log, and prints its head as an anchor. A broken log has none.
pub fn head(path: &Path, after: Option<String>, common: &Common) -> std::io::Result<ExitCode> {
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let key = match PrivateDir::open(&config.state_dir).map_err(Into::into).and_then(|dir| match dir {
        Some(dir) => AuditKey::open(&dir),
        None => Ok(None),
    }) {
        Ok(Some(key)) => key,
        Ok(None) => {
            let dir = config.state_dir.display();
            return Ok(complain(
                FAILED,
                format_args!("{dir} has no audit.key: the broker makes it at its first start"),
            ));
        }
        Err(error) => return Ok(complain(FAILED, error)),
    };
    let report = verify(path, &Against { after, keys: vec![key.public()], head: None, patience: super::PATIENCE })?;
    if let Some(found) = &report.broken {
        let (file, line, why) = (found.file.display(), found.line, found.why);
        return Ok(complain(FAILED, format_args!("{file}:{line}: {why}\nA broken log has no head to keep.")));
    }
    let timestamp = rfc3339(Now::read().wall_ms);
    let head =
        Head { instance: config.instance, count: report.count.unwrap_or(report.lines), hash: report.head, timestamp };
    let anchor = head.sign(&key);
    if common.json {
        say(serde_json::to_string_pretty(&anchor).unwrap_or_default());
    } else {
        say(&anchor);
    }
    Ok(ExitCode::SUCCESS)
}
