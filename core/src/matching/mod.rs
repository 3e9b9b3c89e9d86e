//! Canonical forms: hosts, paths and methods that mean one thing to every reader, or are refused.

pub mod address;
pub mod host;
pub mod method;
pub mod path;
mod percent;
pub mod query;
