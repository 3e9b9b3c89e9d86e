//! Header maps as the proxy hands them over: one buffer, read in place.
//!
//! Format (proxy-wasm ABI 0.2.1, serialised maps): a count, then the length of each name and
//! value, all as little-endian `u32`; then each name and value, each ended by a zero byte.

/// A stretch of a buffer. Reading one that does not fit its buffer gives nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From `start` up to `end`, excluded. Buffers over 4 GiB do not exist in a 32-bit VM.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes it stands for.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// First position.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// One past the last position.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Whether a position lies within.
    pub fn contains(self, at: usize) -> bool {
        (self.start()..self.end()).contains(&at)
    }
}

/// One header line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Its name, lower-case (Envoy sees to that).
    pub name: Span,
    /// Its value, any bytes.
    pub value: Span,
}

/// All lines of a serialised map, in order. Ends early where the buffer contradicts itself;
/// [`Lines::was_whole`] tells.
pub fn lines(buffer: &[u8]) -> Lines<'_> {
    let count = buffer.first_chunk().map_or(0, |count| u32::from_le_bytes(*count) as usize);
    let at = count.saturating_mul(8).saturating_add(4);
    Lines { buffer, sizes: buffer.get(4..at).unwrap_or_default(), at }
}

/// See [`lines`].
pub struct Lines<'a> {
    buffer: &'a [u8],
    /// Those of the lines that are not read yet.
    sizes: &'a [u8],
    at: usize,
}

impl Lines<'_> {
    /// Where the next line begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether every announced line was there and nothing besides, once all are read.
    pub fn was_whole(&self) -> bool {
        self.buffer.is_empty() || (self.sizes.is_empty() && self.at == self.buffer.len())
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    // Once a line of each request: a call would cost as much as what it does.
    #[inline(always)]
    fn next(&mut self) -> Option<Line> {
        let (sizes, more) = self.sizes.split_first_chunk()?;
        let sizes = u64::from_le_bytes(*sizes);
        // In 64 bits, in which none of this overflows.
        let value_at = self.at as u64 + (sizes & u64::from(u32::MAX)) + 1;
        let next = value_at + (sizes >> 32) + 1;
        if next > self.buffer.len() as u64 {
            return None;
        }
        let (value_at, next) = (value_at as usize, next as usize);
        let line = Line { name: Span::new(self.at, value_at - 1), value: Span::new(value_at, next - 1) };
        (self.sizes, self.at) = (more, next);
        Some(line)
    }
}

/// Whether every announced line is there and nothing besides.
pub fn is_whole(buffer: &[u8]) -> bool {
    let mut lines = lines(buffer);
    lines.by_ref().for_each(drop);
    lines.was_whole()
}

/// Writes a map in the same format.
pub fn serialize<'a>(lines: impl IntoIterator<Item = (&'a str, &'a [u8])> + Clone) -> Vec<u8> {
    let count = lines.clone().into_iter().count();
    let mut out = (count as u32).to_le_bytes().to_vec();
    for (name, value) in lines.clone() {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for (name, value) in lines {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// Tells most names that are in none of some lists, by length, first byte and last: no two names are compared.
/// Letters of both cases are the same to it.
#[derive(Clone, Debug)]
pub struct Sieve([u32; 32]);

impl Sieve {
    /// Of these lists of lower-case names.
    pub const fn of(lists: &[&[&[u8]]]) -> Self {
        let mut firsts = [0; 32];
        let mut lists = lists;
        while let [list, more @ ..] = lists {
            let mut names: &[&[u8]] = list;
            while let [name, rest @ ..] = names {
                if let Some((at, bit)) = Self::place(name)
                    && let (_, [own, ..]) = firsts.split_at_mut(at)
                {
                    *own |= bit;
                }
                names = rest;
            }
            lists = more;
        }
        Self(firsts)
    }

    /// The same with one more name.
    pub fn and(mut self, name: &[u8]) -> Self {
        let place = Self::place(name).and_then(|(at, bit)| Some((self.0.get_mut(at)?, bit)));
        place.into_iter().for_each(|(own, bit)| *own |= bit);
        self
    }

    /// Whether a name may be in one of the lists. If not, it is in none.
    pub fn may_hold(&self, name: &[u8]) -> bool {
        Self::place(name).is_some_and(|(at, bit)| self.0.get(at).is_some_and(|firsts| firsts & bit != 0))
    }

    const fn place(name: &[u8]) -> Option<(usize, u32)> {
        let ([first, ..], [.., last]) = (name, name) else { return None };
        let at = if name.len() < 32 { name.len() } else { 31 };
        Some((at, 1 << ((*first ^ *last) & 31)))
    }
}

/// Whether two lower-case names are one variable to a server that takes all but letters and digits for the same.
pub fn is_same_variable(one: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| if byte.is_ascii_alphanumeric() { *byte } else { b'-' };
    one.len() == other.len() && one.iter().map(folded).eq(other.iter().map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn what_is_written_is_read() {
        let map: [(&str, &[u8]); 3] = [(":path", b"/"), ("x", b""), ("y", b"\xff\xfe\0z")];
        let buffer = serialize(map);
        assert!(is_whole(&buffer));
        let read: Vec<_> = lines(&buffer).map(|l| (l.name.of(&buffer), l.value.of(&buffer))).collect();
        assert_eq!(read, map.map(|(n, v)| (n.as_bytes(), v)));
    }

    #[test]
    fn a_sieve_lets_every_name_of_its_lists_through() {
        const LONG: &[u8] = &[b'l'; 40];
        const LISTS: [&[&[u8]]; 2] = [&[b"cookie", b"x-api-key"], &[b":protocol", LONG]];
        const SIEVE: Sieve = Sieve::of(&LISTS);
        assert!(LISTS.iter().copied().flatten().all(|name| SIEVE.may_hold(name)));
        assert!(!SIEVE.may_hold(b"x-one-more") && SIEVE.and(b"x-one-more").may_hold(b"x-one-more"));
        for name in [&b""[..], b"accept", b"cookies", b"bookie", b"cookin", &[b'l'; 20]] {
            assert!(!SIEVE.may_hold(name), "{name:?}");
        }
    }

    #[test]
    fn a_sieve_tells_names_apart_by_their_length_their_first_letter_and_their_last() {
        let sieve = Sieve::of(&[&[b"cookie"]]);
        for letter in b'a'..=b'z' {
            let (mut first, mut last) = (*b"cookie", *b"cookie");
            (first[0], last[5]) = (letter, letter);
            assert_eq!(sieve.may_hold(&first), letter == b'c', "{}", char::from(letter));
            assert_eq!(sieve.may_hold(&last), letter == b'e', "{}", char::from(letter));
            assert!(!sieve.may_hold(&[b"c".as_slice(), &[letter], b"ookie"].concat()));
        }
        assert!(sieve.may_hold(b"COOKIE") && sieve.may_hold(b"Cookie"), "letters of both cases are the same");
    }

    #[test]
    fn a_sieve_lets_a_name_of_any_length_through() {
        for length in 1..80 {
            let name = vec![b'x'; length];
            for sieve in [Sieve::of(&[&[&name]]), Sieve::of(&[]).and(&name)] {
                assert!(sieve.may_hold(&name), "{length}");
            }
        }
    }

    #[test]
    fn a_variable_is_the_same_whatever_stands_between_its_words() {
        for name in [&b"x-api-key"[..], b"x.api.key", b"x_api-key", b"x+api~key"] {
            assert!(is_same_variable(name, b"x-api-key"), "{name:?}");
        }
        for name in [&b"x-api-keys"[..], b"x-apikey", b"xaapi-key", b""] {
            assert!(!is_same_variable(name, b"x-api-key"), "{name:?}");
        }
    }

    #[test]
    fn a_buffer_that_lies_is_never_read_past_its_end() {
        let buffer = serialize([("name", b"value".as_slice())]);
        for cut in 0..buffer.len() {
            let torn = &buffer[..cut];
            assert!(cut == 0 || !is_whole(torn), "cut at {cut}");
            assert_eq!(lines(torn).count(), 0);
        }
        let mut huge = buffer.clone();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(lines(&huge).count(), 0);
        assert!(!is_whole(&u32::MAX.to_le_bytes()));
    }
}
