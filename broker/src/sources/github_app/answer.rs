//! What an answer says. Words of it are looked for, and none is kept.

use super::error::GitHubError;
use crate::config::{Level, TokenScope};
use crate::sources::MOST;
use crate::sources::http::Reply;
use attache_core::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What every installation may, asked for or not.
const ALWAYS: &str = "metadata";

/// A token that works, whether or not it can be used.
#[derive(Deserialize)]
pub struct Issued {
    pub token: Secret,
    #[serde(default)]
    expires_at: String,
    permissions: Option<BTreeMap<String, String>>,
    repositories: Option<Vec<Repository>>,
    repository_selection: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Installation {
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

/// What an answer to asking for a token says. The token is somebody's to give back from now on.
pub fn issued(reply: &Reply) -> Result<Issued, GitHubError> {
    if reply.status != 201 {
        return Err(failure(reply));
    }
    let issued: Issued = serde_json::from_slice(&reply.body).map_err(|_| GitHubError::Malformed)?;
    // Exposed to be measured.
    if issued.token.expose().is_empty() { Err(GitHubError::Malformed) } else { Ok(issued) }
}

impl Issued {
    /// How long it lives, if it is what was asked for; `asked_ms` is when that was, by our clock, in Unix milliseconds.
    pub fn usable(&self, scope: &TokenScope, asked_ms: u64) -> Result<Duration, GitHubError> {
        self.within(scope)?;
        // Exposed to be measured.
        if self.token.expose().len() > MOST {
            return Err(GitHubError::Malformed);
        }
        let ends: jiff::Timestamp = self.expires_at.parse().map_err(|_| GitHubError::Malformed)?;
        let left = u64::try_from(ends.as_millisecond()).unwrap_or_default().saturating_sub(asked_ms);
        if left == 0 { Err(GitHubError::Clock) } else { Ok(Duration::from_millis(left)) }
    }

    /// Whether it reaches no more than was asked for, and says so.
    fn within(&self, scope: &TokenScope) -> Result<(), GitHubError> {
        let asked = |name: &str, level: &str| {
            let most = scope.permissions.as_ref().map(|all| all.get(name).copied());
            most.is_none_or(|most| most.is_some_and(|most| level_of(level).is_some_and(|has| has <= most)))
        };
        let is_given = |(name, level): (&String, &String)| (name == ALWAYS && level == "read") || asked(name, level);
        if !self.permissions.iter().flatten().all(is_given) {
            return Err(GitHubError::Wider("permissions"));
        }
        let names = |all: &Repository| {
            scope.repositories.as_ref().is_none_or(|some| some.iter().any(|name| name.eq_ignore_ascii_case(&all.name)))
                && scope.repository_ids.as_ref().is_none_or(|some| some.contains(&all.id))
        };
        let named = scope.repositories.is_some() || scope.repository_ids.is_some();
        let all = named && self.repository_selection.as_deref() == Some("all");
        if all || !self.repositories.iter().flatten().all(names) {
            return Err(GitHubError::Wider("repositories"));
        }
        if scope.permissions.is_some() && self.permissions.is_none() {
            return Err(GitHubError::Unsaid("permissions"));
        }
        if named && (self.repository_selection.as_deref() != Some("selected") || self.repositories.is_none()) {
            return Err(GitHubError::Unsaid("repositories"));
        }
        Ok(())
    }
}

/// Whether an installation can give tokens that reach so much.
pub fn installation(reply: &Reply, scope: &TokenScope) -> Result<(), GitHubError> {
    if reply.status != 200 {
        return Err(failure(reply));
    }
    let said: Installation = serde_json::from_slice(&reply.body).map_err(|_| GitHubError::Malformed)?;
    if said.suspended_at.is_some() {
        return Err(GitHubError::Suspended);
    }
    let has = |name: &str| said.permissions.get(name).and_then(|level| level_of(level));
    let lacks = scope.permissions.iter().flatten().find(|(name, level)| has(name).is_none_or(|has| has < **level));
    match lacks {
        Some((name, level)) => Err(GitHubError::NotGranted(Some(format!("{name}: {level}")))),
        None => Ok(()),
    }
}

fn level_of(word: &str) -> Option<Level> {
    [Level::Read, Level::Write, Level::Admin].into_iter().find(|level| level.as_str() == word)
}

/// Whether it says that a quota is used up.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>
pub fn is_busy(reply: &Reply) -> bool {
    reply.status == 429 || reply.status == 403 && said(reply).is_some_and(|said| said.contains("rate limit"))
}

/// Its message, in small letters; `None`: the answer is not GitHub's.
fn said(reply: &Reply) -> Option<String> {
    let said: Failure = serde_json::from_slice(&reply.body).ok()?;
    Some(said.message.to_ascii_lowercase())
}

/// What an answer says that is none.
pub fn failure(reply: &Reply) -> GitHubError {
    let said = said(reply);
    let is_githubs = said.is_some();
    let message = said.unwrap_or_default();
    let says = |word: &str| message.contains(word);
    match reply.status {
        // `'Issued at' claim ('iat') must be …`, `'Expiration time' claim ('exp') is too far in the future`.
        401 if says("('iat')") || says("('exp')") => GitHubError::Clock,
        401 => GitHubError::Refused(None),
        403 if says("suspended") => GitHubError::Suspended,
        403 => GitHubError::Denied,
        // `Integration not found`: of the App, not of its installation.
        404 if says("integration") => GitHubError::Refused(None),
        // Any server has pages that are not there.
        404 if is_githubs => GitHubError::NoInstallation,
        422 if says("repositor") => GitHubError::NoRepository,
        422 => GitHubError::NotGranted(None),
        301 | 302 | 303 | 307 | 308 => GitHubError::Moved,
        500..=599 => GitHubError::Failing(reply.status),
        _ => GitHubError::Malformed,
    }
}
