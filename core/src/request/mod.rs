//! One request, phase by phase: [`Snapshot::read`] ▸ [`identify()`] ▸ (grant) ▸ [`authorise()`].
//!
//! A phase hands its findings to the next; there is no way to [`Forward`] without having passed
//! through all of them, and nothing here can release a request by doing nothing.

mod authorise;
mod identify;
mod snapshot;

pub use authorise::{Forward, authorise, is_read, stands};
pub use identify::{Asked, Way, identify};
pub(crate) use snapshot::TELLING;
pub use snapshot::{METHOD_HEADERS, Media, Snapshot, Upgrade};

#[cfg(test)]
mod tests;
