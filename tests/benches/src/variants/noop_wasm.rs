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
    cut(bench, "bench_noop", wanted_exports(bench)?)
}

/// The same without the callback at a request's end, from which the filter writes its record.
pub fn unlogged(bench: &Workbench) -> Result<Result<Part, Absent>> {
    let mut wanted = wanted_exports(bench)?;
    wanted.remove("proxy_on_log");
    cut(bench, "bench_noop_unlogged", wanted)
}

fn cut(bench: &Workbench, id: &str, wanted: BTreeSet<String>) -> Result<Result<Part, Absent>> {
    let linked = bench.target.join(LINKED);
    if !linked.exists() {
        let build = "cargo build --profile wasm --target wasm32-wasip1 -p attache-bench-noop";
        return Ok(Err(Absent::NotBuilt(build.to_owned())));
    }
    let wasm = fs::read(&linked)?;
    let module = bench.dir.join(format!("{id}.wasm"));
    fs::write(&module, exports::keep(&wasm, &wanted).with_context(|| format!("{}", linked.display()))?)?;
    Ok(Ok(Part::filters(bench, vec![filter(id, &module)], Claim::Untouched)))
}

/// The measured filter's own exports, or, where it is not built, those of its
/// contract.
fn wanted_exports(bench: &Workbench) -> Result<BTreeSet<String>> {
    match attache::module(&bench.target) {
        Some(path) => exports::names(&fs::read(&path)?).with_context(|| format!("{}", path.display())),
        None => Ok(exports::CONTRACT.iter().map(|name| (*name).to_owned()).collect()),
    }
}

fn filter(id: &str, module: &std::path::Path) -> Value {
    json!({
        "name": "envoy.filters.http.wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": id,
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": id,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
            },
        },
    })
}
