//! Logs: to standard error, at the level `$ATTACHE_LOG` names (default `info`).
//!
//! They carry names, never values: a rule, a credential, a fingerprint, a reason. The type of a
//! secret cannot be printed, at any level.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What the client of Kubernetes complains of, the broker says in words of its own.
const DEFAULT: &str = "info,kube_client=off";

/// Begins logging. A second call changes nothing.
pub fn init(levels: Option<&str>) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(levels.unwrap_or(DEFAULT))?;
    let stderr = std::io::stderr;
    // Another subscriber is already there (a test's): its choice stands.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        // It would say on standard error that standard error cannot be written, and end the thread that logged.
        .log_internal_errors(false)
        .try_init();
    Ok(())
}
