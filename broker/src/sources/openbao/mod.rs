//! OpenBao, and HashiCorp Vault, by their API: <https://openbao.org/api-docs/>
//!
//! One client, and one login, for all secrets of a broker. A path with nothing at it is absent; what is there and not
//! usable (no such field, deleted, denied) is an error. What came with a lease is renewed, and given back.

mod answer;
mod client;
mod error;
mod http;
#[cfg(test)]
mod tests;
mod transit;
mod wrapped;

pub use client::Client;
pub use transit::Transit;

use super::Later;
use super::http::HttpError;
use super::remembered::{Answer, Pace, Remembered, Remote};
use super::trouble::Trouble;
use crate::config::OpenBaoSecret;
use answer::{Found, error_says, failure, parse, reading};
use client::Token;
use error::OpenBaoError;
use http::{LONGEST, Question};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What is renewed for less than it lived before is near its maximum; a second is lost by rounding.
const ROUNDED: Duration = Duration::from_secs(2);

/// One field of one secret.
pub struct Item {
    client: Arc<Client>,
    config: OpenBaoSecret,
    held: Mutex<Option<Held>>,
}

/// What is leased.
#[derive(Clone)]
struct Held {
    id: String,
    /// How long it lived at first.
    whole: Duration,
    ends: Instant,
    renewable: bool,
    /// Under which token: it ends with that.
    generation: u64,
}

#[derive(Serialize)]
struct Lease<'a> {
    lease_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    increment: Option<u64>,
}

/// The source for one secret.
pub(super) fn open(config: &OpenBaoSecret, client: Arc<Client>) -> Remembered<Item> {
    client.enter();
    let pace = Pace { refresh: config.server.refresh, ..Pace::default() };
    Remembered::new(Item { client, config: config.clone(), held: Mutex::default() }, pace)
}

impl Remote for Item {
    fn ask(&self, held: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            let answered = tokio::time::timeout(LONGEST, self.answer(held)).await;
            Ok(answered.unwrap_or(Err(HttpError::TimedOut.into()))?)
        })
    }

    fn give_back(&self, lease: String) -> Later<'_, Result<(), Trouble>> {
        Box::pin(async move {
            // Without a token, the one that it was leased under is over, and the lease with it.
            let Some(token) = self.client.at_hand().await else { return Ok(()) };
            let body = Lease { lease_id: &lease, increment: None };
            let question = Question::post("sys/leases/revoke", &body).by(&token.secret).giving_back();
            let reply = self.client.ask(question).await?;
            if reply.status < 300 || error_says(&reply, "lease not found") {
                Ok(())
            } else {
                Err(failure(&reply).into())
            }
        })
    }

    fn leave(&self) -> Later<'_, ()> {
        Box::pin(self.client.leave())
    }

    fn place(&self) -> String {
        self.config.place()
    }
}

impl Item {
    async fn answer(&self, held: Option<String>) -> Result<Answer, OpenBaoError> {
        let held = held.and_then(|id| self.held().clone().filter(|held| held.id == id));
        match held {
            None => self.read().await,
            Some(held) => match self.go_on(&held).await? {
                Some(answer) => Ok(answer),
                None => self.read().await,
            },
        }
    }

    /// Reads it, with another token if this one may be over.
    async fn read(&self) -> Result<Answer, OpenBaoError> {
        let (mut token, new) = self.client.token().await?;
        let began = Instant::now();
        let mut reply = self.client.ask(self.question(&token)).await?;
        if reply.status == 403 {
            let why = self.client.why_denied(&token).await;
            // One that is known is good: another of ours would be denied, too.
            let over = !new && matches!(why, OpenBaoError::TokenRefused);
            let another = if over { self.client.another(&token).await? } else { None };
            token = another.ok_or(why)?;
            reply = self.client.ask(self.question(&token)).await?;
            if reply.status == 403 {
                return Err(self.client.why_denied(&token).await);
            }
        }
        let Some(Found { secret, lease }) =
            reading(&reply, &self.config.field, self.config.version, self.config.document)?
        else {
            *self.held() = None;
            return Ok(Answer::Absent);
        };
        let held = lease.map(|(id, whole, renewable)| Held {
            id,
            whole,
            ends: began + whole,
            renewable,
            generation: token.generation,
        });
        let valid = held.as_ref().map(|held| shorter(held.whole, &token));
        let lease = held.as_ref().map(|held| held.id.clone());
        *self.held() = held;
        Ok(Answer::Secret { secret, valid, lease })
    }

    fn question<'a>(&'a self, token: &'a Token) -> Question<'a> {
        Question::get(&self.config.path).version(self.config.version).by(&token.secret)
    }

    /// What is leased goes on, if it can; `None`: another has to take its place.
    async fn go_on(&self, held: &Held) -> Result<Option<Answer>, OpenBaoError> {
        let (token, _) = self.client.token().await?;
        let left = held.ends.saturating_duration_since(Instant::now());
        if token.generation != held.generation || left.is_zero() {
            return Ok(None);
        }
        let lease = |increment| Lease { lease_id: &held.id, increment };
        // Not yet: whether somebody has revoked it is all there is to ask.
        if left > held.whole / 2 {
            let reply = self.client.ask(Question::post("sys/leases/lookup", &lease(None)).by(&token.secret)).await?;
            return match reply.status {
                200 | 403 => Ok(Some(Answer::Renewed { valid: shorter(left, &token) })),
                400 | 404 => Ok(None),
                _ => Err(failure(&reply)),
            };
        }
        if !held.renewable {
            return Ok(None);
        }
        let began = Instant::now();
        let body = lease(Some(held.whole.as_secs()));
        let reply = self.client.ask(Question::post("sys/leases/renew", &body).by(&token.secret)).await;
        // Whatever keeps it from being renewed, another may be had.
        let Ok(said) =
            reply.and_then(|reply| if reply.status == 200 { parse(&reply.body) } else { Err(failure(&reply)) })
        else {
            return Ok(None);
        };
        let given = Duration::from_secs(said.lease_duration);
        *self.held() = Some(Held { ends: began + given, renewable: said.renewable, ..held.clone() });
        if given + ROUNDED >= held.whole {
            return Ok(Some(Answer::Renewed { valid: shorter(given, &token) }));
        }
        // Its maximum is near: another while this one still works. Where there is none to be had, this one to its end.
        match self.read().await {
            Err(why) if why.passes() => Ok(Some(Answer::Renewed { valid: shorter(given, &token) })),
            answer => answer.map(Some),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is leased ends with the token that it was leased under.
fn shorter(length: Duration, token: &Token) -> Duration {
    token.left().map_or(length, |left| left.min(length))
}
