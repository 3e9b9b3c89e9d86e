//! What must hold of any input, one function a target. A fuzzer looks for bytes for which it does not
//! (`make fuzz`); seeds of every form, and what was found, are kept in `tests/fuzz/corpus` and replayed by
//! `make test`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what does not hold ends the run: that is how a fuzzer hears of it"
)]

#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "broker")]
pub use broker::published;

mod decisions;
mod masks;
mod names;
mod policy;
mod wire;

/// Breaks, by a panic, what is promised of any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name: two that need a broker, and with it ten minutes to build, and the others.
pub const TARGETS: &[(&str, Target)] = &[
    ("audit_chain", wire::audit_chain),
    ("authority", names::authority),
    #[cfg(feature = "broker")]
    ("config", broker::config),
    ("git", decisions::git),
    ("grant", wire::grant),
    ("graphql", decisions::graphql),
    ("headers", decisions::headers),
    ("inside", names::inside),
    ("json_rpc", decisions::json_rpc),
    #[cfg(feature = "broker")]
    ("jwt", broker::jwt),
    ("masker", masks::masker),
    ("path", names::path),
    ("websocket", masks::websocket),
    ("wire", wire::wire),
];

/// Runs one on these bytes.
///
/// # Panics
/// Where something does not hold, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("no target is called {name}"));
    target(data);
}

/// Cuts the input at its first `n - 1` line breaks: `n` texts, the last of which may have line breaks of its own.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == b'\n');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}
