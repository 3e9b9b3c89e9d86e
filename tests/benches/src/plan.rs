//! How long the run takes: the README says it.

use serde::Serialize;

/// The budget of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    /// To see that everything works; its figures are rough.
    pub quick: bool,
    /// One measurement. wrk's shortest.
    pub slice_seconds: u64,
    /// Rounds of throughput slices stop here.
    pub throughput_seconds: u64,
    /// Rounds of one-connection slices stop here.
    pub latency_seconds: u64,
    /// Rounds of answers by size stop here, all sizes together.
    pub bodies_seconds: u64,
    /// Rounds by number of connections stop here, all numbers together.
    pub connections_seconds: u64,
    /// Rounds of GraphQL slices stop here.
    pub graphql_seconds: u64,
    /// Connections of a throughput slice.
    pub connections: u32,
    /// Fewer clean slices than this, and a figure is marked as rough.
    pub enough: usize,
}

impl Plan {
    /// The plan that the environment asks for.
    pub fn from_env() -> Self {
        Self::of(is_quick())
    }

    fn of(quick: bool) -> Self {
        let (throughput_seconds, latency_seconds, bodies_seconds) = if quick { (54, 25, 18) } else { (440, 145, 90) };
        let connections_seconds = if quick { 49 } else { 350 };
        let graphql_seconds = if quick { 8 } else { 32 };
        Self {
            quick,
            slice_seconds: 1,
            throughput_seconds,
            latency_seconds,
            bodies_seconds,
            connections_seconds,
            graphql_seconds,
            connections: 16,
            enough: 6,
        }
    }

    /// Without the start and the warming.
    pub fn measured_seconds(&self) -> u64 {
        self.throughput_seconds
            + self.latency_seconds
            + self.bodies_seconds
            + self.connections_seconds
            + self.graphql_seconds
    }
}

/// Whether the environment asks for a short, rough run.
pub fn is_quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|value| value != "0" && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_how_long_it_takes() {
        let readme = include_str!("../README.md");
        for quick in [false, true] {
            let seconds = format!("{} s", Plan::of(quick).measured_seconds());
            assert_eq!(readme.matches(&seconds).count(), 1, "{seconds}");
        }
    }
}
