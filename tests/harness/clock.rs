//! A wall clock that jumps, for the broker and Envoy: a library that they are started with (`clock.c`).
//! Their monotonic clock, and the times of files, stay as they are.

use crate::preloaded::Preloaded;

/// The wall clock of some processes.
pub struct Clock(Preloaded);

impl Clock {
    /// A clock that goes right.
    #[must_use]
    pub fn right() -> Self {
        Self(Preloaded::of("clock.c", "ATTACHE_TEST_CLOCK"))
    }

    /// From now on it is so many seconds ahead, or behind.
    pub fn off_by(&self, seconds: i64) {
        self.0.tell(seconds);
    }

    /// What a process that lives by it has in its environment.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        self.0.env()
    }
}
