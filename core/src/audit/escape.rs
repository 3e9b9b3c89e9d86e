//! JSON text from bytes nobody vouches for.

use crate::words;

/// What JSON is written into: a text, or the bytes of one.
pub trait Json {
    /// Appends words of ours.
    fn push_word(&mut self, word: &str);
    /// Appends what is printable ASCII.
    fn push_plain(&mut self, plain: &[u8]);
}

impl Json for String {
    fn push_word(&mut self, word: &str) {
        self.push_str(word);
    }

    fn push_plain(&mut self, plain: &[u8]) {
        self.push_str(std::str::from_utf8(plain).unwrap_or_default());
    }
}

impl Json for Vec<u8> {
    fn push_word(&mut self, word: &str) {
        self.extend_from_slice(word.as_bytes());
    }

    fn push_plain(&mut self, plain: &[u8]) {
        self.extend_from_slice(plain);
    }
}

/// Appends `bytes` to the inside of a JSON string: printable ASCII as it is, every other byte as
/// `\u00XX`, so that a record is one line of ASCII whatever a request held.
pub fn escape_into(out: &mut impl Json, bytes: &[u8]) {
    let odd = |word| words::below(word, 0x20) | words::from_del(word) | words::is(word, b'"') | words::is(word, b'\\');
    if !words::any(bytes, odd) {
        return out.push_plain(bytes);
    }
    let mut rest = bytes;
    // Runs of plain text are copied whole: almost every field is one run.
    loop {
        let (run, tail) = rest.split_at(rest.iter().position(|b| !is_plain(*b)).unwrap_or(rest.len()));
        out.push_plain(run);
        let Some((byte, tail)) = tail.split_first() else { return };
        match byte {
            b'"' => out.push_word("\\\""),
            b'\\' => out.push_word("\\\\"),
            _ => {
                out.push_word("\\u00");
                out.push_word(&crate::digest::hex(&[*byte]));
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

    #[test]
    fn quotes_and_backslashes_are_written_in_two_characters_and_others_in_six() {
        let mut text = String::new();
        escape_into(&mut text, b"a\"\\\n\x7f\xff");
        assert_eq!(text, "a\\\"\\\\\\u000a\\u007f\\u00ff");
    }

    #[test]
    fn a_text_and_its_bytes_are_written_alike() {
        for text in ["", "plain", "a much longer one \\ with \"quotes\"", "\u{7f}", "tab\tand more, beyond eight", "ü"]
        {
            let (mut written, mut bytes) = (String::new(), Vec::new());
            escape_into(&mut written, text.as_bytes());
            escape_into(&mut bytes, text.as_bytes());
            assert_eq!(written.as_bytes(), bytes);
        }
    }
}
