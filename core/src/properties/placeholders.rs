//! A placeholder that was minted is found, whole, wherever it stands.

use super::config;
use crate::placeholder::{Checksum, MARKER, MAX_LEN, MIN_RANDOM, Shape, find};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_minted_is_found(
        (prefix, middle) in ("[A-Za-z0-9_-]{0,20}", "[A-Za-z0-9_-]{0,9}"),
        (suffix, sum) in ("[A-Za-z0-9_-]{0,5}", 0usize..3),
        more in 0usize..40,
        key in any::<[u8; 32]>(),
        (session, credential) in ("[a-z0-9]{1,8}", "[a-z0-9]{1,8}"),
        (before, after) in ("([ -~]{0,12}[ :=\"/])?", "([ ,;&\"][ -~]{0,12})?"),
    ) {
        let fixed = prefix.len() + middle.len() + suffix.len() + [0, 6, 9][sum];
        let checksum = [None, Some(Checksum::Github), Some(Checksum::Grafana)][sum];
        let shape = Shape { length: fixed + MARKER.len() + MIN_RANDOM + more, prefix, middle, suffix, checksum };
        prop_assume!(shape.check().is_ok() && !before.contains(MARKER) && !after.contains(MARKER));
        let token = shape.mint(&key, &session, &credential);
        prop_assert_eq!(token.len(), shape.length);
        prop_assert!(token.starts_with(&shape.prefix) && token.len() <= MAX_LEN);
        let text = format!("{before}{token}{after}");
        let found: Vec<_> = find(text.as_bytes()).collect();
        prop_assert_eq!(found, [token.as_bytes()]);
    }

    #[test]
    fn no_two_sessions_share_one(
        (a, b) in ("[a-z0-9-]{1,6}", "[a-z0-9-]{1,6}"),
        (c, d) in ("[a-z0-9-]{1,6}", "[a-z0-9-]{1,6}"),
    ) {
        let shape = Shape::new("ghp_", 40);
        let same = (&a, &b) == (&c, &d);
        prop_assert_eq!(shape.mint(&[7; 32], &a, &b) == shape.mint(&[7; 32], &c, &d), same);
    }

    #[test]
    fn looking_for_one_never_panics(text in super::bytes(64), parts in super::made_of(&["ATTACHE", "ATT", "-", " ", "a"], 8)) {
        let _ = find(&text).count();
        for token in find(parts.as_bytes()) {
            prop_assert!(token.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()));
        }
    }
}
