//! JSON in printable ASCII: no byte of a record can steer a terminal or end a line.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use std::io::{self, Write};

/// One line of JSON, every character outside printable ASCII escaped; in `line`, whatever that held before.
pub fn to_line<'a>(line: &'a mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<&'a str> {
    line.clear();
    value.serialize(&mut Serializer::with_formatter(&mut *line, AsciiFormatter))?;
    std::str::from_utf8(line).map_err(serde::ser::Error::custom)
}

struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = fragment;
        // Nearly always, and quicker seen than sought.
        if plain.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return CompactFormatter.write_string_fragment(out, plain);
        }
        while let Some(at) = plain.find(|c: char| !(' '..='~').contains(&c)) {
            let (before, odd) = plain.split_at(at);
            let mut rest = odd.chars();
            CompactFormatter.write_string_fragment(out, before)?;
            for unit in rest.next().unwrap_or_default().encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            plain = rest.as_str();
        }
        CompactFormatter.write_string_fragment(out, plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_survives_as_ascii() {
        let text: String = ('\0'..='\u{2ff}').chain(['\u{1f511}', '\u{10ffff}']).collect();
        let mut line = Vec::new();
        let line = to_line(&mut line, &text).unwrap();
        assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line}");
        assert_eq!(serde_json::from_str::<String>(line).unwrap(), text);
    }
}
