//! Counters: kept in the VM, handed to Envoy on the tick (`attache.forwarded` … in its stats).

use crate::host;

/// What is counted.
#[derive(Default)]
pub struct Metrics {
    pub forwarded: u64,
    pub passed: u64,
    pub refused: u64,
    pub cut: u64,
    pub masked: u64,
    pub callouts: u64,
    pub callouts_failed: u64,
    pub retried: u64,
    pub tunnels: u64,
    ids: Option<[u32; 9]>,
}

const NAMES: [&str; 9] = [
    "attache.forwarded",
    "attache.passed",
    "attache.refused",
    "attache.cut",
    "attache.masked",
    "attache.callouts",
    "attache.callouts_failed",
    "attache.retried",
    "attache.tunnels",
];

impl Metrics {
    /// Hands everything counted since the last time to Envoy.
    pub fn flush(&mut self) {
        let mut counts = [
            &mut self.forwarded,
            &mut self.passed,
            &mut self.refused,
            &mut self.cut,
            &mut self.masked,
            &mut self.callouts,
            &mut self.callouts_failed,
            &mut self.retried,
            &mut self.tunnels,
        ];
        if counts.iter().all(|count| **count == 0) && self.ids.is_some() {
            return;
        }
        let ids = self.ids.get_or_insert_with(|| NAMES.map(|name| host::define_counter(name).unwrap_or(u32::MAX)));
        for (id, count) in ids.iter().zip(&mut counts) {
            if **count > 0 && host::count(*id, **count).is_ok() {
                **count = 0;
            }
        }
    }
}
