//! Percent-encoding (RFC 3986, 2.1).

/// The byte that two hex digits stand for.
pub(super) fn hex_byte(digits: &[u8]) -> Option<u8> {
    // from_str_radix alone would take a sign.
    let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

/// Percent-decodes; a broken escape stands for itself, as most servers read it. `plus` is what a
/// `+` stands for: itself in a path, a space in a query.
pub(super) fn decode(written: &[u8], plus: u8) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *written.get(at)?;
        at += 1;
        let escaped = (byte == b'%').then(|| written.get(at..at + 2)).flatten().and_then(hex_byte);
        at += if escaped.is_some() { 2 } else { 0 };
        Some(escaped.unwrap_or(if byte == b'+' { plus } else { byte }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn escapes_are_read_as_servers_read_them() {
        for (written, plain) in [
            ("a%62c", "abc"),
            ("%2B+", "+ "),
            ("%2b%2B", "++"),
            ("100%", "100%"),
            ("%2", "%2"),
            ("%zz%+1", "%zz% 1"),
            ("%2541", "%41"),
            ("", ""),
        ] {
            assert_eq!(decode(written.as_bytes(), b' ').collect::<Vec<_>>(), plain.as_bytes(), "{written}");
        }
        assert!(decode(b"a+b", b'+').eq(*b"a+b"));
    }
}
