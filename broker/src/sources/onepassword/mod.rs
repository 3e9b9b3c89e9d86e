//! 1Password, by its command line `op` (<https://developer.1password.com/docs/cli/secret-references/>), or from a
//! Connect server (<https://developer.1password.com/docs/connect/>).
//!
//! A question to `op` takes seconds and is counted by 1Password. A reference stands in the config: what it names is
//! there, or it is an error. Nothing here is ever "absent".

pub mod connect;
mod op;
#[cfg(test)]
mod tests;

pub use op::{ENVIRONMENT, find};

use super::quiet::Quiet;
use super::remembered::{Answer, Pace, Remembered, Remote};
use super::trouble::Trouble;
use super::{Environment, Later, Source};
use crate::config::OnePassword;
use attache_core::Secret;
use op::{Op, OpError};
use std::sync::Arc;
use std::time::Duration;

/// After a failure it is asked again no sooner: questions are counted.
const RETRY: Duration = Duration::from_secs(30);
/// After "too many requests" no secret is asked for so long: what is counted is counted by the hour, or by the day
/// (<https://developer.1password.com/docs/service-accounts/rate-limits/>).
const QUIET: Duration = Duration::from_secs(20 * 60);

/// One secret reference.
pub struct Item {
    op: Op,
    config: OnePassword,
    quiet: Arc<Quiet>,
}

/// The source for one secret reference.
pub(super) fn open(config: &OnePassword, environment: &Environment) -> Box<dyn Source> {
    match &config.connect {
        Some(server) => Box::new(connect::open(config, environment.of_connect(server, config.refresh))),
        None => Box::new(by_op(config, environment.of_op(), environment.quiet_op().clone())),
    }
}

fn by_op(config: &OnePassword, environment: &[(&'static str, Secret)], quiet: Arc<Quiet>) -> Remembered<Item> {
    let item = Item { op: Op::new(config, environment), config: config.clone(), quiet };
    let pace = Pace { refresh: config.refresh, retry: RETRY, retry_most: config.refresh.max(RETRY), ..Pace::default() };
    Remembered::new(item, pace)
}

impl Remote for Item {
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            if let Some(left) = self.quiet.left() {
                return Err(Trouble::from(OpError::RateLimited).not_before(left));
            }
            match self.op.read(&self.config.reference).await {
                Ok(secret) => Ok(Answer::Secret { secret, valid: None, lease: None }),
                Err(error) => {
                    if error == OpError::RateLimited {
                        self.quiet.keep(QUIET);
                    }
                    Err(error.into())
                }
            }
        })
    }

    fn place(&self) -> String {
        self.config.place()
    }
}
