//! The schedule: bare, variant, bare, variant, … with the variants in a new
//! random order every round, so that each is measured between two bare slices
//! of the same moment.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::counters::{Interval, Meter, Probe};
use crate::load::{Ask, Count, Wrk};

/// The index of `bare` among the targets.
pub const BARE: usize = 0;

/// A proven variant.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Its listener's port.
    pub port: u16,
    /// What is asked for, by whom.
    pub ask: Ask,
    /// Its Envoy.
    pub envoy: Meter,
    /// The service it asks.
    pub service: Option<Meter>,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Which target.
    pub target: usize,
    /// In which round.
    pub round: usize,
    /// What the load saw.
    pub count: Count,
    /// What the machine did.
    pub interval: Interval,
}

/// What all series share.
#[derive(Debug)]
pub struct Runner<'a> {
    /// Makes the load.
    pub wrk: &'a Wrk,
    /// Reads the counters.
    pub probe: &'a Probe,
    /// `bare` first.
    pub targets: &'a [Target],
    /// The length of a slice.
    pub seconds: u64,
}

impl Runner<'_> {
    /// One unmeasured slice of each target: connections, JIT, caches.
    pub fn warm(&self, connections: u32) -> Result<()> {
        for target in 0..self.targets.len() {
            self.slice(target, 0, connections)?;
        }
        Ok(())
    }

    /// Whole rounds for as long as another one fits in `budget`; at least one.
    pub fn rounds(&self, connections: u32, budget: Duration) -> Result<Vec<Slice>> {
        interleaved(self.targets.len(), budget, |target, round| self.slice(target, round, connections))
    }

    fn slice(&self, target: usize, round: usize, connections: u32) -> Result<Slice> {
        let Target { name, port, ask, envoy, service } = &self.targets[target];
        let before = self.probe.read(envoy, service.as_ref())?;
        let count = self.wrk.run(*port, ask, connections, self.seconds);
        let after = self.probe.read(envoy, service.as_ref())?;
        let count = count.with_context(|| format!("measuring {name}"))?;
        Ok(Slice { target, round, count, interval: before.until(&after) })
    }
}

/// Slices of so many targets in the order of the schedule, by whole rounds for as long as another one fits in
/// `budget`; at least one.
pub fn interleaved(
    targets: usize,
    budget: Duration,
    mut slice: impl FnMut(usize, usize) -> Result<Slice>,
) -> Result<Vec<Slice>> {
    let started = Instant::now();
    let mut order: Vec<usize> = (0..targets).filter(|target| *target != BARE).collect();
    let mut slices = Vec::new();
    for round in 0.. {
        fastrand::shuffle(&mut order);
        for target in &order {
            slices.push(slice(BARE, round)?);
            slices.push(slice(*target, round)?);
        }
        let per_round = started.elapsed() / (round as u32 + 1);
        if started.elapsed() + per_round > budget {
            slices.push(slice(BARE, round)?);
            break;
        }
    }
    Ok(slices)
}
