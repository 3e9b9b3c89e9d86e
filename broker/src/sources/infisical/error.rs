//! Everything that can be wrong with a question to Infisical, and what mends it. Holds no byte of an answer.

use crate::sources::Trouble;
use crate::sources::handed::HandedError;
use crate::sources::http::HttpError;
use std::borrow::Cow;

/// Where the config names it.
const AT: &str = "sources.infisical";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InfisicalError {
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
    #[error("there is nothing to log in with: {0} is empty or not there")]
    NothingToLogInWith(String),
    /// Nobody by this name, or another secret.
    #[error("it does not let us log in: the client ID or the client secret is not accepted")]
    LoginRefused,
    /// The client secret's time is over.
    #[error("it does not let us log in: the client secret has expired")]
    SecretExpired,
    /// Every use of the client secret was made.
    #[error("it does not let us log in: all uses of the client secret are made")]
    SecretUsedUp,
    /// Too many have tried.
    #[error(
        "it does not let us log in: the identity is locked for a while, for somebody has failed to log in too often"
    )]
    LockedOut,
    /// From another place.
    #[error("it does not let us log in from this machine's address")]
    LoginFromElsewhere,
    /// The token is worth nothing, and so is the next.
    #[error("it does not accept our token, nor another one that it has just made for us")]
    TokenRefused,
    /// The token's uses are made, and so are those of the next.
    #[error("all uses of our token are made, and of another one that it has just made for us")]
    TokenUsedUp,
    /// The token is worth nothing from here.
    #[error("it does not accept our token from this machine's address")]
    TokenFromElsewhere,
    /// Not for us.
    #[error("the identity may not read it, or is no member of the project")]
    Denied,
    /// The name may be seen, the value not.
    #[error("the identity may see that the secret is there, and not its value")]
    Hidden,
    /// No project.
    #[error("it has no such project")]
    NoProject,
    /// No environment, or no folder.
    #[error("the project has no such environment, or no such folder in it")]
    NoFolder,
    /// No such version.
    #[error("it has no such version of this secret")]
    NoVersion,
    /// Nothing in it.
    #[error("the secret is empty")]
    Empty,
    /// It is longer than a secret can be.
    #[error("the secret is longer than 64 KiB")]
    TooLong,
    /// Not a question that it takes.
    #[error("it does not take this question (HTTP {0})")]
    Refused(u16),
    /// Not what Infisical says.
    #[error("what answers there does not answer as Infisical does")]
    Malformed,
}

impl InfisicalError {
    /// Whether it may go by itself, and says nothing about the secret.
    pub fn passes(&self) -> bool {
        use InfisicalError::{Failing, Http, LockedOut, TokenUsedUp};
        matches!(self, Failing(_) | LockedOut | TokenUsedUp) || matches!(self, Http(error) if error.passes())
    }

    /// Whether a client secret that was refused like this is never good again.
    pub fn is_final(&self) -> bool {
        matches!(self, InfisicalError::SecretExpired | InfisicalError::SecretUsedUp)
    }

    /// Whether a login was refused: another try with the same client secret counts against the identity.
    pub fn is_refusal(&self) -> bool {
        use InfisicalError::{LockedOut, LoginFromElsewhere, LoginRefused};
        self.is_final() || matches!(self, LoginRefused | LockedOut | LoginFromElsewhere)
    }

    /// What an operator does about it.
    fn fix(&self) -> Cow<'static, str> {
        use InfisicalError as E;
        Cow::Borrowed(match self {
            E::Http(error) => return error.fix(AT).into(),
            E::Failing(_) => "read its log, or its status page; the broker tries again by itself",
            E::Handed(error) => error.fix(),
            E::NothingToLogInWith(_) => {
                "put there what sources.infisical.auth names: a file is looked for again, a variable takes a restart"
            }
            E::LoginRefused => {
                "see in Infisical whether the identity has Universal Auth with this client ID, and make a new client \
                 secret; see, too, whether sources.infisical.address is the region where it is"
            }
            E::SecretExpired => {
                "make a new client secret, with a longer TTL or none; a file is read again, a variable takes a restart"
            }
            E::SecretUsedUp => {
                "make a new client secret without a limit of uses: each start of the broker, and each token whose \
                 maximum TTL is over, takes one; a file is read again, a variable takes a restart"
            }
            E::LockedOut => {
                "find out who logs in with a wrong client secret; the lock ends by itself, or is cleared in the \
                 identity's Universal Auth"
            }
            E::LoginFromElsewhere => "add this machine's address to the client secret's trusted IPs (Universal Auth)",
            E::TokenFromElsewhere => "add this machine's address to the access token's trusted IPs (Universal Auth)",
            E::TokenRefused => {
                "see in Infisical whether the identity is a member of an organization, and not locked out"
            }
            E::TokenUsedUp => {
                "raise the access token's maximum number of uses, or set it to 0: the broker tries again by itself"
            }
            E::Denied => {
                "add the identity to the project, with a role that may read the secret's value in this environment and \
                 folder"
            }
            E::Hidden => "give the identity a role with `Read Value` on this secret",
            E::NoProject | E::NoFolder => {
                "correct project (its ID), environment (its slug) and path, of the credential or of sources.infisical"
            }
            E::NoVersion => "name another version, or leave `version` out",
            E::Empty | E::TooLong => "name a secret that holds the credential itself, as text",
            E::Refused(_) => "see whether project, environment and path are what Infisical calls them",
            E::Malformed => {
                "see whether sources.infisical.address is that of Infisical, without /api, not of something before it"
            }
        })
    }
}

impl From<InfisicalError> for Trouble {
    fn from(error: InfisicalError) -> Self {
        let (what, fix) = (error.to_string(), error.fix());
        let trouble = if error.passes() { Self::passing(what, fix) } else { Self::lasting(what, fix) };
        if let InfisicalError::Http(error) = error { trouble.not_before(error.wait()) } else { trouble }
    }
}
