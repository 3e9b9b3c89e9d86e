//! A command that makes a new secret, or retires an old one: version 1 of the contract in docs/rotation.md.
//!
//! No shell, nothing of our environment but what the config names, a bounded time, a bounded output. Secrets go by
//! standard input and output alone. What it prints goes into a file of ours rather than through a pipe: who makes a
//! secret while the broker dies has still handed it over.

use super::files::{Files, Left};
use super::{Action, RotationError, vet};
use crate::sources::MOST;
use attache_core::Secret;
use attache_core::names::Name;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, Command as Process};
use zeroize::Zeroizing;

/// The version of the contract.
const VERSION: &str = "1";

/// How often it is looked whether a command has ended, and how much it has printed.
const LOOK: Duration = Duration::from_millis(20);

/// The most that a command may print, in bytes: a secret and its line break.
pub const PRINTED: usize = MOST + 2;

/// A command.
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// All of its environment, but what this adds.
    pub env: Vec<(String, Secret)>,
    /// How long it may run.
    pub timeout: Duration,
}

impl Command {
    /// Runs it to its end, or to the end of its time. Answers with what it printed, if that can be a secret.
    pub async fn run(
        &self,
        (action, id, credential): (Action, &str, &Name),
        secret: &Secret,
        files: &Files,
    ) -> Result<Option<Secret>, RotationError> {
        let words = vet::vet(&self.argv)?;
        let line = line(secret)?;
        // What is left of one that failed is worth nothing.
        files.forget_answer()?;
        let out = files.begin_answer()?;
        let done = self.run_into(&out, &words, (action, id, credential), &line).await;
        drop(out);
        let answer = match done {
            Ok(()) if action == Action::Rotate => files.answer(PRINTED).map_err(Into::into).and_then(parse),
            done => done.map(|()| None),
        };
        // One that is a secret goes when it is kept elsewhere.
        if !matches!(answer, Ok(Some(_))) {
            files.forget_answer()?;
        }
        answer
    }

    async fn run_into(
        &self,
        out: &File,
        words: &[PathBuf],
        (action, id, credential): (Action, &str, &Name),
        line: &[u8],
    ) -> Result<(), RotationError> {
        let (Some((program, arguments)), Some(written)) = (words.split_first(), self.argv.first()) else {
            return Err(RotationError::Empty);
        };
        let printed = out.try_clone().map_err(|error| RotationError::NotStarted(error.kind()))?;
        let mut process = Process::new(program);
        // Programs go by the name that they are called by: BusyBox, a Python in an environment of its own.
        process.arg0(written).args(arguments).arg(action.as_str()).current_dir(vet::RUNS_IN).env_clear();
        // Exposed to whom the config gives it.
        process.envs(self.env.iter().map(|(name, value)| (name, value.expose())));
        process.env("ATTACHE_CREDENTIAL", credential.as_str()).env("ATTACHE_ROTATION_ID", id);
        process.env("ATTACHE_ROTATION_VERSION", VERSION);
        // Nobody reads what it complains of, which could hold anything.
        process.stdin(Stdio::piped()).stdout(printed).stderr(Stdio::null()).process_group(0);
        let mut child = process.spawn().map_err(|error| RotationError::NotStarted(error.kind()))?;
        let stdin = child.stdin.take();
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let leader = leader.ok_or(RotationError::NotStarted(ErrorKind::NotFound))?;
        let ended = tokio::time::timeout(self.timeout, ended(leader, stdin, line, out)).await;
        let ended = ended.unwrap_or(Err(RotationError::TimedOut(self.timeout)));
        // With whatever it has started, and however it went. Its number is its own until it is waited for.
        let _ = kill_process_group(leader, Signal::KILL);
        let _ = child.wait().await;
        match ended {
            Ok(()) if is_long(out) => Err(RotationError::TooLong),
            ended => ended,
        }
    }
}

/// What a command printed that nobody waited for: a whole line, or nothing.
pub fn left_behind(files: &Files) -> Result<Option<Secret>, RotationError> {
    match files.left(PRINTED)? {
        Left::Nothing => Ok(None),
        Left::Running => Err(RotationError::StillRuns),
        Left::Printed(bytes) if bytes.last() == Some(&b'\n') => Ok(parse(Some(bytes)).ok().flatten()),
        Left::Printed(_) => Ok(None),
    }
}

/// Tells it the secret, and looks until it has ended. It is not waited for: nobody else gets its number yet.
async fn ended(leader: Pid, stdin: Option<ChildStdin>, line: &[u8], out: &File) -> Result<(), RotationError> {
    let told = async {
        if let Some(mut stdin) = stdin {
            // One that does not read it has its reasons.
            let _ = stdin.write_all(line).await;
        }
        // Its input is closed: what it does now it says by its end.
        std::future::pending().await
    };
    let looked = async {
        while !is_long(out) {
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(leader), look) {
                Ok(Some(status)) => return by_status(&status),
                Ok(None) | Err(Errno::INTR) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(RotationError::NotStarted(error.kind())),
            }
        }
        Err(RotationError::TooLong)
    };
    tokio::select! {
        ended = looked => ended,
        never = told => never,
    }
}

/// Whether it has printed more than a secret.
fn is_long(out: &File) -> bool {
    out.metadata().map_or(u64::MAX, |found| found.len()) > PRINTED as u64
}

fn by_status(status: &WaitIdStatus) -> Result<(), RotationError> {
    match status.exit_status() {
        Some(0) => Ok(()),
        Some(code) => Err(RotationError::Failed(format!("exit code {code}"))),
        None => Err(RotationError::Failed("ended by a signal".to_owned())),
    }
}

fn line(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, RotationError> {
    // Exposed to whoever replaces it.
    let text = secret.expose();
    if text.contains(['\n', '\r', '\0']) {
        return Err(RotationError::OldLines);
    }
    // All its room at once: a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// The one line of an answer.
fn parse(bytes: Option<Zeroizing<Vec<u8>>>) -> Result<Option<Secret>, RotationError> {
    let bytes = bytes.ok_or(RotationError::Empty)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| RotationError::NotText)?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    secret(text).map(Some)
}

/// What can be a secret: one line of text, not empty, not too long.
pub fn secret(text: &str) -> Result<Secret, RotationError> {
    match text {
        "" => Err(RotationError::Empty),
        text if text.len() > MOST => Err(RotationError::TooLong),
        text if text.contains(['\n', '\r']) => Err(RotationError::Lines),
        text if text.contains('\0') => Err(RotationError::NotText),
        text => Ok(Secret::new(text)),
    }
}
