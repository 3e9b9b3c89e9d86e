//! Tables that requests are looked up in.
//!
//! Their hash is cheaper than the standard library's, which was a twentieth of all that a warm request executes. It is keyed
//! by what nobody outside knows, and whoever found keys that collide all the same would gain little: what strangers can put
//! into a table is bounded, and a policy is the operator's.

use foldhash::SharedSeed;
use foldhash::fast::{FoldHasher, SeedableRandomState};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Values by bytes.
pub type Table<V> = HashMap<Vec<u8>, V, Keyed>;

/// Makes hashers of one table, under a key of its own.
#[derive(Clone, Debug)]
pub struct Keyed(SeedableRandomState);

impl Default for Keyed {
    fn default() -> Self {
        Self(SeedableRandomState::with_seed(RandomState::new().hash_one(()), SharedSeed::global_fixed()))
    }
}

impl BuildHasher for Keyed {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn no_two_tables_hash_alike() {
        let hashes: Vec<u64> = (0..8).map(|_| Keyed::default().hash_one(b"a key")).collect();
        assert!((1..8).all(|at| !hashes[..at].contains(&hashes[at])), "{hashes:x?}");
        let keyed = Keyed::default();
        assert_eq!(keyed.hash_one(b"a key"), keyed.clone().hash_one(b"a key"));
    }
}
