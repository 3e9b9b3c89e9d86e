//! The broker's promises, kept by a running broker: real sockets, real files, a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod authenticates;
mod commands;
mod crowded;
mod decides;
#[path = "../../../tests/harness/dns.rs"]
#[allow(dead_code, reason = "the harness's, for all tests")]
mod dns;
mod documented;
mod elevates;
mod guards;
mod healthy;
mod instances;
mod killed;
mod measures;
mod operates;
mod probes;
mod records;
mod remembers;
mod revokes;
mod shapes;
mod slow;
mod survives;
mod world;
