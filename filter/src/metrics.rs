//! Counters and histograms: counters are kept in the VM and handed to Envoy on the tick, so that a request costs
//! none of its calls. Names are few and fixed: no host, no session, nothing that an agent showed stands in one.
//!
//! `docs/metrics.md` lists them. A label stands before a name as `label=.=value;.;`, which is how Istio's own filters
//! write theirs: Istio's bootstrap takes them out of any name (`extraStatTags`), and so does ours (`stats_tags`).

use crate::host;
use attache_core::refusal::Reason;
use attache_core::worker::{Call, Records};

/// Defines an enum from one table: variant, name in Envoy's stats.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident $names:ident $number:ident { $($variant:ident $word:literal)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub enum $name { $($variant),* }

        const $names: [&str; $number] = [$($word),*];
        const $number: usize = [$($name::$variant),*].len();
    };
}

#[rustfmt::skip]
named! {
    /// What is counted, refusals by their reason aside.
    Counter COUNTER_NAMES COUNTERS {
        Forwarded           "outcome=.=forwarded;.;attache.decisions"
        Passed              "outcome=.=passed;.;attache.decisions"
        Tunnelled           "outcome=.=tunnelled;.;attache.decisions"
        Cut                 "attache.cut"
        Masked              "attache.masked"
        CacheHits           "attache.cache_hits"
        CacheMisses         "attache.cache_misses"
        Callouts            "attache.callouts"
        CalloutsFailed      "attache.callouts_failed"
        StaleMilliseconds   "attache.stale_milliseconds"
        Records             "attache.records"
        RecordsAcknowledged "attache.records_acknowledged"
        RecordsDropped      "attache.records_dropped"
        Retried             "attache.retried"
    }
}

#[rustfmt::skip]
named! {
    /// Callouts that are timed. A poll of the change feed is not: the broker holds it for as long as nothing changes.
    Timed TIMED_NAMES TIMED {
        Policy "call=.=policy;.;attache.callout_milliseconds"
        Grant  "call=.=grant;.;attache.callout_milliseconds"
        Tunnel "call=.=tunnel;.;attache.callout_milliseconds"
        Intent "call=.=intent;.;attache.callout_milliseconds"
        Audit  "call=.=audit;.;attache.callout_milliseconds"
    }
}

/// What stands around the reason in the name of a refusal's counter.
const REFUSED: (&str, &str) = ("outcome=.=refused;.;reason=.=", ";.;attache.decisions");
const REFUSALS: usize = Reason::ALL.len();

/// What was counted since Envoy was last told.
#[derive(Default)]
pub struct Metrics {
    counts: [u64; COUNTERS],
    refusals: [u64; REFUSALS],
    records: Records,
    ids: Option<Box<Ids>>,
}

/// By which numbers Envoy knows them.
struct Ids {
    counters: [u32; COUNTERS],
    refusals: [u32; REFUSALS],
    timed: [u32; TIMED],
}

impl Metrics {
    /// Counts one more.
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts so many more.
    pub fn add(&mut self, counter: Counter, more: u64) {
        if let Some(count) = self.counts.get_mut(counter as usize) {
            *count += more;
        }
    }

    /// Counts a refusal.
    pub fn refused(&mut self, reason: Reason) {
        // In the order of the table, as `Reason::ALL` is.
        if let Some(count) = self.refusals.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// Counts what has become of records since the last time.
    pub fn records(&mut self, now: Records) {
        let before = std::mem::replace(&mut self.records, now);
        self.add(Counter::Records, now.made.saturating_sub(before.made));
        self.add(Counter::RecordsAcknowledged, now.acknowledged.saturating_sub(before.acknowledged));
        self.add(Counter::RecordsDropped, now.dropped.saturating_sub(before.dropped));
    }

    /// A callout was answered, or given up, after so long.
    pub fn answered(&mut self, call: &Call, millis: u64) {
        let timed = match call {
            Call::Changes => return,
            Call::Policy => Timed::Policy,
            Call::Grant(..) => Timed::Grant,
            Call::Tunnel(..) => Timed::Tunnel,
            Call::Intent(..) => Timed::Intent,
            Call::Audit => Timed::Audit,
        };
        if let Some(id) = self.ids().timed.get(timed as usize) {
            let _ = host::record(*id, millis);
        }
    }

    /// Hands everything counted since the last time to Envoy.
    pub fn flush(&mut self) {
        self.ids();
        let Some(ids) = &self.ids else { return };
        let ids = ids.counters.iter().chain(&ids.refusals);
        for (id, count) in ids.zip(self.counts.iter_mut().chain(&mut self.refusals)) {
            if *count > 0 && host::count(*id, *count).is_ok() {
                *count = 0;
            }
        }
    }

    /// All of them are defined at once: what has not happened yet shows as 0.
    fn ids(&mut self) -> &Ids {
        self.ids.get_or_insert_with(|| {
            let counter = |name: &str| host::define_counter(name).unwrap_or(u32::MAX);
            let mut refusals = [u32::MAX; REFUSALS];
            for (id, reason) in refusals.iter_mut().zip(Reason::ALL) {
                *id = counter(&[REFUSED.0, reason.as_str(), REFUSED.1].concat());
            }
            let timed = TIMED_NAMES.map(|name| host::define_histogram(name).unwrap_or(u32::MAX));
            Box::new(Ids { counters: COUNTER_NAMES.map(counter), refusals, timed })
        })
    }
}
