//! One policy, as a broker publishes it: `policy.json` is what the config in `broker.rs` comes down to.

use attache_core::policy::{Policy, Spec};
use std::sync::LazyLock;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let spec: Spec = serde_json::from_str(include_str!("policy.json")).expect("a policy");
    Policy::compile(spec).expect("it compiles")
});

/// It.
pub fn policy() -> &'static Policy {
    &POLICY
}
