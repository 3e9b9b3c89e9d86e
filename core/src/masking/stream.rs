//! A text that comes in chunks.

use super::Masker;
use arrayvec::ArrayVec;
use std::ops::Range;
use zeroize::Zeroizing;

/// How UTF-16 says which of two bytes comes first (Unicode, 23.8). Browsers and Windows' tools go by it,
/// whatever the head of an answer says or does not say.
const BYTE_ORDER_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// What is known of one stream.
#[derive(Default)]
pub struct Stream {
    /// The end of what has come, as it came, if a secret may have begun there.
    tail: Zeroizing<Vec<u8>>,
    /// What begins before this place of the tail is counted already.
    counted: usize,
    /// How the stream begins, as far as that has come.
    beginning: ArrayVec<u8, 2>,
}

/// What a chunk brought. Places are counted from the first byte that was held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What to overwrite ([`super::cover`]).
    pub echoes: Vec<Range<usize>>,
    /// How many of these nobody has counted.
    pub new: usize,
    /// How many bytes at the end must not go on yet.
    pub held: usize,
    /// Whether the stream begins with the byte order mark of UTF-16, in which no secret is found.
    pub wide: bool,
}

impl Stream {
    /// How many bytes were held after the last chunk.
    pub fn held(&self) -> usize {
        self.tail.len()
    }

    /// Looks at a chunk together with what was held; after the last one nothing is.
    pub fn feed(&mut self, masker: &Masker, chunk: &[u8], last: bool) -> Found {
        self.beginning.extend(chunk.iter().copied().take(self.beginning.remaining_capacity()));
        let wide = BYTE_ORDER_MARKS.contains(&self.beginning.as_slice());
        if last {
            // What follows begins anew: the next message of a WebSocket.
            self.beginning.clear();
        }
        if chunk.is_empty() && self.tail.is_empty() {
            return Found { wide, ..Found::default() };
        }
        let mut tail = std::mem::take(&mut self.tail);
        let text = if tail.is_empty() {
            chunk
        } else {
            tail.extend_from_slice(chunk);
            &tail
        };
        let echoes = masker.find(text);
        let open = if last { text.len() } else { masker.open_from(text) };
        let new = echoes.iter().filter(|echo| echo.start >= self.counted).count();
        let counted = echoes.last().map_or(0, |echo| echo.end).max(self.counted);
        self.counted = counted.saturating_sub(open);
        self.tail = Zeroizing::new(text.get(open..).unwrap_or_default().to_vec());
        Found { new, held: self.tail.len(), echoes, wide }
    }
}
