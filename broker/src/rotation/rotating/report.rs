//! What is told of a rotation: to the record, to operators, and to the next life of the broker.

use super::{Rotating, State};
use crate::audit::{Decision, Kind, Record};
use crate::clock::Now;
use crate::rotation::schedule::due;
use crate::rotation::{RotationError, RotationStanding};
use crate::store::Step;
use std::sync::PoisonError;

impl Rotating {
    pub(super) fn record(&self, state: &State, decision: Decision, fingerprint: Option<String>) -> Record {
        let by = if state.row.operator { "by an operator" } else { "by schedule" };
        Record {
            service: Some(self.service.clone()),
            credential: Some(self.name.clone()),
            decision: Some(decision.as_str().into()),
            reason: Some(by.to_owned()),
            fingerprint,
            ..Record::new(Kind::Renew, Now::read().wall_ms)
        }
    }

    pub(super) async fn went_well(&self, state: &mut State, result: &'static str) -> Result<(), RotationError> {
        state.life.went_well();
        state.row.failures = 0;
        (state.row.retry_ms, state.row.error, state.row.fix) = (None, None, None);
        self.parts.meters.count(&self.name, result);
        self.keep(state).await
    }

    /// Told once, and again whenever there were twice as many. A secret that was put aside is told each time.
    pub(super) async fn failed(&self, state: &mut State, error: &RotationError) {
        let now = Now::read();
        let failures = state.row.failures.saturating_add(1);
        state.row.failures = failures;
        state.row.retry_ms = Some(state.life.failed(failures, now));
        (state.row.error, state.row.fix) = (Some(error.to_string()), Some(error.fix().to_owned()));
        let is_rejected = matches!(error, RotationError::Rejected { .. } | RotationError::Replaced(_));
        let result = if is_rejected { "rejected" } else { "failed" };
        self.parts.meters.count(&self.name, result);
        tracing::error!(credential = %self.name, %error, failures, "the rotation fails");
        if let Err(error) = self.keep(state).await {
            tracing::error!(credential = %self.name, %error, "how far the rotation has got is not stored");
        }
        if is_rejected || failures.is_power_of_two() {
            let what =
                if state.row.step == Step::Overlap { "the old secret is not retired" } else { "it is not rotated" };
            let times = if failures == 1 { String::new() } else { format!(" ({failures} times)") };
            let alarm = Record {
                service: Some(self.service.clone()),
                credential: Some(self.name.clone()),
                reason: Some(format!("{what}{times}: {error}")),
                ..Record::new(Kind::Alarm, now.wall_ms)
            };
            if self.parts.audit.append(alarm).await.is_err() {
                tracing::error!(credential = %self.name, "nor is that on record");
            }
        }
    }

    pub(super) async fn keep(&self, state: &State) -> Result<(), RotationError> {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = state.row.clone();
        Ok(self.parts.store.keep_rotation(&state.row).await?)
    }

    /// How it stands.
    pub fn standing(&self) -> RotationStanding {
        let row = self.shown.read().unwrap_or_else(PoisonError::into_inner).clone();
        let waits = row.step == Step::Overlap;
        RotationStanding {
            rotated_ms: row.rotated_ms,
            next_ms: self.every.map(|every| due(row.since_ms, every)),
            retire_ms: row.retire_ms.filter(|_| waits),
            failures: row.failures,
            retry_ms: row.retry_ms,
            error: row.error,
            fix: row.fix,
        }
    }
}
