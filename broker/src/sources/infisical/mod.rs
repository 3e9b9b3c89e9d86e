//! Infisical, by its API: <https://infisical.com/docs/api-reference/overview/introduction>
//!
//! One client, and one login, for all secrets of a broker. A name that its folder does not have is absent; no such
//! project, environment or folder, and what may not be read, are errors.

mod answer;
mod client;
mod error;
#[cfg(test)]
mod tests;

pub use client::Client;

use super::Later;
use super::http::{HttpError, LONGEST};
use super::remembered::{Answer, Pace, Remembered, Remote};
use super::trouble::Trouble;
use crate::config::InfisicalSecret;
use error::InfisicalError;
use std::sync::Arc;

/// One secret.
pub struct Item {
    client: Arc<Client>,
    config: InfisicalSecret,
}

/// The source for one secret.
pub(super) fn open(config: &InfisicalSecret, client: Arc<Client>) -> Remembered<Item> {
    client.enter();
    let pace = Pace { refresh: config.server.refresh, ..Pace::default() };
    Remembered::new(Item { client, config: config.clone() }, pace)
}

impl Remote for Item {
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            let read = tokio::time::timeout(LONGEST, self.client.read(&self.config)).await;
            match read.unwrap_or(Err(InfisicalError::from(HttpError::TimedOut)))? {
                Some(secret) => Ok(Answer::Secret { secret, valid: None, lease: None }),
                None => Ok(Answer::Absent),
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
