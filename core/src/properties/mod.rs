//! What holds of every input, tried on random ones. Native only: the generator needs an operating
//! system's randomness. The other tests of this crate run in wasm32, too.

mod addresses;
mod audit;
mod canonical;
mod door;
mod graphql;
mod headers;
mod masking;
mod narrowing;
mod placeholders;
mod strips;

use proptest::prelude::*;
use proptest::test_runner::Config;

/// Enough to find what is wrong in an alphabet that is made for it, and two seconds for them all.
/// Twice `PROPTEST_CASES`, whose default is 256.
/// Failures are not written beside the sources: a case worth keeping becomes a line of a table.
fn config() -> Config {
    let default = Config::default();
    Config { cases: default.cases * 2, failure_persistence: None, ..default }
}

/// Text of these pieces: what parsers stumble over is more likely than in random bytes.
fn made_of(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..most).prop_map(|pieces| pieces.concat())
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}
