//! `op read`, as a child: <https://developer.1password.com/docs/cli/reference/commands/read/>
//!
//! No shell, nothing of our environment but what `op` needs, a bounded time, a bounded output. It
//! ends with 0 and the value, or with another code and a line of text: that line is classed, never
//! repeated, for it could hold anything.

use crate::config::OnePassword;
use crate::sources::{MOST, Trouble};
use attache_core::Secret;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// What `op` needs of the broker's environment: who it is, how it reaches 1Password, where its files are.
pub const ENVIRONMENT: [&str; 14] = [
    "PATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "OP_SERVICE_ACCOUNT_TOKEN",
    "OP_CONNECT_HOST",
    "OP_CONNECT_TOKEN",
    "OP_ACCOUNT",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// How long one question may take.
pub const LONGEST: Duration = Duration::from_secs(10);

/// How much of its complaint is looked at, in bytes.
const COMPLAINT: u64 = 8 * 1024;

/// Why `op` has not answered with a secret. Names no byte of what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// There is no such program.
    #[error("`op`, 1Password's command line, is not there")]
    NotInstalled,
    /// There is one that does not start.
    #[error("`op` does not start ({0})")]
    NotStarted(ErrorKind),
    /// It knows no account, or the account does not know it.
    #[error("`op` is not signed in, or its token is not accepted")]
    NotSignedIn,
    /// No such vault, item or field. The config names it, so this is an error, and not "absent".
    #[error("1Password has no such vault, item or field, or does not show it to this account")]
    NoSuchReference,
    /// More than one thing of this name.
    #[error("more than one item or field has this name")]
    Ambiguous,
    /// Too many questions.
    #[error("1Password answers no more for now: too many requests")]
    RateLimited,
    /// It does not reach 1Password.
    #[error("`op` does not reach 1Password")]
    Unreachable,
    /// It has not answered in time.
    #[error("`op` has not answered within 10 s")]
    TimedOut,
    /// More than a secret can be.
    #[error("what `op` answers is longer than 64 KiB")]
    TooLong,
    /// Bytes that are not UTF-8.
    #[error("what `op` answers is no text")]
    NotText,
    /// Nothing.
    #[error("the field is empty")]
    Empty,
    /// Something else.
    #[error("`op` failed ({}), for a reason that is not known here", code(*.0))]
    Failed(Option<i32>),
}

impl OpError {
    /// Whether it may go by itself, and says nothing about the secret.
    fn passes(self) -> bool {
        matches!(self, OpError::RateLimited | OpError::Unreachable | OpError::TimedOut)
    }

    /// What an operator does about it.
    fn fix(self) -> &'static str {
        match self {
            OpError::NotInstalled | OpError::NotStarted(_) => {
                "install 1Password's command line, or name it in sources.onepassword.op_path"
            }
            OpError::NotSignedIn => {
                "start the broker with OP_SERVICE_ACCOUNT_TOKEN, or with OP_CONNECT_HOST and OP_CONNECT_TOKEN"
            }
            OpError::NoSuchReference | OpError::Ambiguous => {
                "correct sources.onepassword.references (IDs are unambiguous), or give the account access to the vault"
            }
            OpError::RateLimited => {
                "see `op service-account ratelimit`; a longer sources.onepassword.refresh asks less often, a Connect server \
                 is not counted; the broker asks again after 20 minutes, or when it is restarted"
            }
            OpError::Unreachable | OpError::TimedOut => {
                "see whether the broker's machine reaches 1Password: try `op read` there, as its user"
            }
            OpError::TooLong | OpError::NotText | OpError::Empty => "name a field that holds the secret itself",
            OpError::Failed(_) => "try `op read` on the broker's machine, as its user: it says why",
        }
    }
}

impl From<OpError> for Trouble {
    fn from(error: OpError) -> Self {
        let (what, fix) = (error.to_string(), error.fix());
        let trouble = if error.passes() { Self::passing(what, fix) } else { Self::lasting(what, fix) };
        if error == OpError::RateLimited { trouble.not_before(super::QUIET) } else { trouble }
    }
}

/// The program, and the environment it gets.
#[derive(Clone)]
pub struct Op {
    program: PathBuf,
    environment: Vec<(&'static str, Secret)>,
}

impl Op {
    /// The one that a config names.
    pub fn new(config: &OnePassword, environment: &[(&'static str, Secret)]) -> Self {
        Self { program: config.op.clone(), environment: environment.to_vec() }
    }

    /// Asks for one secret.
    pub async fn read(&self, reference: &str) -> Result<Secret, OpError> {
        let path = self.environment.iter().find(|(name, _)| *name == "PATH");
        // Exposed to be searched: a path is no secret.
        let path = path.map(|(_, path)| path.expose()).unwrap_or_default();
        let program = find(&self.program, path).ok_or(OpError::NotInstalled)?;
        let mut command = Command::new(program);
        command.args(["read", "--no-newline", reference]).current_dir("/").env_clear();
        // Exposed to become the child's environment: it cannot sign in without.
        command.envs(self.environment.iter().map(|(name, value)| (name, value.expose())));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => OpError::NotInstalled,
            kind => OpError::NotStarted(kind),
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let answer = tokio::time::timeout(LONGEST, answer(&mut child)).await;
        if !matches!(answer, Ok(Ok(_))) {
            // Whatever it has started goes with it.
            group.map(|group| kill_process_group(group, Signal::KILL));
        }
        answer.unwrap_or(Err(OpError::TimedOut))
    }
}

/// Where a program is: a name is looked for in the absolute directories of `PATH` alone.
pub fn find(program: &Path, path: &str) -> Option<PathBuf> {
    if program.is_absolute() {
        return program.exists().then(|| program.to_owned());
    }
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

async fn answer(child: &mut Child) -> Result<Secret, OpError> {
    let (out, complaint) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        let out = beginning(out, MOST as u64 + 1).await;
        // At once: who says so much may have more to say, or never end.
        if out.len() > MOST { Err(OpError::TooLong) } else { Ok(out) }
    };
    let (out, complaint) = tokio::try_join!(whole, async { Ok(beginning(complaint, COMPLAINT).await) })?;
    let status = child.wait().await.map_err(|error| OpError::NotStarted(error.kind()))?;
    if !status.success() {
        return Err(classed(&String::from_utf8_lossy(&complaint), status));
    }
    let text = std::str::from_utf8(&out).map_err(|_| OpError::NotText)?;
    if text.is_empty() { Err(OpError::Empty) } else { Ok(Secret::new(text)) }
}

/// The beginning of what a pipe gives. The rest is never read: its writer ends by that.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Zeroizing<Vec<u8>> {
    let room = usize::try_from(most).unwrap_or_default();
    let mut read = Zeroizing::new(Vec::with_capacity(room));
    if let Some(pipe) = pipe {
        // What came before an error is as good as it is: the exit code decides.
        let _ = pipe.take(most).read_to_end(&mut read).await;
    }
    read
}

/// What its words mean, of versions 2.x. What is not known is a failure like any other.
fn classed(complaint: &str, status: ExitStatus) -> OpError {
    const KNOWN: [(&[&str], OpError); 5] = [
        (&["too many requests", "rate limit", "rate-limit", "(429)"], OpError::RateLimited),
        (&["more than one item matches", "more than one vault matches", "more than one field"], OpError::Ambiguous),
        (
            &[
                "isn't an item",
                "isn't a vault",
                "isn't a field",
                "does not have a field",
                "invalid secret reference",
                "could not find item",
                "no item found",
            ],
            OpError::NoSuchReference,
        ),
        (
            &[
                "not currently signed in",
                "no accounts configured",
                "session expired",
                "unauthorized",
                "(401)",
                "(403)",
                "decodesacredentials",
                "signin credentials",
                "authorization",
                "connecting to desktop app",
                "setup session",
            ],
            OpError::NotSignedIn,
        ),
        (
            &[
                "dial tcp",
                "no such host",
                "connection refused",
                "network is unreachable",
                "deadline exceeded",
                "timed out",
            ],
            OpError::Unreachable,
        ),
    ];
    let complaint = complaint.to_lowercase();
    let known = KNOWN.into_iter().find(|(words, _)| words.iter().any(|word| complaint.contains(word)));
    known.map_or(OpError::Failed(status.code()), |(_, error)| error)
}

fn code(code: Option<i32>) -> String {
    code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"))
}
