//! What is found in a text that comes in chunks, and what is held back meanwhile.

use super::{SECRET, masker, through};
use crate::fixture::test;
use crate::masking::{Found, Stream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[test]
fn a_stream_cut_anywhere_is_masked_like_a_whole_text() {
    let basic = STANDARD.encode(format!("u:{SECRET}"));
    let percent: String = SECRET.bytes().map(|b| format!("%{b:02X}")).collect();
    let json: String = SECRET.bytes().map(|b| format!("\\u{b:04x}")).collect();
    let text = format!("a {SECRET} b \"{basic}\" c {percent} d {json}{SECRET} e");
    let masker = masker(SECRET);
    let mut whole = text.clone().into_bytes();
    assert_eq!(masker.mask(&mut whole), 5, "two that touch are two");
    for first in 0..=text.len() {
        let (one, rest) = text.as_bytes().split_at(first);
        for second in [0, 1, 2, 7, SECRET.len(), rest.len()] {
            let (two, three) = rest.split_at(second.min(rest.len()));
            let (out, echoes) = through(&masker, [one, two, three]);
            // A character of base64 that holds bits of both secret and text may have gone before.
            let differs = out.iter().zip(&whole).filter(|(one, other)| one != other).count();
            assert!(differs <= 1, "cut at {first} and {second} more: {}", String::from_utf8_lossy(&out));
            assert_eq!(echoes, 5, "cut at {first} and {second} more");
        }
    }
}

#[test]
fn only_an_end_that_begins_a_secret_is_held() {
    let masker = masker("ghp_TheRealTokenOfTheUser");
    let held = |text: &str| Stream::default().feed(&masker, text.as_bytes(), false).held;
    for (text, bytes) in [
        ("", 0),
        ("data: an event\n\n", 0),
        ("{\"a\":1}\n", 0),
        ("{\"a\":1}\r\n", 0),
        ("ghp_TheRealTokenOfTheUse.", 0),
        ("ghp_TheRealTokenOfTheUser", 0),
        ("x g", 1),
        ("x ghp_The", 7),
        ("x ghp_TheReal%54%6", 16),
        ("x %", 1),
        ("x \\u00", 4),
        ("x \\u00f", 0),
        ("x \\", 1),
        ("100%\n", 0),
        // Of base64, two line breaks are none.
        ("x Z2hwX1Ro\n", 9),
        ("x Z2hwX1Ro\n\n", 0),
        // One character before a line break is no reason to wait.
        ("begun\n", 0),
        ("x Z2h\n", 0),
        ("x Z2hw\n", 5),
    ] {
        assert_eq!(held(text), bytes, "{text:?}");
    }
}

#[test]
fn what_begins_a_spelling_is_held_from_its_first_character_to_the_last_but_one() {
    let secret = "ghp_TheRealToken";
    let masker = masker(secret);
    let hex = |digits: fn(u8) -> String| secret.bytes().map(digits).collect::<String>();
    let base64 = |before: usize| {
        let encoded = STANDARD.encode(format!("{}{secret}", "u".repeat(before)));
        // With the character after the last whole one, which holds bits of it.
        encoded[(before * 8).div_ceil(6)..((before + secret.len()) * 8).div_ceil(6)].to_owned()
    };
    for spelling in [
        secret.to_owned(),
        hex(|byte| format!("{byte:02x}")),
        hex(|byte| format!("{byte:02X}")),
        base64(0),
        base64(1),
        base64(2),
    ] {
        let percent = spelling.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let json = spelling.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
        for written in [spelling, percent, json] {
            for cut in 1..written.len() {
                let (one, two) = written.as_bytes().split_at(cut);
                assert_eq!(Stream::default().feed(&masker, one, false).held, cut, "{written}");
                let whole = (vec![b'*'; written.len()], 1);
                assert_eq!(through(&masker, [one, two]), whole, "{written}, cut at {cut}");
            }
        }
    }
}

#[test]
fn the_last_chunk_is_let_go() {
    let masker = masker("ghp_TheRealTokenOfTheUser");
    let mut stream = Stream::default();
    assert_eq!(stream.feed(&masker, b"x ghp_", false).held, 4);
    assert_eq!(stream.held(), 4);
    assert_eq!(stream.feed(&masker, b"", true), Found::default());
    // What was held and what came are looked at together; places count from what was held.
    assert_eq!(stream.feed(&masker, b"x ghp_", false).held, 4);
    let found = stream.feed(&masker, b"TheRealTokenOfTheUser!", false);
    assert_eq!((found.echoes.first(), found.echoes.len()), (Some(&(0..25)), 1));
    assert_eq!((found.new, found.held), (1, 0));
}

#[test]
fn an_echo_within_what_is_held_is_masked_at_once_and_counted_once() {
    let masker = masker("abcdefgh-abcdefgh-abcdefgh-X");
    let text = b"abcdefgh-abcdefgh-abcdefgh-Xabcdefgh-abcdefgh-abcdefgh-";
    let (out, echoes) = through(&masker, text.chunks(3));
    assert_eq!((out, echoes), ([&[b'*'; 28][..], &text[28..]].concat(), 1));
}

#[test]
fn a_stream_in_utf_16_is_known_by_its_first_bytes() {
    let masker = masker(SECRET);
    let wide = |chunks: &[&[u8]]| {
        let mut stream = Stream::default();
        chunks.iter().map(|chunk| stream.feed(&masker, chunk, false).wide).collect::<Vec<_>>()
    };
    assert_eq!(wide(&[b"\xff\xfea\0"]), [true]);
    assert_eq!(wide(&[b"\xfe\xff\0a"]), [true]);
    assert_eq!(wide(&[b"", b"\xff", b"", b"\xfe", b"a\0"]), [false, false, false, true, true]);
    // An empty chunk changes nothing.
    assert_eq!(wide(&[b"\xff\xfe", b"", b"a\0", b""]), [true; 4]);
    // UTF-8's own, and what stands elsewhere or is cut short.
    for other in [&b"\xef\xbb\xbf{}"[..], b"a\xff\xfe", b" \xfe\xff", b"\xff\xff\xfe", b"\xff", b"\xfe\xfe\xff", b""] {
        assert_eq!(wide(&[other]), [false], "{other:?}");
    }
}
