//! Counters: kept in the VM, handed to Envoy on the tick (`attache.forwarded` … in its stats).

use crate::host;

/// Defines [`Counter`] from one table: variant, name in Envoy's stats.
macro_rules! counters {
    ($($variant:ident $name:literal)*) => {
        /// What is counted.
        #[derive(Clone, Copy)]
        pub enum Counter { $($variant),* }

        const NAMES: [&str; COUNTERS] = [$($name),*];
        const COUNTERS: usize = [$(Counter::$variant),*].len();
    };
}

#[rustfmt::skip]
counters! {
    Forwarded      "attache.forwarded"
    Passed         "attache.passed"
    Refused        "attache.refused"
    Cut            "attache.cut"
    Masked         "attache.masked"
    Callouts       "attache.callouts"
    CalloutsFailed "attache.callouts_failed"
    Retried        "attache.retried"
    Tunnels        "attache.tunnels"
}

/// What was counted since Envoy was last told.
#[derive(Default)]
pub struct Metrics {
    counts: [u64; COUNTERS],
    ids: Option<[u32; COUNTERS]>,
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

    /// Hands everything counted since the last time to Envoy.
    pub fn flush(&mut self) {
        if self.counts == [0; COUNTERS] && self.ids.is_some() {
            return;
        }
        let ids = self.ids.get_or_insert_with(|| NAMES.map(|name| host::define_counter(name).unwrap_or(u32::MAX)));
        for (id, count) in ids.iter().zip(&mut self.counts) {
            if *count > 0 && host::count(*id, *count).is_ok() {
                *count = 0;
            }
        }
    }
}
