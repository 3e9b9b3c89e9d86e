//! `attache audit head`: how far the log reaches, signed with the instance's key.

use crate::audit::head::Head;
use crate::audit::key::{AuditKey, KeyError};
use crate::audit::verify::{Against, verify};
use crate::cli::common::{Common, FAILED, complain, say};
use crate::cli::config;
use crate::clock::{Now, rfc3339};
use crate::config::Config;
use crate::private_file::{PrivateDir, PrivateError};
use crate::seal::Safe;
use crate::seal::unlock::{First, UnlockError, unlock};
use crate::sources::Environment;
use std::path::Path;
use std::process::ExitCode;

/// Verifies the log, and prints its head as an anchor. A broken log has none.
pub async fn head(path: &Path, after: Option<String>, common: &Common) -> std::io::Result<ExitCode> {
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let key = match key(&config).await {
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

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
enum NoKey {
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Private(#[from] PrivateError),
}

/// The instance's key. The broker may run: nothing is written.
async fn key(config: &Config) -> Result<Option<AuditKey>, NoKey> {
    let Some(dir) = PrivateDir::open(&config.state_dir)? else { return Ok(None) };
    let environment = Environment::read(config, &|name| std::env::var_os(name));
    let unlocked = unlock(&dir, config, &environment, First::Leave).await?;
    let key = AuditKey::open(&Safe::new(dir, unlocked.sealer.clone()));
    unlocked.leave().await;
    Ok(key?)
}
