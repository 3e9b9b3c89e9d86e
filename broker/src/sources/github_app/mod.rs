//! A GitHub App: installation tokens, one a session, by GitHub's API: <https://docs.github.com/en/rest/apps/apps>
//!
//! A token reaches no more repositories and permissions than its session may. It lives for an hour, is replaced ahead of
//! its end, and given back when nobody uses it any longer.

mod answer;
mod client;
mod error;
mod jwt;
#[cfg(test)]
mod tests;

pub use client::Client;

use super::remembered::{Answer, Pace, Remembered, Remote};
use super::{Issuer, Later, Meter, Source, Trouble};
use crate::config::{GitHubAppToken, TokenScope};
use attache_core::Secret;
use error::GitHubError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How often it is looked whether the App is still installed, and may what it is to give.
const PROBED: Duration = Duration::from_secs(600);

/// Gives sessions tokens of one App.
pub struct App {
    client: Arc<Client>,
    installation: Remembered<Installation>,
    meter: OnceLock<Meter>,
}

impl App {
    /// Nobody is asked yet.
    pub fn new(token: &GitHubAppToken, client: Arc<Client>) -> Self {
        let installation = Installation { client: client.clone(), scope: token.scope.clone() };
        let pace = Pace { refresh: PROBED, ..Pace::default() };
        Self { client, installation: Remembered::new(installation, pace), meter: OnceLock::new() }
    }
}

impl Issuer for App {
    fn place(&self) -> &dyn Source {
        &self.installation
    }

    fn open(&self, scope: &TokenScope) -> Box<dyn Source> {
        let pace = Pace { refresh: self.client.refresh(), ..Pace::default() };
        let tokens = Remembered::new(Tokens::new(self.client.clone(), scope.clone()), pace);
        if let Some(meter) = self.meter.get() {
            tokens.count(meter.clone());
        }
        Box::new(tokens)
    }

    fn count(&self, meter: Meter) {
        self.installation.count(meter.clone());
        let _ = self.meter.set(meter);
    }
}

/// Where the App is installed.
struct Installation {
    client: Arc<Client>,
    scope: TokenScope,
}

impl Remote for Installation {
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            self.client.look(&self.scope).await?;
            // Nothing that anybody could use, and nobody does: that it is there is the answer.
            Ok(Answer::Secret { secret: Secret::new(""), valid: None, lease: None })
        })
    }

    fn place(&self) -> String {
        self.client.place()
    }
}

/// The tokens of one session.
struct Tokens {
    client: Arc<Client>,
    scope: TokenScope,
    held: Arc<Held>,
}

/// Those that work, by the number that stands for them: a token is its own lease, and nothing else may hold it.
#[derive(Default)]
struct Held(Mutex<State>);

#[derive(Default)]
struct State {
    tokens: BTreeMap<String, Secret>,
    count: u64,
    /// Whether nobody uses any of them any longer.
    closed: bool,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number; `None`: it comes too late.
    fn keep(&self, token: &Secret) -> Option<String> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.count += 1;
        let number = state.count.to_string();
        state.tokens.insert(number.clone(), token.clone());
        Some(number)
    }
}

impl Tokens {
    fn new(client: Arc<Client>, scope: TokenScope) -> Self {
        Self { client, scope, held: Arc::default() }
    }
}

impl Remote for Tokens {
    /// A token cannot be renewed: another takes its place.
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        let (client, scope, held) = (self.client.clone(), self.scope.clone(), self.held.clone());
        Box::pin(async {
            // Detached: who waits may go away, and what was issued meanwhile would be nobody's to give back.
            let asking = tokio::spawn(async move {
                let (token, valid) = client.issue(&scope).await?;
                if let Some(number) = held.keep(&token) {
                    return Ok(Answer::Secret { secret: token, valid: Some(valid), lease: Some(number) });
                }
                client.give_back(&token).await?;
                Ok(Answer::Absent)
            });
            asking.await.unwrap_or_else(|_| Err(Trouble::passing("nobody waits for it any longer", "ask again")))
        })
    }

    fn give_back(&self, lease: String) -> Later<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let token = self.held.state().tokens.remove(&lease);
            match token {
                Some(token) => Ok(self.client.give_back(&token).await?),
                None => Ok(()),
            }
        })
    }

    /// What nobody has waited for until it came is given back, too.
    fn leave(&self) -> Later<'_, ()> {
        Box::pin(async {
            let left = {
                let mut state = self.held.state();
                state.closed = true;
                std::mem::take(&mut state.tokens)
            };
            for token in left.into_values() {
                if let Err(error) = self.client.give_back(&token).await {
                    tracing::warn!(place = %self.place(), %error, "a token was not given back; it ends by itself");
                }
            }
        })
    }

    fn place(&self) -> String {
        self.client.place()
    }
}

impl From<GitHubError> for Trouble {
    fn from(error: GitHubError) -> Self {
        let (what, fix) = (error.to_string(), error.fix());
        let trouble = if error.passes() { Self::passing(what, fix) } else { Self::lasting(what, fix) };
        trouble.not_before(error.wait())
    }
}
