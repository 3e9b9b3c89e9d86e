//! The one place that reads clocks. Everything else is told the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment, on both clocks: validity ends when either says so.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Unix time in milliseconds. May jump.
    pub wall_ms: u64,
    /// Never goes back, and stands still while the machine sleeps.
    pub mono: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_ms: millis(wall), mono: Instant::now() }
    }

    /// A later (or the same) moment, when no clock jumps in between.
    pub fn plus(self, length: Duration) -> Self {
        // A length that no clock can hold never comes to pass; a century stands for it.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
        let mono = self.mono.checked_add(length.min(CENTURY)).unwrap_or(self.mono);
        Self { wall_ms: self.wall_ms.saturating_add(millis(length)), mono }
    }

    /// What is left until `deadline`: the lesser of what the two clocks say.
    pub fn until(self, deadline: Now) -> Duration {
        let wall = Duration::from_millis(deadline.wall_ms.saturating_sub(self.wall_ms));
        wall.min(deadline.mono.saturating_duration_since(self.mono))
    }
}

/// Whole milliseconds, saturating.
pub fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339, UTC, milliseconds: `2026-01-31T12:00:00.000Z`.
pub fn rfc3339(wall_ms: u64) -> String {
    let at = i64::try_from(wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_is_further_ahead_ends_it() {
        let start = Now::read();
        let deadline = start.plus(Duration::from_secs(60));
        assert_eq!(start.until(deadline), Duration::from_secs(60));
        let wall_ahead = Now { wall_ms: start.wall_ms + 3_600_000, ..start };
        assert_eq!(wall_ahead.until(deadline), Duration::ZERO);
        let wall_behind = Now { wall_ms: start.wall_ms - 3_600_000, ..start.plus(Duration::from_secs(59)) };
        assert_eq!(wall_behind.until(deadline), Duration::from_secs(1));
    }

    #[test]
    fn timestamps_keep_their_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_769_860_800_120), "2026-01-31T12:00:00.120Z");
        assert_eq!(rfc3339(u64::MAX).len(), "9999-12-30T22:00:00.999Z".len());
    }
}
