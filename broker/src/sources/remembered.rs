//! What is the same for all sources that ask somebody: an answer is remembered, asked for anew ahead
//! of its end and behind the back of whoever uses it, by one question at a time; failures have a pace of
//! their own; what was leased is renewed, and given back when another has taken its place.

use super::meter::Meter;
use super::trouble::Trouble;
use super::{Found, Later, Mark, Reading, Source, SourceError};
use crate::clock::Now;
use crate::random::share;
use attache_core::Secret;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// For so long after another secret has taken its place a leased one still works: requests that carry it are on
/// their way.
const OVERLAP: Duration = Duration::from_secs(30);

/// Whoever says that he is to be left alone is asked again after this long, whatever he has said.
const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// Whoever is asked for a secret, over a network or as a program: slowly, and not too often.
pub trait Remote: Send + Sync + 'static {
    /// Asks, in bounded time. `held` is the lease that the last secret came with: it may be renewed.
    fn ask(&self, held: Option<String>) -> Later<'_, Result<Answer, Trouble>>;

    /// Gives a lease back: nobody uses what came with it any longer.
    fn give_back(&self, lease: String) -> Later<'_, Result<(), Trouble>> {
        let _ = lease;
        Box::pin(async { Ok(()) })
    }

    /// The next question is one that somebody waits for: what others were told before is no answer to it.
    fn forget(&self) {}

    /// Nobody asks any longer.
    fn leave(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }

    /// The place, for people.
    fn place(&self) -> String;
}

/// What a place answers.
pub enum Answer {
    /// There is nothing. It falls through to the next source.
    Absent,
    /// A secret.
    Secret {
        /// The secret.
        secret: Secret,
        /// How long it is good, from the moment of the question; `None`: as long as it is there.
        valid: Option<Duration>,
        /// What renews it and gives it back.
        lease: Option<String>,
    },
    /// The secret that was held goes on.
    Renewed {
        /// How long, from the moment of the question.
        valid: Duration,
    },
}

/// How often somebody is asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// An answer is asked for anew when it is this old, or two thirds of its life are over.
    pub refresh: Duration,
    /// After a failure, or where there was nothing: at first so soon, then half as often each time.
    pub retry: Duration,
    /// But at least so often.
    pub retry_most: Duration,
    /// For so long after it was due a secret without an end of its own is good though nobody answers.
    pub believed: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(60),
            retry: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
            believed: Duration::from_secs(3600),
        }
    }
}

/// A source made of somebody to ask.
pub struct Remembered<R> {
    inner: Arc<Inner<R>>,
}

struct Inner<R> {
    remote: R,
    pace: Pace,
    memory: Mutex<Memory>,
    meter: OnceLock<Meter>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Memory {
    last: Option<Last>,
    /// The last secret.
    good: Option<Good>,
    /// Failures since the last answer.
    failures: u32,
    /// Changes with each answer.
    answers: u64,
    /// Changes whenever the last answer is forgotten.
    forgotten: u64,
    /// Whether nobody asks any longer.
    closed: bool,
    /// Whether somebody is asking behind the back of the others.
    busy: bool,
    /// Leases in whose place another is, and which requests on their way may still carry.
    replaced: Vec<String>,
}

/// The last answer, whatever it was.
struct Last {
    /// Whether there is a secret.
    said: Result<bool, Trouble>,
    /// When it is asked for anew.
    due: Instant,
}

#[derive(Clone)]
struct Good {
    secret: Secret,
    ends: Option<Now>,
    /// Until when it is good though nobody answers.
    believed: Instant,
    lease: Option<String>,
}

impl Good {
    fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| Now::read().until(ends).is_zero())
    }
}

impl<R: Remote> Remembered<R> {
    /// Nobody is asked yet.
    pub fn new(remote: R, pace: Pace) -> Self {
        let (memory, meter, one_at_a_time) = Default::default();
        Self { inner: Arc::new(Inner { remote, pace, memory, meter, one_at_a_time }) }
    }
}

impl<R: Remote> Inner<R> {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, unless the last answer is young enough.
    async fn ask(self: &Arc<Self>) {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        loop {
            let (forgotten, held) = {
                let memory = self.memory();
                if memory.closed || !memory.is_due() {
                    return;
                }
                // Who has it forgotten wants another secret, not the old one renewed.
                let held = memory.last.as_ref().and(memory.good.as_ref()).and_then(|good| good.lease.clone());
                (memory.forgotten, held)
            };
            let (asked, began) = (Now::read(), Instant::now());
            let answer = self.remote.ask(held).await;
            if let Some(meter) = self.meter.get() {
                meter.count(&answer);
            }
            let mut memory = self.memory();
            // Whoever had it forgotten meanwhile wants an answer to a later question. A lease is kept all the same.
            let again = memory.forgotten != forgotten;
            let replaced = memory.take(answer, (asked, began), &self.pace);
            if again {
                memory.last = None;
            }
            drop(memory);
            if let Some(lease) = replaced {
                self.give_back_later(lease);
            }
            if !again {
                return;
            }
        }
    }

    /// Detached: nobody waits for it, and a lease that is not given back ends by itself.
    fn give_back_later(self: &Arc<Self>, lease: String) {
        self.memory().replaced.push(lease.clone());
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(OVERLAP).await;
            // Unless all of them were given back at the end.
            let before = inner.memory().replaced.extract_if(.., |one| *one == lease).count();
            if before > 0 {
                inner.give_back(lease).await;
            }
        });
    }

    /// Gives back what is held, and what was.
    async fn give_all_back(&self) {
        let leases: Vec<_> = {
            let mut memory = self.memory();
            let replaced = std::mem::take(&mut memory.replaced);
            memory.good.take().and_then(|good| good.lease).into_iter().chain(replaced).collect()
        };
        for lease in leases {
            self.give_back(lease).await;
        }
    }

    async fn give_back(&self, lease: String) {
        if let Err(error) = self.remote.give_back(lease).await {
            let place = self.remote.place();
            tracing::warn!(%place, %error, "a lease was not given back; it ends by itself");
        }
    }
}

impl Memory {
    fn is_due(&self) -> bool {
        self.last.as_ref().is_none_or(|last| Instant::now() >= last.due)
    }

    /// Takes an answer. Answers with the lease whose place another has taken.
    fn take(&mut self, answer: Result<Answer, Trouble>, (asked, began): (Now, Instant), pace: &Pace) -> Option<String> {
        self.answers += 1;
        let mut replaced = None;
        let said = match answer {
            Ok(Answer::Secret { secret, valid, lease }) => {
                let old = self.good.take().and_then(|good| good.lease);
                replaced = old.filter(|old| Some(old) != lease.as_ref());
                let refresh = pace.refresh_of(valid);
                let ends = valid.map(|valid| asked.plus(valid));
                self.good = Some(Good { secret, ends, believed: began + refresh + pace.believed, lease });
                Ok((true, refresh))
            }
            Ok(Answer::Renewed { valid }) => {
                let refresh = pace.refresh_of(Some(valid));
                if let Some(good) = &mut self.good {
                    good.ends = Some(asked.plus(valid));
                    good.believed = began + refresh + pace.believed;
                }
                Ok((self.good.is_some(), refresh))
            }
            Ok(Answer::Absent) => {
                replaced = self.good.take().and_then(|good| good.lease);
                Ok((false, Duration::ZERO))
            }
            Err(trouble) => Err(trouble),
        };
        let (said, due) = match said {
            Ok((true, refresh)) => {
                self.failures = 0;
                (Ok(true), began + refresh)
            }
            other => {
                let least = other.as_ref().map_or_else(Trouble::wait, |_| Duration::ZERO).min(MOST_PATIENCE);
                let wait = pace.retry_after(self.failures).max(least);
                self.failures = self.failures.saturating_add(1);
                (other.map(|(there, _)| there), Instant::now() + wait)
            }
        };
        self.last = Some(Last { said, due });
        replaced
    }

    /// What holds now.
    fn answer(&self) -> Result<Option<Found>, Trouble> {
        let found = |good: &Good| {
            if good.has_ended() {
                return Err(Trouble::passing(
                    "what it has given has ended, and it has not given another yet",
                    "see whether it can be reached, and gives new ones",
                ));
            }
            Ok(Some(Found { secret: good.secret.clone(), ends: good.ends }))
        };
        match (self.last.as_ref().map(|last| &last.said), &self.good) {
            (Some(Ok(true)), Some(good)) => found(good),
            (Some(Ok(_)), _) => Ok(None),
            (Some(Err(trouble)), Some(good))
                if trouble.passes() && Instant::now() < good.believed && !good.has_ended() =>
            {
                found(good)
            }
            (Some(Err(trouble)), _) => Err(trouble.clone()),
            (None, _) => Err(Trouble::passing("it has not been asked", "ask again")),
        }
    }
}

impl Pace {
    /// When an answer that is good for so long is asked for anew: ahead of its end, and not all at once.
    fn refresh_of(&self, valid: Option<Duration>) -> Duration {
        let refresh = valid.map_or(self.refresh, |valid| self.refresh.min(valid * 2 / 3));
        refresh.mul_f64(1.0 - share() / 10.0)
    }

    /// How long nobody is asked after so many failures in a row.
    fn retry_after(&self, failures: u32) -> Duration {
        let wait = self.retry.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(self.retry_most);
        wait.mul_f64(1.0 - share() / 5.0)
    }
}

impl<R: Remote> Source for Remembered<R> {
    fn read(&self) -> Reading<'_> {
        Box::pin(async {
            self.inner.ask().await;
            let answer = self.inner.memory().answer();
            answer.map_err(|why| SourceError::Remote { place: self.place(), why })
        })
    }

    fn mark(&self) -> Mark {
        let mut memory = self.inner.memory();
        // Who has never been read stands behind another source, and costs no question.
        let due = memory.last.is_some() && memory.is_due() && !memory.busy;
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
        self.inner.remote.place()
    }

    fn forget(&self) {
        let mut memory = self.inner.memory();
        memory.last = None;
        memory.forgotten += 1;
        self.inner.remote.forget();
    }

    fn count(&self, meter: Meter) {
        let _ = self.inner.meter.set(meter);
    }

    fn trouble(&self) -> Option<Trouble> {
        let memory = self.inner.memory();
        memory.last.as_ref().and_then(|last| last.said.as_ref().err().cloned())
    }

    fn next(&self) -> Option<Duration> {
        let memory = self.inner.memory();
        memory.last.as_ref().map(|last| last.due.saturating_duration_since(Instant::now()))
    }

    fn close(&self) -> Later<'_, ()> {
        Box::pin(async {
            self.inner.memory().closed = true;
            self.inner.give_all_back().await;
            // What was asked for meanwhile has come by now.
            let _last = self.inner.one_at_a_time.lock().await;
            self.inner.give_all_back().await;
            self.inner.remote.leave().await;
        })
    }
}

#[cfg(test)]
mod tests;
