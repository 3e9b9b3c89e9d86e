//! From slices to figures: which slices count, and what they say.
//!
//! A figure never compares two moments: a variant's slice is held against the
//! mean of the bare slice before it and the one after it, and two variants
//! against each other within one round.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::counters::Interval;
use crate::slices::{BARE, Slice};
use crate::stats::{median, median_interval};

/// The rule by which slices are rejected: shares of the slice's wall clock,
/// and of the bare throughput.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rule {
    /// Others used more than this of Envoy's core.
    pub envoy_core_foreign: f64,
    /// The hypervisor took more than this from both cores together.
    pub stolen: f64,
    /// Others used more than this of the load core.
    pub load_core_foreign: f64,
    /// The throughputs of its two bare neighbours differ by more than this:
    /// the machine's speed changed meanwhile. That it is another speed than a
    /// minute ago matters to no ratio.
    pub bare_differs: f64,
}

/// The limits in use.
pub const RULE: Rule = Rule { envoy_core_foreign: 0.03, stolen: 0.03, load_core_foreign: 0.10, bare_differs: 0.10 };

/// A variant's slice with its bare neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    round: usize,
    slice: Slice,
    bare: [Slice; 2],
    clean: bool,
}

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The median.
    pub median: f64,
    /// The interval's ends; of fewer than three values there is none.
    pub interval: Option<(f64, f64)>,
    /// Too few clean samples: all were used, noisy ones included.
    pub rough: bool,
}

/// All samples of one target in one series.
#[derive(Clone, Debug)]
pub struct Samples {
    samples: Vec<Sample>,
    enough: usize,
}

/// A quantity of one slice.
pub type Quantity = fn(&Slice) -> f64;

/// Requests a second.
pub const RPS: Quantity = |slice| slice.count.rps;
/// The median latency in µs.
pub const P50_US: Quantity = |slice| slice.count.p50_us;
/// Envoy's CPU time per request in µs.
pub const CPU_US: Quantity = |slice| slice.interval.envoy.as_secs_f64() * 1e6 / slice.count.requests as f64;
/// CPU time per request in µs of the service that the variant asks.
pub const SERVICE_US: Quantity = |slice| slice.interval.service.as_secs_f64() * 1e6 / slice.count.requests as f64;
/// The share of the slice in which the load core was busy.
pub const LOAD_CORE: Quantity = |slice| slice.interval.load_core.as_secs_f64() / slice.interval.wall.as_secs_f64();

/// How a sample becomes a number.
#[derive(Clone, Copy, Debug)]
pub enum Held {
    /// The slice's own value.
    Alone,
    /// Less the bare neighbours' mean.
    Over,
    /// Divided by the bare neighbours' mean.
    Ratio,
}

impl Samples {
    /// The target's samples among a series. `bare` is held against its own
    /// neighbours of its kind: what remains is the method's own error.
    pub fn of(series: &[Slice], target: usize, enough: usize) -> Self {
        let reach = if target == BARE { 2 } else { 1 };
        let mut samples = Vec::new();
        for (index, slice) in series.iter().enumerate().filter(|(_, slice)| slice.target == target) {
            let before = index.checked_sub(reach).and_then(|index| series.get(index));
            let (Some(before), Some(after)) = (before, series.get(index + reach)) else {
                continue;
            };
            let bare = [*before, *after];
            let clean = undisturbed(slice) && bare.iter().all(undisturbed) && is_steady(&bare);
            samples.push(Sample { round: slice.round, slice: *slice, bare, clean });
        }
        Self { samples, enough }
    }

    /// Adds those of another series, whose rounds are others by the same numbers: not for `against`.
    pub fn join(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    /// How many samples are clean, and how many there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.samples.iter().filter(|sample| sample.clean).count(), self.samples.len())
    }

    /// The median of a quantity.
    pub fn figure(&self, quantity: Quantity, held: Held) -> Option<Figure> {
        let values = |only_clean: bool| {
            let used = self.samples.iter().filter(|sample| sample.clean || !only_clean);
            used.map(|sample| sample.value(quantity, held)).collect()
        };
        Figure::of(values, self.enough)
    }

    /// The median of a comparison with another target, round by round.
    pub fn against(
        &self,
        other: &Self,
        quantity: Quantity,
        held: Held,
        compare: fn(f64, f64) -> f64,
    ) -> Option<Figure> {
        let values = |only_clean: bool| {
            let pairs = self.samples.iter().filter_map(|ours| {
                let theirs = other.samples.iter().find(|theirs| theirs.round == ours.round)?;
                (!only_clean || ours.clean && theirs.clean).then_some((ours, theirs))
            });
            let value = |sample: &Sample| sample.value(quantity, held);
            pairs.map(|(ours, theirs)| compare(value(ours), value(theirs))).collect()
        };
        Figure::of(values, self.enough)
    }
}

impl Sample {
    fn value(&self, quantity: Quantity, held: Held) -> f64 {
        let own = quantity(&self.slice);
        let bare = self.bare.iter().map(quantity).sum::<f64>() / 2.0;
        match held {
            Held::Alone => own,
            Held::Over => own - bare,
            Held::Ratio => own / bare,
        }
    }
}

impl Figure {
    /// Half of the interval's width.
    pub fn error(&self) -> Option<f64> {
        self.interval.map(|(low, high)| (high - low) / 2.0)
    }

    /// In another unit.
    pub fn times(self, factor: f64) -> Self {
        let interval = self.interval.map(|(low, high)| (low * factor, high * factor));
        Self { median: self.median * factor, interval, ..self }
    }

    /// From the clean values, or from all where those are too few.
    pub fn of(values: impl Fn(bool) -> Vec<f64>, enough: usize) -> Option<Self> {
        let clean = values(true);
        let rough = clean.len() < enough;
        let used = if rough { values(false) } else { clean };
        Some(Self { median: median(&used)?, interval: median_interval(&used), rough })
    }

    /// For people: `~` where it is rough, the median, and its error or `?`.
    pub fn to_text(self, decimals: usize) -> String {
        let error = self.error().map_or("?".to_owned(), |error| format!("{error:.decimals$}"));
        format!("{}{:.decimals$} ±{error}", if self.rough { "~" } else { "" }, self.median)
    }

    /// For machines.
    pub fn to_json(self) -> Value {
        json!({"median": self.median, "error": self.error(), "rough": self.rough})
    }
}

/// How many slices exceed which limit of the [`RULE`]; one may exceed several.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Disturbed {
    /// All slices.
    pub slices: usize,
    /// Envoy's core was shared with others.
    pub envoy_core_foreign: usize,
    /// The hypervisor took time.
    pub stolen: usize,
    /// The load core was.
    pub load_core_foreign: usize,
}

impl Disturbed {
    /// Counts in any number of series.
    pub fn count<'a>(slices: impl Iterator<Item = &'a Slice>) -> Self {
        slices.fold(Self::default(), |sum, slice| {
            let excess = Excess::of(&slice.interval);
            Self {
                slices: sum.slices + 1,
                envoy_core_foreign: sum.envoy_core_foreign + usize::from(excess.envoy_core_foreign),
                stolen: sum.stolen + usize::from(excess.stolen),
                load_core_foreign: sum.load_core_foreign + usize::from(excess.load_core_foreign),
            }
        })
    }
}

/// Which limits are exceeded.
struct Excess {
    envoy_core_foreign: bool,
    stolen: bool,
    load_core_foreign: bool,
}

impl Excess {
    fn of(interval: &Interval) -> Self {
        let over = |part: Duration, limit: f64| part.as_secs_f64() > limit * interval.wall.as_secs_f64();
        Self {
            envoy_core_foreign: over(interval.envoy_core_foreign, RULE.envoy_core_foreign),
            stolen: over(interval.stolen, RULE.stolen),
            load_core_foreign: over(interval.load_core_foreign, RULE.load_core_foreign),
        }
    }
}

fn undisturbed(slice: &Slice) -> bool {
    is_undisturbed(&slice.interval)
}

/// Whether nothing exceeds a limit of the [`RULE`].
pub fn is_undisturbed(interval: &Interval) -> bool {
    let Excess { envoy_core_foreign, stolen, load_core_foreign } = Excess::of(interval);
    !(envoy_core_foreign || stolen || load_core_foreign)
}

fn is_steady(bare: &[Slice; 2]) -> bool {
    let [before, after] = bare.map(|slice| RPS(&slice));
    (before - after).abs() <= RULE.bare_differs * (before + after) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Count;

    #[test]
    fn a_ratio_follows_its_neighbours_not_the_whole_run() {
        // The machine is half as fast from half-way on; the variant is at 0.8 throughout.
        let mut series = Vec::new();
        for round in 0..10 {
            let speed = if round < 5 { 1000.0 } else { 500.0 };
            series.push(slice(BARE, round, speed));
            series.push(slice(1, round, speed * 0.8));
        }
        series.push(slice(BARE, 9, 500.0));
        let samples = Samples::of(&series, 1, 6);
        // The one between the two speeds says nothing.
        assert_eq!(samples.counts(), (9, 10));
        let figure = samples.figure(RPS, Held::Ratio).unwrap();
        assert!((figure.median - 0.8).abs() < 0.001 && !figure.rough, "{figure:?}");
    }

    #[test]
    fn a_disturbed_slice_or_neighbour_is_rejected() {
        let disturb: [fn(&mut Slice); 4] = [
            |slice| slice.interval.envoy_core_foreign = Duration::from_millis(40),
            |slice| slice.interval.stolen = Duration::from_millis(40),
            |slice| slice.interval.load_core_foreign = Duration::from_millis(110),
            |slice| slice.count.rps *= 0.5,
        ];
        for (case, disturb) in disturb.iter().enumerate() {
            let mut series: Vec<Slice> = (0..21).map(|i| slice(i % 2, i / 2, 1000.0)).collect();
            disturb(&mut series[4]);
            // Slice 4 is bare: the variants before and after it lose a neighbour.
            assert_eq!(Samples::of(&series, 1, 6).counts(), (8, 10), "case {case}");
        }
    }

    #[test]
    fn too_few_clean_slices_make_a_rough_figure() {
        let mut series: Vec<Slice> = (0..21).map(|i| slice(i % 2, i / 2, 1000.0)).collect();
        for slice in series.iter_mut().take(12) {
            slice.interval.load_core_foreign = Duration::from_millis(500);
        }
        let samples = Samples::of(&series, 1, 6);
        assert_eq!(samples.counts(), (4, 10));
        assert!(samples.figure(RPS, Held::Ratio).unwrap().rough);
    }

    #[test]
    fn two_variants_meet_in_the_same_round() {
        let mut series = Vec::new();
        for round in 0..8 {
            let speed = 1000.0 + round as f64;
            series.extend([slice(BARE, round, speed), slice(1, round, speed * 0.9)]);
            series.extend([slice(BARE, round, speed), slice(2, round, speed * 0.6)]);
        }
        series.push(slice(BARE, 7, 1007.0));
        let [ours, theirs] = [1, 2].map(|target| Samples::of(&series, target, 6));
        let figure = ours.against(&theirs, RPS, Held::Ratio, |a, b| a / b).unwrap();
        assert!((figure.median - 1.5).abs() < 0.01, "{figure:?}");
    }

    fn slice(target: usize, round: usize, rps: f64) -> Slice {
        let interval = Interval {
            wall: Duration::from_secs(1),
            envoy: Duration::from_secs(1),
            service: Duration::ZERO,
            envoy_core_foreign: Duration::ZERO,
            load_core_foreign: Duration::ZERO,
            stolen: Duration::ZERO,
            load_core: Duration::from_millis(300),
        };
        Slice { target, round, count: Count { requests: rps as u64, rps, p50_us: 100.0 }, interval }
    }
}
