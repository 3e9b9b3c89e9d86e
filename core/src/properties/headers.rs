//! Header maps: what is written is read, and what is not one is never read past its end.

use super::{bytes, config};
use crate::fixture::{PLACEHOLDER, compiled, get};
use crate::headers::{is_whole, lines, serialize};
use crate::policy::Unmatched;
use crate::request::{Snapshot, identify};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_is_read(map in prop::collection::vec(("[a-z:-]{0,12}", bytes(24)), 0..12)) {
        let buffer = serialize(map.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        prop_assert!(is_whole(&buffer));
        let read: Vec<_> = lines(&buffer).map(|line| (line.name.of(&buffer), line.value.of(&buffer))).collect();
        let written: Vec<_> = map.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn no_bytes_are_read_past_their_end(count in 0u32..6, rest in bytes(96)) {
        let buffer = [&count.to_le_bytes()[..], &rest].concat();
        for line in lines(&buffer) {
            prop_assert!(line.name.end() < line.value.start() && line.value.end() < buffer.len());
        }
    }

    #[test]
    fn a_damaged_map_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0usize..400) {
        let policy = compiled(Unmatched::Pass);
        let mut bytes = get("api.github.com", "/user?a=1").bearer(PLACEHOLDER).with("cookie", "a=b").bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut);
        let snapshot = Snapshot::read(bytes, &policy);
        if let Ok(asked) = identify(&snapshot, &policy) {
            prop_assert!(is_whole(snapshot.bytes()));
            let _ = (asked.evidence.digests(&snapshot), asked.evidence.word(&snapshot), snapshot.holds_placeholder());
        }
    }
}
