//! Headers and trailers: masked in the map that Envoy hands over; and what they say of the body.

use super::{Masker, cover};
use crate::headers;
use crate::refusal::REASON_HEADER;

/// Character sets in which ASCII is written as in ASCII, by how their names begin. A secret in another,
/// as UTF-16 is, would not be found.
const CHARSETS: [&[u8]; 12] = [
    b"utf-8",
    b"utf8",
    b"us-ascii",
    b"ascii",
    b"iso-8859-",
    b"latin1",
    b"windows-125",
    b"koi8-",
    b"euc-",
    b"gb",
    b"big5",
    b"shift_jis",
];

/// Answers that never have a body (RFC 9110, 15.3.5 and 15.4.5).
const BODILESS: [&[u8]; 2] = [b"204", b"304"];
/// The answer after which another protocol is spoken (RFC 9110, 15.2.2).
pub(super) const SWITCHED: &[u8] = b"101";

/// Masks names and values in a serialised map; how many echoes there were.
pub fn mask_headers(masker: &Masker, map: &mut [u8]) -> usize {
    // Lengths stand before the first name and between no two: one search for all, since what ends
    // each of them stands in no spelling.
    let first = headers::lines(map).next().map_or(map.len(), |line| line.name.start());
    let lines = map.get_mut(first..).unwrap_or_default();
    let found = masker.find(lines);
    found.iter().for_each(|range| cover(lines, range.clone()));
    found.len()
}

/// What the head of an answer says, or its trailers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its status, where it has one.
    pub status: Option<u16>,
    /// Whether what follows can be searched: it is not compressed, or nothing follows. A tunnel cannot: no body ends it.
    pub is_readable: bool,
    /// Whether the upstream says why it was refused here, as only we may ([`REASON_HEADER`]).
    pub claims_a_reason: bool,
}

/// Reads it; `bodiless` if nothing follows.
pub fn read_head(map: &[u8], bodiless: bool) -> Head {
    let is_identity = |coding: &[u8]| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    };
    let (mut status, mut is_plain, mut claims_a_reason) = (None, true, false);
    let mut lines = headers::lines(map);
    for line in lines.by_ref() {
        let value = line.value.of(map);
        match line.name.of(map) {
            b":status" => status = status.or(Some(value)),
            b"content-type" => is_plain &= names_no_other_charset(value),
            // How a body is encoded: compressed, it cannot be searched.
            b"content-encoding" | b"im" | b"grpc-encoding" | b"connect-content-encoding" => {
                is_plain &= value.split(|b| *b == b',').all(is_identity);
            }
            name => claims_a_reason |= name == REASON_HEADER.as_bytes(),
        }
    }
    let status = status.unwrap_or_default();
    let may_follow = !bodiless && !BODILESS.contains(&status);
    Head {
        status: number(status),
        is_readable: lines.was_whole() && status != SWITCHED && (is_plain || !may_follow),
        claims_a_reason,
    }
}

/// Of three digits.
fn number(status: &[u8]) -> Option<u16> {
    let whole = status.len() == 3 && status.iter().all(u8::is_ascii_digit);
    whole.then(|| status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

/// The `:status` of response headers; empty if they have none.
pub(super) fn status(map: &[u8]) -> &[u8] {
    let line = headers::lines(map).find(|line| line.name.of(map) == b":status");
    line.map_or(&b""[..], |line| line.value.of(map))
}

fn names_no_other_charset(kind: &[u8]) -> bool {
    // Without a parameter it names none.
    memchr::memchr(b'=', kind).is_none()
        || kind.split(|b| *b == b';' || *b == b',').all(|parameter| {
            let parameter = parameter.trim_ascii().to_ascii_lowercase();
            let Some(rest) = parameter.strip_prefix(b"charset") else { return true };
            let Some(set) = rest.trim_ascii().strip_prefix(b"=") else { return true };
            let set = set.trim_ascii();
            let set = set.strip_prefix(b"\"").unwrap_or(set);
            CHARSETS.iter().any(|known| set.starts_with(known))
        })
}
