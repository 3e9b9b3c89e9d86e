//! The forms of a secret: for each character, what it may be.

use super::escapes::LONGEST;
use zeroize::Zeroizing;

/// The bytes that may stand in one place, all of them ASCII.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Class(u128);

impl zeroize::DefaultIsZeroes for Class {}

impl Class {
    /// Of these bytes.
    pub fn of(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self(bytes.into_iter().filter(u8::is_ascii).fold(0, |set, byte| set | 1 << byte))
    }

    /// Whether a byte may stand there.
    pub fn has(self, byte: u8) -> bool {
        // A shift of 128 bits is a call in wasm.
        let half = if byte < 64 { self.0 } else { self.0 >> 64 } as u64;
        byte.is_ascii() && half >> (byte & 63) & 1 == 1
    }

    /// What may stand in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Everything that may stand there.
    pub fn bytes(self) -> impl Iterator<Item = u8> {
        (0..128).filter(move |byte| self.has(*byte))
    }
}

/// One form of one secret.
pub(super) struct Form {
    /// The characters that the secret alone determines.
    pub inner: Zeroizing<Vec<Class>>,
    /// The character after them, which it determines in part.
    pub edge: Option<Class>,
    /// How many characters before them hold some of its bits.
    pub lead: usize,
    /// For base64: at which character of a group of four they begin.
    group: Option<usize>,
}

/// A group of base64: lines end with one.
const GROUP: usize = 4;

/// The shortest line of base64 in whose midst a secret is looked for.
const SHORTEST_LINE: usize = 60;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Form {
    /// All forms of a secret.
    pub fn all_of(secret: &[u8]) -> [Form; 6] {
        let [a, b, c] = [0, 1, 2].map(|shift| Self::base64(secret, shift));
        let [lower, upper] = [u8::to_ascii_lowercase, u8::to_ascii_uppercase].map(|case| Self::hex(secret, case));
        [Self::plain(secret), a, b, c, lower, upper]
    }

    fn plain(secret: &[u8]) -> Self {
        // Forms write a space as `+`.
        let class = |byte: &u8| if *byte == b' ' { Class::of(*b" +") } else { Class::of([*byte]) };
        Self::of(secret.iter().map(class).collect())
    }

    fn hex(secret: &[u8], case: impl Fn(&u8) -> u8) -> Self {
        let digits = b"0123456789abcdef";
        let digit = |value: u8| Class::of(digits.get(usize::from(value)).map(&case));
        Self::of(secret.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect())
    }

    fn of(inner: Vec<Class>) -> Self {
        Self { inner: Zeroizing::new(inner), edge: None, lead: 0, group: None }
    }

    /// Base64 of a text in which the secret begins `shift` bytes into a group of three.
    fn base64(secret: &[u8], shift: usize) -> Self {
        let bit = |at: usize| secret.get(at / 8).map(|byte| byte >> (7 - at % 8) & 1);
        // The first character that is whole holds the bits from here on.
        let first = (shift * 8).div_ceil(6);
        let mut at = first * 6 - shift * 8;
        let mut inner = Vec::new();
        let edge = loop {
            let known: Vec<u8> = (at..at + 6).map_while(bit).collect();
            let value = known.iter().fold(0, |value, bit| value << 1 | usize::from(*bit));
            let class = sextets(value, 6 - known.len());
            match known.len() {
                6 => inner.push(class),
                0 => break None,
                _ => break Some(class),
            }
            at += 6;
        };
        Self { inner: Zeroizing::new(inner), edge, lead: first - shift * 8 / 6, group: Some(first) }
    }

    /// At which of its characters a spelling may begin: the first; and the first of a whole group,
    /// if a line ends before that.
    pub fn begins(&self) -> impl Iterator<Item = usize> {
        let late = self.group.filter(|first| *first > 0).map(|first| GROUP - first);
        [0].into_iter().chain(late)
    }

    /// Whether a line may end before this character. A whole group stands before it: a text that
    /// ends in a line break should not have to wait because of one character before that.
    pub fn breaks_at(&self, at: usize) -> bool {
        at >= GROUP && self.group.is_some_and(|group| (group + at).is_multiple_of(GROUP))
    }

    /// How many characters stand together at least in a spelling without escapes.
    pub fn shortest_run(&self) -> usize {
        let len = self.inner.len();
        if self.group.is_some() { len.div_ceil(2).min(SHORTEST_LINE) } else { len }
    }

    /// The most bytes that a spelling takes: all characters escaped, and all line breaks.
    pub fn longest(&self) -> usize {
        let breaks = if self.group.is_some() { self.inner.len().div_ceil(GROUP) } else { 0 };
        (self.inner.len() + 1 + breaks) * LONGEST
    }
}

/// The characters of base64 whose upper bits are `value`, the lower ones being free.
fn sextets(value: usize, free: usize) -> Class {
    let from = value << free;
    let characters = ALPHABET.get(from..from + (1 << free)).unwrap_or_default();
    Class::of(characters.iter().flat_map(|byte| match byte {
        b'+' => [b'+', b'-'],
        b'/' => [b'/', b'_'],
        other => [*other; 2],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_the_bytes_that_it_is_made_of() {
        for byte in 0..=u8::MAX {
            assert!(Class::of([byte]).bytes().eq(Some(byte).filter(u8::is_ascii)), "{byte}");
            assert!(!Class::of((0..=u8::MAX).filter(|other| *other != byte)).has(byte), "{byte}");
        }
    }

    #[test]
    fn what_may_stand_in_either_of_two_classes_or_in_both_may_stand_in_them_together() {
        let either = Class::of(*b"ab\x00").or(Class::of(*b"bc\x7f"));
        assert!(either.bytes().eq(*b"\x00abc\x7f"));
    }
}
