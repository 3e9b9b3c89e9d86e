//! What a warm request costs in things that can be counted, on whatever machine: WebAssembly instructions, entries into
//! the VM, host calls, bytes copied.
//!
//! Nothing is timed. The module runs in an interpreter, against a proxy's side of the ABI that does as Envoy does
//! ([`host`]); a build with names says which functions the instructions are in (`tests/benches/README.md`).

mod host;
mod metered;
mod scene;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::variants::attache::module;
use scene::{Cost, Scene};

/// Requests that are counted: an odd number, of whose instructions the median is one.
const COUNTED: usize = 101;
/// Functions that are listed: those with the most instructions.
const LISTED: usize = 40;

/// Counts, and prints what was found.
pub fn run() -> Result<()> {
    let target = crate::target_dir()?;
    let module = module(&target).context("the filter is not built: make filter")?;
    let cost = of(&module)?;
    let path = target.join("bench-counts.json");
    fs::write(&path, serde_json::to_vec_pretty(&to_json(&cost))?)?;
    println!("{}\n{}", to_text(&cost), path.display());
    Ok(())
}

/// What one warm request costs; of several the median one. All of them cross the border alike.
pub fn of(module: &Path) -> Result<Cost> {
    let mut scene = Scene::start(&fs::read(module)?)?;
    let mut costs = (0..COUNTED).map(|_| scene.warm()).collect::<Result<Vec<_>>>()?;
    let first = costs.first().map(|cost| cost.traffic.entries.clone());
    ensure!(costs.iter().all(|cost| Some(&cost.traffic.entries) == first.as_ref()), "no two requests are alike");
    costs.sort_by_key(|cost| cost.instructions);
    costs.into_iter().nth(COUNTED / 2).context("nothing was counted")
}

fn to_text(cost: &Cost) -> String {
    let mut text = format!("A warm request: {} instructions\n", cost.instructions);
    let traffic = &cost.traffic;
    // Writing to a String cannot fail.
    let mut list = |title: &str, counts: &BTreeMap<String, u64>| {
        let _ = writeln!(text, "\n{title}: {}", counts.values().sum::<u64>());
        for (name, count) in counts {
            let _ = writeln!(text, "  {count} {name}");
        }
    };
    list("entries", &traffic.entries);
    list("host calls", &traffic.calls);
    let _ = writeln!(text, "\nentries for memory: {}", traffic.allocations);
    let _ = writeln!(text, "bytes in: {}, out: {}", traffic.copied_in, traffic.copied_out);
    let mut functions: Vec<_> = cost.functions.iter().collect();
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let _ = writeln!(text, "\nfunctions: {}", functions.len());
    for (name, count) in functions.into_iter().take(LISTED) {
        let _ = writeln!(text, "  {count:6} {name}");
    }
    text
}

fn to_json(cost: &Cost) -> Value {
    let traffic = &cost.traffic;
    json!({
        "instructions": cost.instructions, "entries": traffic.entries, "host_calls": traffic.calls,
        "entries_for_memory": traffic.allocations, "bytes_in": traffic.copied_in, "bytes_out": traffic.copied_out,
        "functions": cost.functions,
    })
}
