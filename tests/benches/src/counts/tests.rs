//! What a warm request costs is what `docs/performance.md` says, and nobody makes it dearer without noticing.

use std::path::Path;

use super::{Cost, of};

/// The most instructions of a warm request: a little more than it has.
const MOST_INSTRUCTIONS: u64 = 25_500;

const PAGE: &str = include_str!("../../../../docs/performance.md");

fn cost() -> Cost {
    let binary = std::env::current_exe().expect("a test has a binary");
    let target = binary.ancestors().nth(3).expect("it is in a target directory");
    let module = target.join("filter/attache_filter.wasm");
    of(Path::new(&module)).unwrap_or_else(|error| panic!("{} (make filter): {error:#}", module.display()))
}

#[test]
fn a_warm_request_costs_what_is_documented() {
    let Cost { instructions, traffic, .. } = cost();
    let rows = traffic.entries.iter().chain(&traffic.calls).map(|(name, count)| format!("| `{name}` | {count} |"));
    let totals = [
        format!("| entries into the VM | {} |", traffic.entries.values().sum::<u64>()),
        format!("| host calls | {} |", traffic.calls.values().sum::<u64>()),
        format!("| entries for memory | {} |", traffic.allocations),
        format!("| bytes copied into the VM, out of it | {}, {} |", traffic.copied_in, traffic.copied_out),
    ];
    let missing: Vec<String> = rows.chain(totals).filter(|row| !PAGE.contains(&**row)).collect();
    assert!(missing.is_empty(), "docs/performance.md does not say:\n{}", missing.join("\n"));
    let listed = PAGE.lines().filter(|line| line.starts_with("| `proxy_") || line.starts_with("| `clock_")).count();
    assert_eq!(listed, traffic.entries.len() + traffic.calls.len(), "docs/performance.md says more than there is");
    assert!(instructions <= MOST_INSTRUCTIONS, "a warm request has {instructions} instructions");
}

#[test]
fn counts_are_the_same_in_every_run() {
    let (one, other) = (cost(), cost());
    assert_eq!(one, other);
}
