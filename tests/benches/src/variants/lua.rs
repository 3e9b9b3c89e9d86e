//! The rule table in Lua: the mark to beat.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::{Claim, Part, Workbench};

/// Envoy's Lua filter with `rules.lua` under the generated table.
pub fn part(bench: &Workbench) -> Result<Part> {
    let script = bench.dir.join("rules.lua");
    fs::write(&script, bench.rules.to_lua() + include_str!("rules.lua"))?;
    let filter = json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"filename": script},
        },
    });
    Ok(Part::filters(bench, vec![filter], Claim::decides_by(&bench.rules)))
}
