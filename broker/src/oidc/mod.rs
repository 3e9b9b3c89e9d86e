//! Identities: JWTs of the providers that the config names, and the sessions that they name.
//!
//! A token counts only when its provider is one of ours by issuer and header, its signature is of an
//! algorithm that the config pins, by a key of that provider, and issuer, audience and times fit.
//! What else is in its header (`jwk`, `jku`, `x5u` …) is never followed. Whatever is wrong with a
//! token, the answer is the same as to none; only keys that cannot be fetched are told apart.

mod keys;
mod ring;
mod rules;
mod verify;

pub use keys::ClientError;

use crate::clock::Now;
use crate::config::oidc::{Algorithm, Provider, Rule};
use attache_core::evidence::MOST_JWT;
use attache_core::names::Name;
use attache_core::refusal::Reason;
use attache_core::wire::ShownJwt;
use keys::Keys;
use std::time::Duration;

/// How often keys are fetched anew when nothing asks for it.
const REFRESH: Duration = Duration::from_secs(300);

/// All providers of an instance.
pub struct Identities(Vec<Known>);

/// A provider and its keys.
struct Known {
    name: Name,
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    header: String,
    rules: Vec<Rule>,
    keys: Keys,
}

/// Whom a token names.
#[derive(Clone, Debug)]
pub struct Named {
    /// The session.
    pub session: Name,
    /// When the token expires.
    pub expires: Now,
}

/// Why a token names nobody. Names no byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Wrong {
    #[error("is none")]
    Malformed,
    #[error("no provider has this issuer and header")]
    Issuer,
    #[error("another algorithm than the config pins")]
    Algorithm,
    #[error("asks for extensions that nobody here understands")]
    Critical,
    #[error("no key of the provider has its id")]
    Key,
    #[error("the signature, or a claim, does not hold")]
    Signature,
    #[error("is not valid yet")]
    Early,
    #[error("has expired")]
    Expired,
    #[error("no rule fits its claims")]
    NoRule,
    #[error("the provider's keys are not to be had")]
    NoKeys,
}

impl Identities {
    /// The providers of a config; nothing is fetched yet.
    pub fn new(providers: &[Provider]) -> Result<Self, ClientError> {
        ring::install();
        let known = |provider: &Provider| {
            Ok(Known {
                name: provider.name.clone(),
                issuer: provider.issuer.clone(),
                audience: provider.audience.clone(),
                algorithms: provider.algorithms.clone(),
                header: provider.header.clone(),
                rules: provider.rules.clone(),
                keys: Keys::new(&provider.keys)?,
            })
        };
        providers.iter().map(known).collect::<Result<_, _>>().map(Self)
    }

    /// Fetches all keys, over and over.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(REFRESH);
        loop {
            tick.tick().await;
            for known in &self.0 {
                known.refresh().await;
            }
        }
    }

    /// Whom a token names now.
    pub async fn identify(&self, shown: &ShownJwt, now: Now) -> Result<Named, Reason> {
        let named = match self.provider(shown) {
            Ok(known) => known.verify(&shown.token, now).await,
            Err(wrong) => Err(wrong),
        };
        named.map_err(|wrong| {
            tracing::info!(header = shown.header, %wrong, "a JWT names nobody");
            if wrong == Wrong::NoKeys { Reason::SourceUnavailable } else { Reason::IdentityRequired }
        })
    }

    /// The provider that a token claims to be of, which its signature must prove.
    fn provider(&self, shown: &ShownJwt) -> Result<&Known, Wrong> {
        if shown.token.len() > MOST_JWT {
            return Err(Wrong::Malformed);
        }
        let issuer = verify::claimed_issuer(&shown.token)?;
        let of = |known: &&Known| known.header == shown.header && known.issuer == issuer;
        self.0.iter().find(of).ok_or(Wrong::Issuer)
    }
}

impl Known {
    async fn refresh(&self) {
        if let Err(error) = self.keys.refresh().await {
            tracing::warn!(provider = %self.name, %error, "the provider's keys could not be fetched");
        }
    }

    async fn verify(&self, token: &str, now: Now) -> Result<Named, Wrong> {
        let (kid, algorithm) = verify::header(token, &self.algorithms)?;
        let keys = self.keys.find(kid.as_deref(), algorithm).await;
        let key = keys.map_err(|error| {
            tracing::warn!(provider = %self.name, %error, "the provider's keys are not to be had");
            Wrong::NoKeys
        })?;
        let key = key.ok_or(Wrong::Key)?;
        let verified = verify::claims(token, &key, algorithm, (&self.issuer, &self.audience), now)?;
        let session = rules::session(&self.rules, &verified.claims).ok_or(Wrong::NoRule)?;
        Ok(Named { session: session.clone(), expires: verified.expires })
    }
}

#[cfg(test)]
mod tests;
