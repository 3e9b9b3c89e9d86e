//! The gateway's listener with no filter but the router: what everything is measured against.

use super::{Claim, Part, Workbench};

/// The listener with nothing on it.
pub fn part(bench: &Workbench) -> Part {
    Part::filters(bench, Vec::new(), Claim::Untouched)
}
