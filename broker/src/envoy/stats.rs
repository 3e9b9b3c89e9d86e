//! Labels of the filter's statistics. It writes them into a name as `label=.=value;.;`, as Istio's filters do, and these
//! take them out: what the first group finds goes, and the second is the value.

use serde_json::{Value, json};

/// The labels there are.
pub const LABELS: [&str; 3] = ["outcome", "reason", "call"];

/// The bootstrap's `stats_config`. Envoy's own labels stay.
pub(super) fn config() -> Value {
    let tag = |label| json!({"tag_name": label, "regex": format!(r"^wasmcustom\..*?({label}=\.=(\w+);\.;)")});
    json!({"stats_tags": LABELS.map(tag)})
}
