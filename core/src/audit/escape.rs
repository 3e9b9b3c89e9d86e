//! JSON text from bytes nobody vouches for.

/// Appends `bytes` to the inside of a JSON string: printable ASCII as it is, every other byte as
/// `\u00XX`, so that a record is one line of ASCII whatever a request held.
pub fn escape_into(out: &mut String, bytes: &[u8]) {
    // To the end, whatever is found: sixteen bytes at a time.
    if bytes.iter().fold(true, |all, b| all & is_plain(*b)) {
        return out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
    }
    let mut rest = bytes;
    // Runs of plain text are copied whole: almost every field is one run.
    loop {
        let (run, tail) = rest.split_at(rest.iter().position(|b| !is_plain(*b)).unwrap_or(rest.len()));
        out.push_str(std::str::from_utf8(run).unwrap_or_default());
        let Some((byte, tail)) = tail.split_first() else { return };
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            _ => {
                out.push_str("\\u00");
                out.push_str(&crate::digest::hex(&[*byte]));
            }
        }
        rest = tail;
    }
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn every_byte_becomes_one_character_of_ascii_json() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::from("\"");
        escape_into(&mut text, &all);
        text.push('"');
        assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)));
        let back: String = serde_json::from_str(&text).unwrap();
        assert_eq!(back.chars().map(|c| c as u32).collect::<Vec<_>>(), (0..=255).collect::<Vec<u32>>());
    }
}
