//! 1Password, by its command line `op`: <https://developer.1password.com/docs/cli/secret-references/>
//!
//! A question takes seconds and is counted by 1Password. A reference stands in the config: what it names is
//! there, or it is an error. Nothing here is ever "absent".

mod op;
#[cfg(test)]
mod tests;

pub use op::{ENVIRONMENT, find};

use super::Later;
use super::remembered::{Answer, Pace, Remembered, Remote};
use super::trouble::Trouble;
use crate::config::OnePassword;
use attache_core::Secret;
use op::Op;
use std::time::Duration;

/// After a failure it is asked again no sooner: questions are counted.
const RETRY: Duration = Duration::from_secs(30);

/// One secret reference.
pub struct Item {
    op: Op,
    config: OnePassword,
}

/// The source for one secret reference.
pub(super) fn open(config: &OnePassword, environment: &[(&'static str, Secret)]) -> Remembered<Item> {
    let item = Item { op: Op::new(config, environment), config: config.clone() };
    let pace = Pace { refresh: config.refresh, retry: RETRY, retry_most: config.refresh.max(RETRY), ..Pace::default() };
    Remembered::new(item, pace)
}

impl Remote for Item {
    fn ask(&self, _: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            let secret = self.op.read(&self.config.reference).await?;
            Ok(Answer::Secret { secret, valid: None, lease: None })
        })
    }

    fn place(&self) -> String {
        self.config.place()
    }
}
