//! Who has said "too many requests" is asked nothing for a while, by none of the secrets that he has.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// However long he wants to be left alone, he is asked again after this.
const MOST: Duration = Duration::from_secs(3600);

/// Until when nobody is asked.
#[derive(Default)]
pub struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// For how long yet; `None`: he may be asked.
    pub fn left(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// He is left alone for so long. How long that is.
    pub fn keep(&self, length: Duration) -> Duration {
        let length = length.min(MOST);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + length);
        length
    }
}
