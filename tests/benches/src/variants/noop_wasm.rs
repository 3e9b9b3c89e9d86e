//! A wasm filter that does nothing, with the measured filter's exports: the
//! floor that the ABI sets.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Absent, Claim, Part, Workbench, attache};
use crate::exports;

/// The module as linked, under Cargo's target directory.
const LINKED: &str = "wasm32-wasip1/wasm/attache_bench_noop.wasm";

/// The no-op module, cut to the measured filter's exports.
pub fn part(bench: &Workbench) -> Result<Result<Part, Absent>> {
    let linked = bench.target.join(LINKED);
    if !linked.exists() {
        let build = "cargo build --profile wasm --target wasm32-wasip1 -p attache-bench-noop";
        return Ok(Err(Absent::NotBuilt(build.to_owned())));
    }
    let wasm = fs::read(&linked)?;
    let module = bench.dir.join("bench_noop.wasm");
    let cut = exports::keep(&wasm, &wanted_exports(bench)?).with_context(|| format!("{}", linked.display()))?;
    fs::write(&module, cut)?;
    Ok(Ok(Part::filters(bench, vec![filter(&module)], Claim::Untouched)))
}

/// The measured filter's own exports, or, where it is not built, those of its
/// contract.
fn wanted_exports(bench: &Workbench) -> Result<BTreeSet<String>> {
    match attache::module(&bench.target) {
        Some(path) => exports::names(&fs::read(&path)?).with_context(|| format!("{}", path.display())),
        None => Ok(exports::CONTRACT.iter().map(|name| (*name).to_owned()).collect()),
    }
}

fn filter(module: &std::path::Path) -> Value {
    json!({
        "name": "envoy.filters.http.wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "bench_noop",
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": "bench_noop",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
            },
        },
    })
}
