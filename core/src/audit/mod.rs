//! Audit records: escaping, and the chain that proves nothing was changed, dropped or swapped.

pub mod chain;
mod escape;

pub use escape::{Json, escape_into};
