//! Attaché in Envoy: a thin shell around `attache-core`.
//!
//! It reads a request's headers once, lets core decide, and does exactly what core says. It never
//! parses, matches or compares anything itself, keeps no policy of its own, and holds no secret
//! but the grants in core's cache. Host calls are named in [`host`] and nowhere else.
//!
//! One module, three entries in Envoy's filter chain: the *judge* reads bounded bodies where a rule
//! needs them ([`judge`]); the *gate* decides ([`gate`]); the *door* lets clients of a forward proxy in
//! ([`door`]). See `docs/decisions/0001`.
// The SDK's `main!` defines the module's entry without a comment of ours.
#![allow(missing_docs)]

mod door;
mod echoes;
mod ends;
mod flow;
mod gate;
mod host;
mod inject;
mod judge;
mod metrics;
mod record;
mod root;
mod shared;
#[cfg(feature = "trap")]
mod trap;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
