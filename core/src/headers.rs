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
/// [`is_whole`] tells.
pub fn lines(buffer: &[u8]) -> impl Iterator<Item = Line> + '_ {
    let count = word(buffer, 0).unwrap_or(0);
    let mut at = count.saturating_mul(8).saturating_add(4);
    (0..count).map_while(move |i| {
        let sizes = 4 + i * 8;
        let (name_len, value_len) = (word(buffer, sizes)?, word(buffer, sizes + 4)?);
        let value_at = at.checked_add(name_len)?.checked_add(1)?;
        let next = value_at.checked_add(value_len)?.checked_add(1)?;
        let line = Line { name: Span::new(at, value_at - 1), value: Span::new(value_at, next - 1) };
        at = next;
        (next <= buffer.len()).then_some(line)
    })
}

/// Whether every announced line is there and nothing besides.
pub fn is_whole(buffer: &[u8]) -> bool {
    let Some(count) = word(buffer, 0) else { return buffer.is_empty() };
    let mut seen = 0;
    let mut end = count.saturating_mul(8).saturating_add(4);
    for line in lines(buffer) {
        seen += 1;
        end = line.value.end() + 1;
    }
    seen == count && end == buffer.len()
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

fn word(buffer: &[u8], at: usize) -> Option<usize> {
    let bytes = buffer.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
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
