//! Everything that can be wrong with a question to OpenBao, and what mends it. Holds no byte of an answer.

use crate::sources::Trouble;
use crate::sources::handed::HandedError;
use crate::sources::http::HttpError;
use std::borrow::Cow;

/// Where the config names it.
const AT: &str = "sources.openbao";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenBaoError {
    /// It does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Sealed.
    #[error("it is sealed")]
    Sealed,
    /// It says that it cannot.
    #[error("it fails (HTTP {0})")]
    Failing(u16),
    /// It sends on to somebody whom the config does not name.
    #[error("it is a standby, and sends on to a node that the config does not name")]
    Standby,
    /// What makes us somebody cannot be read.
    #[error(transparent)]
    Handed(#[from] HandedError),
    /// What makes us somebody is not there.
    #[error("there is nothing to log in with: {0} is empty or not there")]
    NothingToLogInWith(String),
    /// The SecretID that was unwrapped is used up, or a former life of the broker had it.
    #[error("no wrapped SecretID is there ({0}): the one before is used up")]
    NoDelivery(String),
    /// Nobody by this name.
    #[error("it does not let us log in at auth/{0}: the role, or what proves it, is not accepted")]
    LoginRefused(String),
    /// From another place.
    #[error("it does not let us log in from this machine's address")]
    LoginFromElsewhere,
    /// No such way to log in.
    #[error("it has no login at auth/{0}, or none in this namespace")]
    NoLogin(String),
    /// The token is worth nothing.
    #[error("it does not accept our token: that has expired, was revoked, or is bound to other addresses")]
    TokenRefused,
    /// Every use of it was made.
    #[error("all uses of our token are made")]
    TokenUsedUp,
    /// The token is good, and not for this.
    #[error("our token's policies do not allow it")]
    Denied,
    /// Nothing is mounted there.
    #[error("no secrets engine is at this path, in this namespace")]
    NoEngine,
    /// No namespace.
    #[error("it has no such namespace")]
    NoNamespace,
    /// KV version 2, by a path of version 1.
    #[error("the engine is KV version 2, and the path names none of its data")]
    NotVersioned,
    /// No such version.
    #[error("it has no such version of this secret")]
    NoVersion,
    /// Deleted.
    #[error("this version of the secret is deleted")]
    Deleted,
    /// Destroyed.
    #[error("this version of the secret is destroyed")]
    Destroyed,
    /// No such field.
    #[error("the secret has no such field")]
    NoField,
    /// A field that is no text.
    #[error("the field holds no text")]
    NotText,
    /// A field without anything.
    #[error("the field is empty")]
    Empty,
    /// It is longer than a secret can be.
    #[error("the field is longer than 64 KiB, or the answer than 1 MiB")]
    TooLong,
    /// Not a question that it takes.
    #[error("it does not take this question (HTTP {0})")]
    Refused(u16),
    /// Not what OpenBao says.
    #[error("what answers there does not answer as OpenBao does")]
    Malformed,
    /// **Alarm**: the wrapping token was worth nothing.
    #[error("ALARM: the wrapping token ({0}) is used already, or has expired: somebody else may have its SecretID")]
    WrapUsed(String),
    /// **Alarm**: the wrapping token wraps something else.
    #[error(
        "ALARM: the wrapping token ({0}) was not made by the configured creation_path: somebody may have put his own in its place"
    )]
    WrapElsewhere(String),
    /// **Alarm**: the wrapping token is of another time.
    #[error("ALARM: the wrapping token ({0}) says that it was made at another time, or for longer, than can be")]
    WrapTime(String),
}

impl OpenBaoError {
    /// Whether it may go by itself, and says nothing about the secret.
    pub fn passes(&self) -> bool {
        use OpenBaoError::{Failing, Http, Sealed, Standby};
        matches!(self, Sealed | Failing(_) | Standby) || matches!(self, Http(error) if error.passes())
    }

    /// Whether an operator has to look into it.
    pub fn is_alarm(&self) -> bool {
        matches!(self, OpenBaoError::WrapUsed(_) | OpenBaoError::WrapElsewhere(_) | OpenBaoError::WrapTime(_))
    }

    /// What an operator does about it.
    fn fix(&self) -> Cow<'static, str> {
        use OpenBaoError as E;
        Cow::Borrowed(match self {
            E::Http(HttpError::Busy(_)) => "wait, or raise its quota; a longer sources.openbao.refresh asks less often",
            E::Http(error) => return error.fix(AT).into(),
            E::Sealed => "unseal it; the broker tries again by itself",
            E::Failing(_) => "read its log; the broker tries again by itself",
            E::Standby => "name the active node in sources.openbao.address, or each node in sources.openbao.nodes",
            E::Handed(error) => error.fix(),
            E::NothingToLogInWith(_) => {
                "put there what sources.openbao.auth names: a file is looked for again, a variable takes a restart"
            }
            E::NoDelivery(_) => {
                "deliver a new one: bao write -f -wrap-ttl=5m -field=wrapping_token auth/approle/role/NAME/secret-id; \
                 a file is looked for again, a variable or standard input takes a restart"
            }
            E::LoginRefused(_) => {
                "see in OpenBao whether the role exists, and whether what proves it is its own, has not expired and is \
                 not used up"
            }
            E::LoginFromElsewhere => "see bound_cidrs, secret_id_bound_cidrs and token_bound_cidrs of the role",
            E::NoLogin(_) => "enable the method there, or correct sources.openbao.auth and sources.openbao.namespace",
            E::TokenRefused | E::TokenUsedUp => {
                "give the broker a new token, one whose bound_cidrs have this machine's address; one that the broker \
                 logs in for (approle, kubernetes, jwt) is replaced by itself"
            }
            E::Denied => "give one of the token's policies `read` on this path (KV version 2: MOUNT/data/…)",
            E::NoEngine | E::NoNamespace => {
                "correct the credential's path or sources.openbao.namespace, or mount the engine"
            }
            E::NotVersioned => "write data/ behind the mount: secret/data/github",
            E::NoVersion | E::Deleted | E::Destroyed => {
                "name another version, undelete it, or write the secret anew and leave `version` out"
            }
            E::NoField | E::NotText | E::Empty | E::TooLong => "name a field that holds the secret itself, as text",
            E::Refused(_) => "see whether the path is one that is read by GET, and whether its role exists",
            E::Malformed => "see whether sources.openbao.address is OpenBao's, and not that of something before it",
            E::WrapTime(_) => {
                "see whether the clocks of this machine and of OpenBao are right, mend them, and deliver a new one; where \
                 they are, find out who had it, and destroy the role's SecretIDs"
            }
            E::WrapUsed(_) | E::WrapElsewhere(_) => {
                "find out who had it, destroy the role's SecretIDs and revoke their tokens; then deliver a new one"
            }
        })
    }
}

impl From<OpenBaoError> for Trouble {
    fn from(error: OpenBaoError) -> Self {
        let (what, fix) = (error.to_string(), error.fix());
        let trouble = if error.passes() { Self::passing(what, fix) } else { Self::lasting(what, fix) };
        if let OpenBaoError::Http(error) = error { trouble.not_before(error.wait()) } else { trouble }
    }
}
