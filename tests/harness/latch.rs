//! Holds the broker's grants back until a test lets them go: no delay to guess, no luck needed.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Past every bound that is promised: a test that forgets to release fails, it does not hang.
const LONGEST: Duration = Duration::from_secs(30);

/// A closed door. It opens once, at the latest when the test is over.
#[derive(Default)]
pub struct Latch(Arc<Door>);

#[derive(Default)]
struct Door {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    /// `answer`, but not before the release; for [`crate::FakeBroker::answer_grants`]. Needs a
    /// runtime with several threads.
    pub fn before(
        &self,
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> impl Fn(&Value) -> Value + Send + Sync + 'static {
        let door = Arc::clone(&self.0);
        move |request| {
            tokio::task::block_in_place(|| door.wait());
            answer(request)
        }
    }

    /// Lets everything go that waits, and all that comes later. Answers when that was.
    pub fn release(&self) -> Instant {
        let at = Instant::now();
        *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.opened.notify_all();
        at
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.release();
    }
}

impl Door {
    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_timeout_while(open, LONGEST, |open| !*open));
    }
}
