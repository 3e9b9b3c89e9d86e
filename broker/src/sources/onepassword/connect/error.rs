//! Everything that can be wrong with a question to a Connect server, and what mends it. Holds no byte of an answer.

use crate::sources::Trouble;
use crate::sources::handed::HandedError;
use crate::sources::http::HttpError;
use std::borrow::Cow;

/// Where the config names it.
const AT: &str = "sources.onepassword.connect";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// It does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It says that it cannot.
    #[error("it fails (HTTP {0})")]
    Failing(u16),
    /// What makes us somebody cannot be read.
    #[error(transparent)]
    Handed(#[from] HandedError),
    /// What makes us somebody is not there.
    #[error("there is no token to show: {0} is empty or not there")]
    NoToken(String),
    /// The token is worth nothing.
    #[error("it does not accept our token: that has expired, was revoked, or is of another Connect server")]
    TokenRefused,
    /// The token is good, and not for this vault.
    #[error("our token may not read this vault")]
    Denied,
    /// No such vault.
    #[error("it has no such vault, or does not show it to our token")]
    NoVault,
    /// No such item.
    #[error("the vault has no such item, or has it in its archive")]
    NoItem,
    /// No such field.
    #[error("the item has no such field, or no such section")]
    NoField,
    /// More than one thing of this name.
    #[error("more than one {0} has this name")]
    Ambiguous(&'static str),
    /// Nothing in it.
    #[error("the field is empty")]
    Empty,
    /// It is longer than a secret can be.
    #[error("the field is longer than 64 KiB")]
    TooLong,
    /// Not a question that it takes.
    #[error("it does not take this question (HTTP {0})")]
    Refused(u16),
    /// Not what Connect says.
    #[error("what answers there does not answer as a Connect server does")]
    Malformed,
}

impl ConnectError {
    /// Whether it may go by itself, and says nothing about the secret.
    fn passes(&self) -> bool {
        matches!(self, ConnectError::Failing(_)) || matches!(self, ConnectError::Http(error) if error.passes())
    }

    /// Whether what is remembered of names may be why.
    pub fn may_have_moved(&self) -> bool {
        matches!(self, ConnectError::NoVault | ConnectError::NoItem | ConnectError::Denied)
    }

    /// What an operator does about it.
    fn fix(&self) -> Cow<'static, str> {
        use ConnectError as E;
        Cow::Borrowed(match self {
            E::Http(HttpError::Busy(_)) => "wait; a longer sources.onepassword.refresh asks less often",
            E::Http(error) => return error.fix(AT).into(),
            E::Failing(_) => {
                "read the logs of connect-api and connect-sync, and ask GET /health; the broker tries again by itself"
            }
            E::Handed(error) => error.fix(),
            E::NoToken(_) => {
                "put there what sources.onepassword.connect.token names: a file is looked for again, a variable takes \
                 a restart"
            }
            E::TokenRefused => {
                "make a new token for this Connect server: op connect token create; a file is read again, a variable \
                 takes a restart"
            }
            E::Denied | E::NoVault => {
                "correct the reference (IDs are unambiguous), or make a token that may read this vault: op connect \
                 token create --vault VAULT; Connect reads no personal vaults"
            }
            E::NoItem | E::NoField => "correct the reference: names of items, sections and fields, or their IDs",
            E::Ambiguous(_) => "write IDs in the reference, which are unambiguous, or name the section of the field",
            E::Empty | E::TooLong => "name a field that holds the secret itself",
            E::Refused(_) | E::Malformed => {
                "see whether sources.onepassword.connect.address is that of connect-api, without /v1, and not of \
                 something before it"
            }
        })
    }
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        let (what, fix) = (error.to_string(), error.fix());
        let trouble = if error.passes() { Self::passing(what, fix) } else { Self::lasting(what, fix) };
        if let ConnectError::Http(error) = error { trouble.not_before(error.wait()) } else { trouble }
    }
}
