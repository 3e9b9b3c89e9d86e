//! Why a rotation has not gone on, and what mends it. Nothing that a command or a hook said is repeated.

use crate::audit::Unavailable;
use crate::clock::rfc3339;
use crate::leases::LeaseError;
use crate::private_file::PrivateError;
use crate::random::NoRandomness;
use crate::seal::{SealError, UnlockError};
use crate::sources::handed::HandedError;
use crate::sources::http::HttpError;
use crate::sources::{MOST, SourceError};
use crate::store::StoreError;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no new secret, or why the old one is not retired.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Somebody else could make it another command.
    #[error("the command is not run: {0}")]
    Unsafe(#[from] super::vet::Unsafe),
    /// The system does not start it.
    #[error("the command does not start ({0})")]
    NotStarted(ErrorKind),
    /// It failed.
    #[error("the command failed: {0}")]
    Failed(String),
    /// It was ended.
    #[error("the command had not ended after {}, and was killed", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// One that a broker before this one has started goes on.
    #[error("a command that was started before the broker's restart still runs")]
    StillRuns,
    /// The hook was not reached.
    #[error("the hook gives no answer: {0}")]
    Hook(#[from] HttpError),
    /// Nor in time.
    #[error("the hook has not answered within {}", humantime::format_duration(*.0))]
    HookTimedOut(Duration),
    /// The hook refused.
    #[error("the hook answers with status {0}")]
    HookStatus(u16),
    /// The hook answers something else.
    #[error("the hook's answer is not of the form {{\"secret\": \"…\"}}")]
    HookForm,
    /// The hook's token cannot be read.
    #[error(transparent)]
    Token(#[from] HandedError),
    /// The hook's token.
    #[error("the hook's token is not there")]
    NoToken,
    /// More than a secret can be.
    #[error("what it answers is longer than {} KiB", MOST / 1024)]
    TooLong,
    /// No text.
    #[error("what it answers is no text")]
    NotText,
    /// Nothing.
    #[error("it has answered without a secret")]
    Empty,
    /// More than a secret.
    #[error("what it answers has more than one line")]
    Lines,
    /// The secret that is in use.
    #[error("it has answered with the secret that is in use")]
    Same,
    /// A secret that a command cannot be told in one line.
    #[error("the secret in use has more than one line, and so cannot be handed over")]
    OldLines,
    /// Nothing to replace.
    #[error("there is no secret to replace: {0} is not there")]
    NoSecret(PathBuf),
    /// The new one cannot be used.
    #[error("the new secret cannot be used, and lies in {path}: {why}")]
    Rejected {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        why: LeaseError,
    },
    /// It would have taken the place of another than the one that it is to replace.
    #[error("somebody has changed the secret meanwhile: that stays, and the new one lies in {0}")]
    Replaced(PathBuf),
    /// One of before that was put aside is there yet.
    #[error("{0} holds a new secret that was not put in place")]
    RejectedWaits(PathBuf),
    /// The old one is the one in use.
    #[error("the secret that is to be retired is in use again")]
    InUseAgain,
    /// A file.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// One that is sealed, or is to be.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// A file that holds no secret.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Whoever writes secrets, too, does not end.
    #[error(transparent)]
    Busy(#[from] UnlockError),
    /// How far it has got cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No record of it.
    #[error(transparent)]
    Audit(#[from] Unavailable),
    /// No id.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl RotationError {
    /// What an operator does about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unsafe(_) => "let root or the broker's user own it and its directories, and nobody else write there",
            Self::NotStarted(_) => "see whether it is there, can be executed, and its interpreter is installed",
            Self::Failed(_) => "run it by hand as docs/rotation.md says: what it printed was not kept",
            Self::TimedOut(_) => "see what it waits for, or give it a longer `timeout`",
            Self::StillRuns => "wait for it, or end it",
            Self::Hook(_) | Self::HookTimedOut(_) | Self::HookStatus(_) | Self::HookForm => {
                "see whether it can be reached, and answers as docs/rotation.md says"
            }
            Self::NoToken | Self::Token(_) => {
                "write it into its file (0600), or set its variable and restart the broker"
            }
            Self::TooLong | Self::NotText | Self::Empty | Self::Lines => {
                "let it answer with the new secret alone, as docs/rotation.md says"
            }
            Self::Same => "let it make a new one: the old one is retired afterwards",
            Self::OldLines => "rotate by a hook, or keep a secret of one line",
            Self::NoSecret(_) => "write the first secret into its file (0600)",
            Self::Rejected { .. } | Self::Replaced(_) | Self::RejectedWaits(_) => {
                "see which secret the service takes: `attache credential set NAME --from rejected` puts the one in that \
                 file in place; where the one in use is right, remove that file; until it is gone nothing is rotated"
            }
            Self::Busy(_) => "see what holds that file: it is tried again by itself",
            Self::InUseAgain => "if that is meant, remove the file .retiring beside the secret",
            Self::File(_) | Self::Sealed(_) | Self::Source(_) => "mend the file: it is tried again by itself",
            Self::Store(_) | Self::Audit(_) => "mend the disk: it is tried again by itself",
            Self::NoRandomness(_) => "see why the system gives no random bytes, and restart the broker",
        }
    }
}

/// Why an operator's rotation was not done.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// One thing at a time.
    #[error("a rotation of it is under way: `attache credential list` says how it stands")]
    UnderWay,
    /// The last one is not over.
    #[error(
        "the secret of before is good until {}: wait until it is retired, or end that time with `attache credential \
         rotate --retire-now`",
        rfc3339(*.0)
    )]
    OldWaits(u64),
    /// It failed.
    #[error("{0}; {fix}", fix = .0.fix())]
    Failed(#[from] RotationError),
}
