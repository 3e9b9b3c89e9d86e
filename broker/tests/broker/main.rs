//! The broker's promises, kept by a running broker: real sockets, real files, a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod authenticates;
mod commands;
mod decides;
mod elevates;
mod instances;
mod killed;
mod operates;
mod records;
mod remembers;
mod revokes;
mod shapes;
mod survives;
mod world;
