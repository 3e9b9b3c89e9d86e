//! Everything that can be wrong with a question to GitHub, and what mends it. Holds no byte of an answer.

use crate::config::GitHubApp;
use crate::sources::handed::HandedError;
use crate::sources::http::HttpError;
use std::time::Duration;

const AT: &str = "sources.github_app";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GitHubError {
    /// No answer at all.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The key cannot be read.
    #[error(transparent)]
    Handed(#[from] HandedError),
    /// There is none.
    #[error("there is no private key: {0} is empty or not there")]
    NoKey(String),
    /// There is something else.
    #[error("what {0} holds {1}: an App's key is an RSA private key in PEM")]
    Key(String, &'static str),
    /// Nothing can be signed.
    #[error("the system gives no random bytes to sign with")]
    NoRandomness,
    /// The two clocks.
    #[error("its clock and this machine's are apart: the times in our JWT, or of its token, cannot be")]
    Clock,
    /// The JWT is of nobody whom it knows; where the key is.
    #[error("it knows no App by this name and key ({})", .0.as_deref().unwrap_or("its private key"))]
    Refused(Option<String>),
    /// No such installation.
    #[error("the App has no such installation: it is not installed there, or no longer")]
    NoInstallation,
    /// Suspended.
    #[error("the App's installation is suspended")]
    Suspended,
    /// A permission that the installation has not; which, where we can tell.
    #[error("the installation has not all the permissions that are asked for{}", .0.as_ref().map(|one| format!(": {one}")).unwrap_or_default())]
    NotGranted(Option<String>),
    /// A repository that the installation has not.
    #[error("the installation does not reach all the repositories that are asked for, or there is no such one")]
    NoRepository,
    /// It will not.
    #[error("it denies the question (HTTP 403)")]
    Denied,
    /// It says that it cannot.
    #[error("it fails (HTTP {0})")]
    Failing(u16),
    /// It sends on to somebody whom the config does not name.
    #[error("it sends on to another address than the config names")]
    Moved,
    /// It gives more than was asked for.
    #[error("it gave a token with more {0} than were asked for")]
    Wider(&'static str),
    /// It does not say what it gives.
    #[error("it gave a token and does not say which {0} that has")]
    Unsaid(&'static str),
    /// It gave a token that cannot be used.
    #[error("{why}; the token that came {}", outcome(*.given_back))]
    Unused {
        /// Why not.
        why: Box<GitHubError>,
        /// Whether it is over by now.
        given_back: bool,
    },
    /// Not what GitHub says.
    #[error("what answers there does not answer as GitHub's API does")]
    Malformed,
}

impl GitHubError {
    /// With what the config says of us, where that helps.
    pub fn at(self, app: &GitHubApp) -> Self {
        match self {
            GitHubError::Refused(None) => GitHubError::Refused(Some(app.key.place())),
            error => error,
        }
    }

    /// Whether it may go by itself, and says nothing about a token.
    pub fn passes(&self) -> bool {
        match self {
            GitHubError::Http(error) => error.passes(),
            GitHubError::Unused { why, .. } => why.passes(),
            GitHubError::Clock | GitHubError::Failing(_) | GitHubError::NoRandomness => true,
            _ => false,
        }
    }

    /// For how long nobody is asked again, at least.
    pub fn wait(&self) -> Duration {
        if let GitHubError::Http(error) = self { error.wait() } else { Duration::ZERO }
    }

    /// What an operator does about it.
    pub fn fix(&self) -> String {
        use GitHubError as E;
        match self {
            E::Http(HttpError::Busy(_)) => {
                "wait; a longer sources.github_app.refresh, and fewer sessions, ask less often"
            }
            // The config calls its address `api`.
            E::Http(error) => return error.fix(AT).replace("sources.github_app.address", "sources.github_app.api"),
            E::Handed(error) => error.fix(),
            E::NoKey(_) | E::Key(..) => {
                "make a private key on the App's page, put the file that GitHub gives there as it is (0600), and name \
                 it in sources.github_app.private_key; a variable takes a restart"
            }
            E::NoRandomness => "see why the system gives no random bytes",
            E::Clock => "set this machine's clock by NTP; the broker tries again by itself",
            E::Refused(_) => {
                "compare sources.github_app.client_id (or app_id) with the App's page, and see there whether the key is \
                 still one of its own"
            }
            E::NoInstallation => {
                "install the App, and write the number at the end of the installation's address into \
                 sources.github_app.installation_id"
            }
            E::Suspended => "unsuspend the App where it is installed (Settings, GitHub Apps)",
            E::NotGranted(_) => {
                "give the App these permissions on its page and accept them where it is installed, or ask for fewer in \
                 the credential's source or the session's scope"
            }
            E::NoRepository => {
                "add the repository where the App is installed, or correct `repositories` of the credential's source or \
                 of the session's scope: names without their owner"
            }
            E::Denied => "see in GitHub whether an IP allow list, or a policy of the organisation, keeps the broker out",
            E::Failing(_) => "see GitHub's status; the broker tries again by itself",
            E::Moved | E::Malformed => {
                "see whether sources.github_app.api is the API: https://api.github.com, or https://HOST/api/v3 of a \
                 GitHub Enterprise Server"
            }
            E::Unused { why, .. } => return why.fix(),
            E::Wider(_) | E::Unsaid(_) => "see whether sources.github_app.api is GitHub's own, and not something before it",
        }
        .to_owned()
    }
}

fn outcome(given_back: bool) -> &'static str {
    if given_back { "was given back" } else { "could not be given back, and lives on, for an hour at most" }
}
