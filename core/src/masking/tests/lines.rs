//! Base64 in lines: where a line may end, and where none does.

use super::{masked_by, masker};
use crate::fixture::test;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const TOKEN: &str = "ghp_Real";
const BREAKS: [&str; 8] = ["\r\n", "\n", "\\r\\n", "\\n", "%0D%0A", "%0d%0a", "%0A", "%0a"];

/// What is left of a stretch that is masked.
fn stars(stretch: &str) -> String {
    stretch.chars().map(|one| if "\r\n".contains(one) { one } else { '*' }).collect()
}

/// Base64 of a text that ends with the token, with a line break before this character; where the token begins.
fn broken(before: usize, at: usize, line_break: &str, write: impl Fn(usize, char) -> String) -> (String, usize) {
    let encoded = STANDARD.encode(format!("{}{TOKEN}", "u".repeat(before)));
    let (mut text, mut begin) = (String::new(), 0);
    for (number, one) in encoded.trim_end_matches('=').chars().enumerate() {
        if number == before * 8 / 6 {
            begin = text.len();
        }
        if number == at {
            text += line_break;
        }
        text += &write(number, one);
    }
    (text, begin)
}

#[test]
fn base64_in_lines_is_masked_whichever_of_its_characters_are_escaped() {
    let masker = masker(TOKEN);
    let escaped = |number: usize, one: char| {
        let byte = u32::from(one);
        if number.is_multiple_of(2) { format!("%{byte:02X}") } else { format!("\\u{byte:04x}") }
    };
    for before in 3_usize..6 {
        let whole = (before * 8).div_ceil(6);
        let len = ((before + TOKEN.len()) * 8).div_ceil(6);
        for at in ((whole + 4).next_multiple_of(4)..len).step_by(4) {
            for (first, line_break) in (whole..len).flat_map(|first| BREAKS.map(|line_break| (first, line_break))) {
                for last in [first, len] {
                    let (text, begin) = broken(before, at, line_break, |number, one| {
                        if (first..=last).contains(&number) { escaped(number, one) } else { one.into() }
                    });
                    let expected = format!("{}{}", &text[..begin], stars(&text[begin..]));
                    assert_eq!(masked_by(&masker, &text), expected, "{text}");
                }
            }
        }
    }
}

#[test]
fn base64_is_masked_on_both_lines_where_one_ends_right_after_it_begins() {
    let masker = masker(TOKEN);
    for before in 3_usize..6 {
        for line_break in BREAKS {
            let (text, begin) = broken(before, 8, line_break, |_, one| one.into());
            assert_eq!(masked_by(&masker, &text), format!("{}{}", &text[..begin], stars(&text[begin..])), "{text}");
        }
    }
}

#[test]
fn a_line_break_elsewhere_is_none_of_a_spelling() {
    let masker = masker(TOKEN);
    for before in 3_usize..6 {
        let whole = (before * 8).div_ceil(6);
        for at in whole + 5..(before + TOKEN.len()) * 8 / 6 {
            let places: &[&str] = if at % 4 == 0 { &["\n\n", "\r\n\r\n", "\\n\\n", "\n\r\n"] } else { &BREAKS };
            for line_break in places {
                let (text, _) = broken(before, at, line_break, |_, one| one.into());
                assert_eq!(masked_by(&masker, &text), text);
            }
        }
    }
    let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    for spelling in [TOKEN, &hex] {
        for at in 1..spelling.len() {
            for line_break in BREAKS {
                let text = format!("{}{line_break}{}", &spelling[..at], &spelling[at..]);
                assert_eq!(masked_by(&masker, &text), text);
            }
        }
    }
}
