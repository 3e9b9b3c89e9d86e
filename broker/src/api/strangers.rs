//! Connections on which nobody has been let in yet: few, and the oldest makes way for the newest. So
//! whoever opens thousands and says nothing keeps neither filters nor operators out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Most of them at once, on one socket.
pub(super) const MOST: usize = 256;

/// What is known of one connection.
#[derive(Default)]
pub(super) struct Standing {
    /// A request on it was let in.
    known: AtomicBool,
    /// A request on it is being answered.
    busy: AtomicBool,
    /// Nobody was let in, on a connection that would go on.
    refused: Notify,
}

impl Standing {
    /// A request has come.
    pub fn asks(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// It was answered, and let in or not; whether the connection goes on after that.
    pub fn answered(&self, let_in: bool, goes_on: bool) {
        self.busy.store(false, Ordering::Relaxed);
        let known = self.known.fetch_or(let_in, Ordering::Relaxed) || let_in;
        if goes_on && !known {
            self.refused.notify_one();
        }
    }

    /// Waits until nobody was let in.
    pub async fn refused(&self) {
        self.refused.notified().await;
    }

    /// Whether a request on it was let in.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Whether a request on it is being answered.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }
}

/// The strangers of one socket, oldest first.
#[derive(Default)]
pub(super) struct Strangers {
    all: VecDeque<(Arc<Standing>, AbortHandle)>,
}

impl Strangers {
    /// One more. Who is being answered stays: that is a filter's first call, or takes no time.
    pub fn admit(&mut self, standing: Arc<Standing>, connection: AbortHandle) {
        self.all.retain(|(standing, connection)| !standing.is_known() && !connection.is_finished());
        while self.all.len() >= MOST {
            let idle = self.all.iter().position(|(standing, _)| !standing.is_busy());
            let Some((_, oldest)) = idle.and_then(|at| self.all.remove(at)) else { break };
            oldest.abort();
        }
        self.all.push_back((standing, connection));
    }
}
