//! What Attaché decides: which destination a request names, who asks, whether it may pass,
//! and what is put in its place.
//!
//! This crate is pure. It has no IO, no clock, no environment, no async and no host API: time is
//! handed in as [`Millis`], randomness as bytes, and every answer is a value. It builds for native
//! targets and for wasm32, and both the filter and the broker stand on it.
#![forbid(unsafe_code)]

pub mod access;
pub mod audit;
pub mod companion;
pub mod connection;
pub mod digest;
pub mod door;
pub mod evidence;
#[cfg(test)]
mod fixture;
mod hashing;
pub mod headers;
pub mod injection;
pub mod masking;
pub mod matching;
pub mod names;
pub mod object;
pub mod placeholder;
pub mod policy;
#[cfg(test)]
#[cfg(not(target_arch = "wasm32"))]
mod properties;
pub mod refusal;
pub mod request;
pub mod secret;
pub mod strip;
mod time;
pub mod trace;
pub mod verdict;
pub mod wire;
pub mod words;
pub mod worker;

pub use secret::Secret;
pub use time::Millis;
