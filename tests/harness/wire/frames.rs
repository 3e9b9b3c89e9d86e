//! HTTP/2 frames made and read by hand (RFC 9113, section 4), and HPACK literals (RFC 7541).

use bytes::{Buf as _, Bytes, BytesMut};

/// What a client sends before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The default limit of a frame's payload, which every peer accepts.
pub const MAX_PAYLOAD: usize = 16_384;

/// Frame types.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

impl Frame {
    /// The bytes of a frame; nothing is checked.
    ///
    /// # Panics
    /// When the payload does not fit the 24-bit length.
    #[must_use]
    pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a payload below 16 MiB").to_be_bytes();
        assert_eq!(length[0], 0, "a payload below 16 MiB");
        let mut out = length[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// Takes a complete frame off the front of `buffer`.
    pub fn take(buffer: &mut BytesMut) -> Option<Self> {
        let mut header = buffer.get(..9)?;
        let length = usize::try_from(header.get_uint(3)).ok()?;
        let (kind, flags) = (header.get_u8(), header.get_u8());
        let stream = header.get_u32() & 0x7fff_ffff;
        if buffer.len() < 9 + length {
            return None;
        }
        buffer.advance(9);
        Some(Self { kind, flags, stream, payload: buffer.split_to(length).freeze() })
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without padding and priority; `None` when they do not fit.
    #[must_use]
    pub fn content(&self) -> Option<Bytes> {
        let mut content = self.payload.clone();
        if self.has(flag::PADDED) && matches!(self.kind, kind::DATA | kind::HEADERS) {
            let padding = usize::from(content.try_get_u8().ok()?);
            content.truncate(content.len().checked_sub(padding)?);
        }
        if self.has(flag::PRIORITY) && self.kind == kind::HEADERS {
            content.try_get_u32().ok()?;
            content.try_get_u8().ok()?;
        }
        Some(content)
    }
}

/// A header block as HPACK literals without indexing and without Huffman coding: any byte goes.
#[must_use]
pub fn literals<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_ref());
        string(&mut block, value.as_ref());
    }
    block
}

/// HEADERS, then CONTINUATION as often as the block needs it.
#[must_use]
pub fn headers(stream: u32, block: &[u8], end_stream: bool) -> Vec<u8> {
    let mut pieces: Vec<&[u8]> = block.chunks(MAX_PAYLOAD).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let mut out = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        let kind = if index == 0 { kind::HEADERS } else { kind::CONTINUATION };
        let mut flags = if index == last { flag::END_HEADERS } else { 0 };
        if index == 0 && end_stream {
            flags |= flag::END_STREAM;
        }
        out.extend(Frame::encode(kind, flags, stream, piece));
    }
    out
}

/// A string literal: 7-bit-prefix length, no Huffman bit, the bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    const PREFIX: usize = 0x7f;
    if bytes.len() < PREFIX {
        out.push(u8::try_from(bytes.len()).expect("below 127"));
    } else {
        out.push(0x7f);
        let mut rest = bytes.len() - PREFIX;
        while rest >= 0x80 {
            out.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        out.push(u8::try_from(rest).expect("below 128"));
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_every_length_are_read_back() {
        let mut decoder = loona_hpack::Decoder::new();
        for length in [0, 1, 126, 127, 128, 255, 5_000, 20_000] {
            let value = vec![0xff; length];
            let decoded = decoder.decode(&literals(&[(&b"x-a"[..], &value)])).expect("valid HPACK");
            assert_eq!(decoded, [(b"x-a".to_vec(), value)]);
        }
    }

    #[test]
    fn a_frame_is_taken_only_when_complete() {
        let bytes = Frame::encode(kind::DATA, flag::PADDED | flag::END_STREAM, 3, b"\x02abcPP");
        let mut buffer = BytesMut::from(&bytes[..bytes.len() - 1]);
        assert_eq!(Frame::take(&mut buffer), None);
        buffer.extend_from_slice(&bytes[bytes.len() - 1..]);
        let frame = Frame::take(&mut buffer).expect("complete");
        assert_eq!((frame.stream, frame.content()), (3, Some(Bytes::from_static(b"abc"))));
    }
}
