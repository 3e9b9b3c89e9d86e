//! What listeners behind the door are told is what the door has found, and nothing else reads as such.

use super::{bytes, config, made_of};
use crate::digest::Digest;
use crate::door::Inside;
use crate::names::Name;
use proptest::option;
use proptest::prelude::*;

const PIECES: &[&str] =
    &["-", " ", " ", "a.example:443", "[::1]:443", "127.0.0.1", "spiffe://a/b", "attache", ":", "A", "0", "ff"];

fn inside() -> impl Strategy<Value = Inside> {
    let token = option::of(bytes(40).prop_map(|token| Digest::of(&token)));
    let id = ("[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", 1..=u16::MAX).prop_map(|(host, port)| format!("{host}:{port}"));
    let peer = option::of("spiffe://[a-z]{1,8}/[a-z0-9/]{1,12}");
    let listener = option::of("[a-z]{1,8}".prop_map(|text| Name::parse(&text).unwrap()));
    (token, id, option::of(any::<core::net::IpAddr>()), peer, listener)
        .prop_map(|(session_token, id, source, peer, listener)| Inside { session_token, id, source, peer, listener })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_written_is_read(inside in inside()) {
        prop_assert_eq!(Inside::parse(inside.to_string().as_bytes()), Some(inside));
    }

    #[test]
    fn what_reads_was_written_so(text in made_of(PIECES, 14)) {
        if let Some(inside) = Inside::parse(text.as_bytes()) {
            prop_assert_eq!(inside.to_string(), text);
        }
    }

    #[test]
    fn any_bytes_are_read_or_not(text in bytes(80)) {
        if let Some(inside) = Inside::parse(&text) {
            prop_assert_eq!(inside.to_string().into_bytes(), text);
        }
    }
}
