//! 1Password, by its command line `op`: <https://developer.1password.com/docs/cli/secret-references/>
//!
//! A question takes seconds and is counted by 1Password, so answers are remembered, and asked for
//! anew behind the back of whoever uses them. A reference stands in the config: what it names is
//! there, or it is an error. Nothing here is ever "absent".

mod op;
#[cfg(test)]
mod tests;

pub use op::{ENVIRONMENT, OpError, find};

use super::{Mark, Reading, Source, SourceError};
use crate::config::OnePassword;
use attache_core::Secret;
use op::Op;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After a failure it is asked again no sooner.
const RETRY: Duration = Duration::from_secs(30);

/// For so long after it was due a secret is good though 1Password does not answer. Where it answers
/// that there is none, that holds at once.
const BELIEVED: Duration = Duration::from_secs(3600);

/// One secret reference.
pub struct Item {
    inner: Arc<Inner>,
}

struct Inner {
    op: Op,
    reference: String,
    refresh: Duration,
    memory: Mutex<Memory>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Memory {
    /// When and how it answered last.
    last: Option<(Instant, Result<(), OpError>)>,
    /// What it answered, when it was last good.
    good: Option<(Instant, Secret)>,
    /// Changes with each answer.
    answers: u64,
    /// Changes whenever the last answer is forgotten.
    forgotten: u64,
    /// Whether somebody is asking behind the back of the others.
    busy: bool,
}

impl Item {
    pub(super) fn new(config: &OnePassword, environment: &[(&'static str, Secret)]) -> Self {
        let inner = Inner {
            op: Op::new(config, environment),
            reference: config.reference.clone(),
            refresh: config.refresh,
            memory: Mutex::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `op`, unless the last answer is young enough.
    async fn ask(&self) {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        loop {
            let forgotten = {
                let memory = self.memory();
                if !memory.is_due(self.refresh) {
                    return;
                }
                memory.forgotten
            };
            let answer = self.op.read(&self.reference).await;
            let (mut memory, now) = (self.memory(), Instant::now());
            // Whoever had it forgotten meanwhile wants an answer to a later question.
            if memory.forgotten != forgotten {
                continue;
            }
            memory.last = Some((now, answer.as_ref().map(|_| ()).map_err(|error| *error)));
            memory.answers += 1;
            if let Ok(secret) = answer {
                memory.good = Some((now, secret));
            }
            return;
        }
    }
}

impl Memory {
    fn is_due(&self, refresh: Duration) -> bool {
        self.last.as_ref().is_none_or(|(at, answer)| at.elapsed() >= answer.map_or(RETRY, |()| refresh))
    }

    /// What holds now.
    fn answer(&self, refresh: Duration) -> Result<Secret, OpError> {
        match (&self.last, &self.good) {
            (Some((_, Ok(()))), Some((_, secret))) => Ok(secret.clone()),
            (Some((_, Err(error))), Some((at, secret))) if error.passes() && at.elapsed() < refresh + BELIEVED => {
                Ok(secret.clone())
            }
            (Some((_, Err(error))), _) => Err(*error),
            // Nobody has asked.
            (None | Some((_, Ok(()))), _) => Err(OpError::TimedOut),
        }
    }
}

impl Source for Item {
    fn read(&self) -> Reading<'_> {
        Box::pin(async {
            self.inner.ask().await;
            let answer = self.inner.memory().answer(self.inner.refresh);
            answer.map(Some).map_err(|why| SourceError::OnePassword { place: self.place(), why })
        })
    }

    fn mark(&self) -> Mark {
        let mut memory = self.inner.memory();
        // Who has never been read stands behind another source, and costs no question.
        let due = memory.last.is_some() && memory.is_due(self.inner.refresh) && !memory.busy;
        if let (true, Ok(runtime)) = (due, tokio::runtime::Handle::try_current()) {
            memory.busy = true;
            let inner = Arc::clone(&self.inner);
            runtime.spawn(async move {
                inner.ask().await;
                inner.memory().busy = false;
            });
        }
        Mark::Answers(memory.answers)
    }

    fn place(&self) -> String {
        format!("1password {}", self.inner.reference)
    }

    fn forget(&self) {
        let mut memory = self.inner.memory();
        memory.last = None;
        memory.forgotten += 1;
    }

    fn trouble(&self) -> Option<String> {
        let memory = self.inner.memory();
        let error = memory.last.as_ref().and_then(|(_, answer)| answer.err())?;
        Some(format!("{}: {error}", self.place()))
    }
}
