//! How one character, or one line break, may be written.

/// What begins an escape.
pub(super) const ESCAPES: [u8; 2] = [b'%', b'\\'];

/// The most bytes that one character takes: `\u0041`.
pub(super) const LONGEST: usize = 6;

/// Line breaks in base64, as they are, in JSON and in percent-encoding.
pub(super) const BREAKS: [&[u8]; 8] = [b"\r\n", b"\n", b"\\r\\n", b"\\n", b"%0D%0A", b"%0d%0a", b"%0A", b"%0a"];

/// What these end with.
pub(super) const LAST_OF_BREAKS: [u8; 4] = *b"\nnAa";

/// What stands at the beginning of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// A byte in this many.
    Of(u8, usize),
    /// The text ends within what may be one.
    Torn,
    /// None.
    None,
}

/// Reads the escape at the beginning of a text.
pub(super) fn escape(text: &[u8]) -> Escape {
    match text {
        [b'%', rest @ ..] => hex(rest, 1, &[]),
        [b'\\', b'u', rest @ ..] => hex(rest, 2, b"00"),
        [b'\\', byte @ (b'/' | b'\\' | b'"' | b'\''), ..] => Escape::Of(*byte, 2),
        [b'\\'] => Escape::Torn,
        _ => Escape::None,
    }
}

/// Zeros, then two hex digits; `before` bytes stand before them.
fn hex(text: &[u8], before: usize, zeros: &[u8]) -> Escape {
    let seen = text.get(..zeros.len()).unwrap_or(text);
    if !zeros.starts_with(seen) {
        return Escape::None;
    }
    let mut digits = text.get(zeros.len()..).unwrap_or_default().iter().map(|byte| char::from(*byte).to_digit(16));
    match (digits.next(), digits.next()) {
        // Two digits are below 256.
        (Some(Some(high)), Some(Some(low))) => Escape::Of((high * 16 + low) as u8, before + zeros.len() + 2),
        // Nothing that is looked for is above 127.
        (None | Some(Some(0..=7)), None) => Escape::Torn,
        _ => Escape::None,
    }
}
