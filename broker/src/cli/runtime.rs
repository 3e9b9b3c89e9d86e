//! Where a command finds the broker: `--runtime`, `$ATTACHE_RUNTIME_URL`, else the config's control
//! socket. Nothing is looked for, and nothing is started.

use super::common::{Common, FAILED, complain};
use super::config;
use crate::private_file::{PrivateDir, PrivateError};
use crate::state_dir::{Runtime, parse_runtime};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

/// A broker, as `--runtime` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeAt {
    /// `unix:PATH`: its control socket.
    Socket(PathBuf),
    /// Its `runtime.json`.
    File(PathBuf),
}

/// What `--runtime` does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected unix:PATH, a control socket, or the path of a runtime.json")]
pub struct NoRuntime;

impl FromStr for RuntimeAt {
    type Err = NoRuntime;

    fn from_str(text: &str) -> Result<Self, NoRuntime> {
        match text.strip_prefix("unix:") {
            // unix:///PATH is the same, spelt as a URL.
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() { Err(NoRuntime) } else { Ok(RuntimeAt::Socket(path.into())) }
            }
            None if text.is_empty() || text.contains("://") => Err(NoRuntime),
            None => Ok(RuntimeAt::File(text.into())),
        }
    }
}

/// Why a `runtime.json` leads nowhere.
#[derive(Debug, thiserror::Error)]
enum RuntimeError {
    #[error("--runtime: {0}")]
    Private(#[from] PrivateError),
    #[error("--runtime: there is no {}: its broker has ended, or is another", .0.display())]
    Absent(PathBuf),
    #[error("--runtime: {} was not written by this version of attache", .0.display())]
    Foreign(PathBuf),
}

/// The control socket of the broker that the flags name, running or not.
pub fn control(common: &Common) -> Result<PathBuf, ExitCode> {
    match &common.runtime {
        None => Ok(config::load(common)?.listen.control),
        Some(RuntimeAt::Socket(path)) => Ok(path.clone()),
        Some(RuntimeAt::File(path)) => {
            read(path).map(|runtime| runtime.control).map_err(|error| complain(FAILED, error))
        }
    }
}

/// Reads an announcement. Whoever could write it could send an operator to a broker of their own.
fn read(path: &Path) -> Result<Runtime, RuntimeError> {
    let absent = || RuntimeError::Absent(path.to_owned());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(absent)?;
    let dir = PrivateDir::open(parent)?.ok_or_else(absent)?;
    let text = dir.read(name, 64 * 1024)?.ok_or_else(absent)?;
    parse_runtime(&text).ok_or_else(|| RuntimeError::Foreign(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_or_a_file_and_nothing_else() {
        let at = |text: &str| text.parse::<RuntimeAt>();
        assert_eq!(at("unix:/run/a.sock"), Ok(RuntimeAt::Socket("/run/a.sock".into())));
        assert_eq!(at("unix:///run/a.sock"), Ok(RuntimeAt::Socket("/run/a.sock".into())));
        assert_eq!(at("state/default/runtime.json"), Ok(RuntimeAt::File("state/default/runtime.json".into())));
        for text in ["", "unix:", "unix://", "http://127.0.0.1:3031", "https://x"] {
            assert_eq!(at(text), Err(NoRuntime), "{text}");
        }
    }
}
