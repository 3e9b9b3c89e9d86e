//! Placeholders: shaped like the real thing, worth nothing, recognisable anywhere.
//!
//! `PREFIX ATTACHE RANDOM`, e.g. `ghp_ATTACHEx7Kq…`, and where clients or scanners look further, what
//! they look for. The marker is public; the random part is base62 and carries at least 128 bits.

mod checksum;

pub use checksum::Checksum;

use crate::digest::hmac_sha256;
use crate::headers::Span;
use serde::{Deserialize, Serialize};

/// What every placeholder contains.
pub const MARKER: &str = "ATTACHE";

/// Fewest random characters: 22 base62 digits carry 131 bits.
pub const MIN_RANDOM: usize = 22;

/// Fewest characters of a placeholder.
pub const MIN_LEN: usize = MARKER.len() + MIN_RANDOM;

/// Most characters of a placeholder: the filter looks at no longer run of characters.
pub const MAX_LEN: usize = 256;

/// The shape a client expects of a token: `PREFIX BODY SUFFIX CHECKSUM`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shape {
    /// What the token begins with, e.g. `ghp_`.
    pub prefix: String,
    /// Its whole length, in characters.
    pub length: usize,
    /// What stands in the middle of its body (OpenAI: `T3BlbkFJ`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub middle: String,
    /// What stands after its body (Anthropic: `AA`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    /// What it ends with, computed from all before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

/// Why a shape cannot hold a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No room for the marker and 128 random bits.
    #[error(
        "length must leave room for the marker and 22 random characters beside prefix, middle, suffix and checksum"
    )]
    TooShort,
    /// Longer than [`MAX_LEN`].
    #[error("length is at most 256")]
    TooLong,
    /// A fixed character that would end the token where it is recognised.
    #[error("prefix, middle and suffix are made of letters, digits, '-' and '_', and do not contain the marker")]
    BadText,
}

impl Shape {
    /// A shape with nothing fixed but its beginning.
    pub fn new(prefix: &str, length: usize) -> Self {
        Self { prefix: prefix.to_owned(), length, ..Self::default() }
    }

    /// Checks that the shape can hold a placeholder.
    pub fn check(&self) -> Result<(), ShapeError> {
        let fits = |text: &String| text.bytes().all(is_token_byte) && !text.contains(MARKER);
        if ![&self.prefix, &self.middle, &self.suffix].into_iter().all(fits) {
            return Err(ShapeError::BadText);
        }
        if self.length > MAX_LEN {
            return Err(ShapeError::TooLong);
        }
        if self.length < self.fixed() + MARKER.len() + MIN_RANDOM {
            return Err(ShapeError::TooShort);
        }
        Ok(())
    }

    /// The shape of this prefix and length before there was more to a shape. Agents may hold
    /// placeholders of it; `None` where it is the same.
    pub fn former(&self) -> Option<Self> {
        let former = Self::new(&self.prefix, self.length);
        (former != *self).then_some(former)
    }

    /// The placeholder of (session, credential) under an instance key: the same on every call,
    /// so that it outlives restarts and rotations without being stored.
    pub fn mint(&self, key: &[u8; 32], session: &str, credential: &str) -> String {
        let free = self.length.saturating_sub(self.fixed());
        // Marked at its beginning: half of any body has room for the marker.
        let body = marked(free, key, session, credential);
        let (before, after) = body.split_at(if self.middle.is_empty() { free.min(body.len()) } else { free / 2 });
        let mut text = [&self.prefix, before, &self.middle, after, &self.suffix].concat();
        if let Some(checksum) = self.checksum {
            checksum.append(&mut text, self.prefix.len());
        }
        text
    }

    /// How many of its characters are not free.
    fn fixed(&self) -> usize {
        let checksum = self.checksum.map_or(0, Checksum::len);
        self.prefix.len() + self.middle.len() + self.suffix.len() + checksum
    }
}

/// The marker, and random digits up to `length` characters.
fn marked(length: usize, key: &[u8; 32], session: &str, credential: &str) -> String {
    let mut text = MARKER.to_owned();
    let mut message = Vec::new();
    for part in ["placeholder", session, credential] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    let prefix_len = message.len();
    let mut block = 0u32;
    while text.len() < length {
        message.truncate(prefix_len);
        message.extend_from_slice(&block.to_be_bytes());
        for byte in hmac_sha256(key, &message) {
            if let Some(digit) = base62(byte).filter(|_| text.len() < length) {
                text.push(digit);
            }
        }
        block += 1;
    }
    text
}

/// In the order in which GitHub's checksums count them.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A base62 digit from a uniformly random byte; `None` for the bytes that would bias it.
fn base62(byte: u8) -> Option<char> {
    if byte >= 248 {
        return None;
    }
    DIGITS.get(usize::from(byte % 62)).map(|d| char::from(*d))
}

/// For each byte, whether it can stand inside a placeholder: read for every byte around one, in every request.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut bytes: &[u8] = b"-_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while let [byte, rest @ ..] = bytes {
        if let (_, [own, ..]) = token.split_at_mut(*byte as usize) {
            *own = true;
        }
        bytes = rest;
    }
    token
};

/// Whether a byte can stand inside a placeholder (and so does not end it).
fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).is_some_and(|is_token| *is_token)
}

/// The longest run of token bytes around a marker that stands at `mark`.
pub fn token_around(text: &[u8], mark: usize) -> Span {
    let (before, after) = (text.get(..mark).unwrap_or_default(), text.get(mark..).unwrap_or_default());
    let start = before.iter().rposition(|b| !is_token_byte(*b)).map_or(0, |at| at + 1);
    let end = after.iter().position(|b| !is_token_byte(*b)).unwrap_or(after.len());
    Span::new(start, mark + end)
}

/// All placeholders in `text`.
pub fn find(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let mark = from + memchr::memmem::find(text.get(from..)?, MARKER.as_bytes())?;
        let token = token_around(text, mark);
        from = token.end();
        Some(token.of(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn github() -> Shape {
        Shape::new("ghp_", 40)
    }

    #[test]
    fn a_token_is_made_of_letters_digits_and_two_signs() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_token_byte(byte), byte.is_ascii_alphanumeric() || b"_-".contains(&byte), "{byte}");
        }
    }

    #[test]
    fn a_placeholder_keeps_its_shape_and_is_stable() {
        let one = github().mint(&[7; 32], "reviewer", "github");
        assert_eq!(one.len(), 40);
        assert!(one.starts_with("ghp_ATTACHE"));
        assert_eq!(one, github().mint(&[7; 32], "reviewer", "github"));
        assert_ne!(one, github().mint(&[8; 32], "reviewer", "github"));
        assert_ne!(one, github().mint(&[7; 32], "reviewe", "rgithub"));
        // Agents hold theirs across releases: another derivation would strand them all.
        assert_eq!(one, "ghp_ATTACHEz438zSqfC5v1GCjipcn64xlMQ9JHv");
        let long = Shape::new("", 80).mint(&[7; 32], "reviewer", "github");
        assert_eq!(long, "ATTACHEz438zSqfC5v1GCjipcn64xlMQ9JHvwIZcFetnEELIrKeCdBgkiA2jmLwmcMQQEF7FNVOgDPWB");
    }

    #[test]
    fn every_digit_is_equally_likely() {
        let mut seen = [0; 128];
        (0..=255).filter_map(base62).for_each(|digit| seen[digit as usize] += 1);
        assert!((0..128u8).all(|byte| seen[usize::from(byte)] == if byte.is_ascii_alphanumeric() { 4 } else { 0 }));
    }

    #[test]
    fn a_long_placeholder_does_not_repeat_itself() {
        let long = Shape::new("", MAX_LEN).mint(&[7; 32], "s", "c");
        let random = &long[MARKER.len()..];
        for at in 0..random.len() - MIN_RANDOM {
            assert_eq!(random.matches(&random[at..at + MIN_RANDOM]).count(), 1, "at {at}");
        }
    }

    #[test]
    fn shapes_without_room_for_128_bits_are_refused() {
        let shape = |prefix: &str, length| Shape::new(prefix, length).check();
        assert_eq!(shape("", 29), Ok(()));
        assert_eq!(shape("", 28), Err(ShapeError::TooShort));
        assert_eq!((shape("ghp_", 256), shape("ghp_", 257)), (Ok(()), Err(ShapeError::TooLong)));
        assert_eq!(shape("gh:", 80), Err(ShapeError::BadText));
        let ends = |suffix: &str, length| Shape { suffix: suffix.into(), ..Shape::new("", length) }.check();
        assert_eq!(ends("AA", 31), Ok(()));
        assert_eq!(ends("AA", 30), Err(ShapeError::TooShort));
        assert_eq!(ends("=", 80), Err(ShapeError::BadText));
        let middle = |middle: &str, length| Shape { middle: middle.into(), ..Shape::new("", length) }.check();
        assert_eq!(middle("xATTACHEx", 80), Err(ShapeError::BadText));
        assert_eq!(middle("T3BlbkFJ", 36), Err(ShapeError::TooShort));
        let summed = |length| Shape { checksum: Some(Checksum::Grafana), ..Shape::new("glsa_", length) }.check();
        assert_eq!((summed(43), summed(42)), (Ok(()), Err(ShapeError::TooShort)));
    }

    #[test]
    fn what_is_fixed_stands_where_it_belongs() {
        let minted = |shape: Shape| {
            assert_eq!(shape.check(), Ok(()));
            let text = shape.mint(&[7; 32], "reviewer", "github");
            assert_eq!(text.len(), shape.length);
            text
        };
        let openai = minted(Shape { middle: "T3BlbkFJ".into(), ..Shape::new("sk-", 51) });
        assert_eq!(openai, "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");
        let anthropic = minted(Shape { suffix: "AA".into(), ..Shape::new("sk-ant-api03-", 108) });
        assert!(anthropic.starts_with("sk-ant-api03-ATTACHEz438zSqf") && anthropic.ends_with("AA"));
        let github = minted(Shape { checksum: Some(Checksum::Github), ..github() });
        assert!(github.starts_with("ghp_ATTACHEz438zSqfC5v1GCjipcn64xl") && github.len() == 40);
    }

    #[test]
    fn placeholders_from_before_a_shape_had_an_end_are_known() {
        let shape = Shape { checksum: Some(Checksum::Github), ..github() };
        assert_eq!(shape.former(), Some(github()));
        assert_eq!(github().former(), None);
    }

    #[test]
    fn placeholders_are_found_wherever_they_stand() {
        let found =
            |text: &str| find(text.as_bytes()).map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>();
        assert_eq!(found("Bearer ghp_ATTACHEabc"), ["ghp_ATTACHEabc"]);
        assert_eq!(found("Token token=pd_ATTACHEabc,x"), ["pd_ATTACHEabc"]);
        assert_eq!(found("user:ATTACHE1&b=ghp_ATTACHE2"), ["ATTACHE1", "ghp_ATTACHE2"]);
        assert_eq!(found("ATTACHEATTACHE"), ["ATTACHEATTACHE"]);
        assert!(found("Bearer ghp_real attache").is_empty());
    }
}
