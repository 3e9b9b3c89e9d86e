//! A Connect server, by its API: <https://developer.1password.com/docs/connect/api-reference/>
//!
//! One client for all references of a broker. One reading of an item serves all of them, and IDs are remembered: each
//! secret is asked for when its answer is two thirds of `refresh` old, and an item that somebody else has read within
//! the last third is good enough. So none is older than `refresh`, and an item is read three times in it at most.

mod answer;
mod client;
mod error;
#[cfg(test)]
mod tests;

pub use client::Client;

use crate::config::OnePassword;
use crate::sources::Later;
use crate::sources::http::{HttpError, LONGEST};
use crate::sources::remembered::{Answer, Pace, Remembered, Remote};
use crate::sources::trouble::Trouble;
use answer::Reference;
use error::ConnectError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One secret reference.
pub struct Item {
    client: Arc<Client>,
    config: OnePassword,
    reference: Reference,
    /// What was read earlier is no answer.
    since: Mutex<Option<Instant>>,
}

/// For how long a reading of an item serves all references to it.
pub(in crate::sources) fn age(refresh: Duration) -> Duration {
    refresh / 3
}

/// The source for one secret reference.
pub(super) fn open(config: &OnePassword, client: Arc<Client>) -> Remembered<Item> {
    let reference = Reference::parse(&config.reference);
    client.enter(&reference);
    let pace = Pace { refresh: config.refresh - age(config.refresh), ..Pace::default() };
    Remembered::new(Item { client, config: config.clone(), reference, since: Mutex::default() }, pace)
}

impl Remote for Item {
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            let item = tokio::time::timeout(LONGEST, self.client.item(&self.reference, since)).await;
            let item = item.unwrap_or(Err(ConnectError::from(HttpError::TimedOut)))?;
            let secret = item.value(&self.reference)?;
            Ok(Answer::Secret { secret, valid: None, lease: None })
        })
    }

    fn forget(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn place(&self) -> String {
        self.config.place()
    }
}
