//! The least that Envoy can be: one route, no filter but the router, nothing of what the gateway's
//! listener does. Against `bare` it shows what that costs.

use super::{Claim, Part, Workbench};

/// A hardened listener with one route.
pub fn part(bench: &Workbench) -> Part {
    Part { listener: crate::envoy::listener(), ..Part::filters(bench, Vec::new(), Claim::Untouched) }
}
