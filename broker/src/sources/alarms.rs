//! What an operator has to look into: somebody may have had a secret before us. Raised here, put on record by
//! whoever keeps the records.

use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// One of them. Names places, never content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Where it was noticed.
    pub place: String,
    /// What was noticed.
    pub what: String,
}

/// Those that are not on record yet.
#[derive(Default)]
pub struct Alarms {
    waiting: Mutex<Vec<Alarm>>,
    raised: Notify,
}

impl Alarms {
    /// Raises one, and logs it.
    pub(super) fn raise(&self, place: String, what: String) {
        tracing::error!(%place, "{what}");
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Alarm { place, what });
        self.raised.notify_one();
    }

    /// All that were raised and not taken yet.
    pub fn take(&self) -> Vec<Alarm> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is one.
    pub async fn raised(&self) {
        self.raised.notified().await;
    }
}
