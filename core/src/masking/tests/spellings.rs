//! What is found in a text that is there whole.

use super::{SECRET, masked_by, masker};
use crate::fixture::test;
use crate::headers::serialize;
use crate::masking::{Masker, SHORTEST, mask_headers, read_head};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

fn masked(secret: &str, text: &str) -> String {
    masked_by(&masker(secret), text)
}

fn escaped(secret: &str, one: impl Fn(u8) -> String) -> String {
    secret.bytes().map(one).collect()
}

#[test]
fn every_documented_spelling_is_masked_whole() {
    let json = serde_json::to_string(SECRET).unwrap();
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let as_is = |b: u8| char::from(b).to_string();
    let hex = escaped(SECRET, |b| format!("{b:02x}"));
    for spelling in [
        SECRET.to_owned(),
        SECRET.replace(' ', "+"),
        json.trim_matches('"').to_owned(),
        json.trim_matches('"').replace('/', "\\/"),
        escaped(SECRET, |b| format!("%{b:02x}")),
        escaped(SECRET, |b| format!("%{b:02X}")),
        escaped(SECRET, |b| if unreserved(b) { as_is(b) } else { format!("%{b:02X}") }),
        escaped(SECRET, |b| format!("\\u{b:04x}")),
        escaped(SECRET, |b| format!("\\u{b:04X}")),
        escaped(SECRET, |b| if b % 2 == 0 { format!("\\u{b:04x}") } else { format!("%{b:02X}") }),
        escaped(SECRET, |b| if b"'\\".contains(&b) { format!("\\{}", char::from(b)) } else { as_is(b) }),
        hex.to_uppercase(),
        hex,
    ] {
        // Neither a quote nor a full stop is part of any spelling that ends in this secret's last byte.
        let (before, after) = ("x: ", ".\n");
        let expected = format!("{before}{}{after}", "*".repeat(spelling.len()));
        assert_eq!(masked(SECRET, &format!("{before}{spelling}{after}")), expected, "{spelling}");
    }
}

#[test]
fn base64_of_a_text_around_the_secret_is_masked_but_for_the_text() {
    for secret in [SECRET, "ghp_TheRealTokenOfTheUser0123456789abcd", "????>>>>", "12345678", "123456789"] {
        let masker = masker(secret);
        for before in 0..7 {
            for after in 0..4 {
                let text = format!("{}{secret}{}", "u".repeat(before), "v".repeat(after));
                for engine in [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let encoded = engine.encode(&text);
                    // Every character that holds a bit of the secret.
                    let (from, to) = (before * 8 / 6, ((before + secret.len()) * 8).div_ceil(6));
                    let expected = format!("\"{}{}{}\"", &encoded[..from], "*".repeat(to - from), &encoded[to..]);
                    assert_eq!(masked_by(&masker, &format!("\"{encoded}\"")), expected, "{text}");
                    // The same with all that JSON and URLs escape in it.
                    let escape = |text: &str| text.replace('/', "\\/").replace('+', "%2B").replace('=', "%3d");
                    let stars = "*".repeat(escape(&encoded[from..to]).len());
                    let expected = format!("\"{}{stars}{}\"", &encoded[..from], escape(&encoded[to..]));
                    assert_eq!(masked_by(&masker, &format!("\"{}\"", escape(&encoded))), expected, "{text}");
                }
            }
        }
    }
}

#[test]
fn base64_in_lines_is_masked_but_for_the_line_breaks() {
    let secret = "ghp_TheRealTokenOfTheUser0123456789abcd".repeat(4);
    let masker = masker(&secret);
    for before in (0..12).chain(40..72) {
        for (line, line_break) in [(76, "\r\n"), (64, "\n"), (60, "\\n"), (76, "%0D%0A"), (76, "\\r\\n")] {
            let encoded = STANDARD.encode(format!("{}{secret}", "u".repeat(before)));
            let lines: Vec<_> =
                encoded.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).unwrap()).collect();
            let text = lines.join(line_break);
            let mut left = text.clone().into_bytes();
            masker.mask(&mut left);
            let left = String::from_utf8(left).unwrap();
            assert_eq!(left.matches(['\r', '\n']).count(), text.matches(['\r', '\n']).count());
            let left =
                left.replace(['*', '\r', '\n', '='], "").replace("%0D%0A", "").replace("\\n", "").replace("\\r", "");
            assert_eq!(left, encoded[..before * 8 / 6], "{before} bytes before, lines of {line}");
        }
    }
}

#[test]
fn overlapping_echoes_are_masked_both() {
    assert_eq!(masked("abababab", "xabababababx"), "x**********x");
    assert_eq!(masked("%25%25%25", "%25%25%25%25"), "************");
    // A secret that looks like an escape is found as it is, too.
    assert_eq!(masked("%41%42%43", ">%41%42%43<"), ">*********<");
    assert_eq!(masked("\\u0041\\\\", ">\\u0041\\\\<"), ">********<");
}

#[test]
fn a_text_that_can_be_read_in_many_ways_is_read_in_none_twice() {
    // Two backslashes are one, or two: there are millions of ways.
    let secret = format!("x{}", "\\".repeat(24));
    assert_eq!(masked(&secret, &format!("x{}y", "\\".repeat(48))), format!("{}y", "*".repeat(49)));
}

#[test]
fn several_secrets_are_masked_at_once() {
    let masker = Masker::new([&Secret::new("first-secret"), &Secret::new("second-secret")]).unwrap();
    let mut text = b"first-secret, second-secret, third-secret".to_vec();
    assert_eq!(masker.mask(&mut text), 2);
    assert_eq!(text, b"************, *************, third-secret");
}

#[test]
fn what_is_no_echo_stays_as_it_is() {
    for text in [
        "",
        "%",
        "\\",
        "gh/p+0",
        &SECRET[1..],
        &SECRET[..SECRET.len() - 1],
        &SECRET.to_uppercase(),
        "%67%68%2f%70",
        "\\u0067\\u0068\\/p",
        "Z2gvcCsw",
    ] {
        assert_eq!(masked(SECRET, text), text);
    }
}

#[test]
fn a_spelling_of_another_secret_stays_as_it_is() {
    let secret = "ghp_TheRealToken";
    let masker = masker(secret);
    let spell: [fn(&[u8]) -> String; 6] = [
        |other| String::from_utf8(other.to_vec()).unwrap(),
        |other| other.iter().map(|byte| format!("%{byte:02x}")).collect(),
        |other| other.iter().map(|byte| format!("\\u{byte:04X}")).collect(),
        |other| other.iter().map(|byte| format!("{byte:02x}")).collect(),
        |other| STANDARD.encode(other),
        |other| STANDARD.encode(other).bytes().map(|byte| format!("%{byte:02X}")).collect(),
    ];
    for at in 0..secret.len() {
        let mut other = secret.as_bytes().to_vec();
        other[at] ^= 0x04;
        for spell in spell {
            let text = spell(&other);
            assert_eq!(masked_by(&masker, &text), text);
        }
    }
}

#[test]
fn what_stands_beside_base64_and_is_none_of_it_stays() {
    for secret in ["ghp_TheRealToken", "ghp_TheRealTokens"] {
        let masker = masker(secret);
        for before in 1..3 {
            let encoded = STANDARD.encode(format!("{}{secret}", "u".repeat(before)));
            // The characters that the secret alone determines.
            let whole = &encoded[(before * 8_usize).div_ceil(6)..(before + secret.len()) * 8 / 6];
            for (left, right) in [("\"", "\""), (">", "%20"), ("=", "\\u0022"), ("\n", "\\n"), (".", "%"), ("", "\\")] {
                let expected = format!("{left}{}{right}", "*".repeat(whole.len()));
                assert_eq!(masked_by(&masker, &format!("{left}{whole}{right}")), expected);
            }
        }
    }
}

#[test]
fn what_is_too_short_to_be_told_from_chance_is_refused() {
    let of = |text: &str| Masker::new([&Secret::new(text)]).is_ok();
    assert!(of(&"x".repeat(SHORTEST)));
    assert!(!of(&"x".repeat(SHORTEST - 1)));
    assert!(!of("p\u{e4}ssword-long"));
}

#[test]
fn headers_are_masked_by_name_and_value() {
    let secret = "a-secret-token";
    let (basic, name) = (STANDARD.encode(format!("user:{secret}")), format!("x-{secret}"));
    let location = format!("https://x/?key={}", escaped(secret, |b| format!("%{b:02X}")));
    let lines: [(&str, &[u8]); 5] = [
        (":status", b"200"),
        ("location", location.as_bytes()),
        (&name, b"\xff\xfe"),
        ("www-authenticate", basic.as_bytes()),
        ("grpc-message", secret.as_bytes()),
    ];
    let mut map = serialize(lines);
    let length = map.len();
    assert_eq!(mask_headers(&masker(secret), &mut map), 4);
    assert!(map.len() == length && crate::headers::is_whole(&map));
    let read: Vec<_> = crate::headers::lines(&map)
        .map(|l| format!("{}: {}", l.name.of(&map).escape_ascii(), l.value.of(&map).escape_ascii()))
        .collect();
    let stars = |n: usize| "*".repeat(n);
    assert_eq!(
        read,
        [
            ":status: 200".to_owned(),
            format!("location: https://x/?key={}", stars(3 * secret.len())),
            format!("x-{}: \\xff\\xfe", stars(secret.len())),
            format!("www-authenticate: {}{}==", &basic[..6], stars(basic.len() - 8)),
            format!("grpc-message: {}", stars(secret.len())),
        ]
    );
    assert_eq!(mask_headers(&masker(secret), &mut Vec::new()), 0);
}

fn is_readable(map: &[u8], bodiless: bool) -> bool {
    read_head(map, bodiless).is_readable
}

#[test]
fn a_body_is_readable_where_nothing_says_otherwise() {
    let readable =
        |name: &str, value: &[u8]| is_readable(&serialize([(":status", b"200".as_slice()), (name, value)]), false);
    for (name, value) in
        [("content-encoding", "identity"), ("content-encoding", ""), ("grpc-encoding", "Identity"), ("x", "gzip")]
    {
        assert!(readable(name, value.as_bytes()), "{name}: {value}");
    }
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-encoding", "identity, br"),
        ("grpc-encoding", "gzip"),
        ("content-encoding", "?"),
    ] {
        assert!(!readable(name, value.as_bytes()), "{name}: {value}");
    }
    for (status, readable) in [("204", true), ("304", true), ("206", false), ("200", false)] {
        let map = serialize([(":status", status.as_bytes()), ("content-encoding", b"gzip")]);
        assert_eq!(is_readable(&map, false), readable, "{status}");
        assert!(is_readable(&map, true), "{status}");
    }
    assert!(!is_readable(&serialize([(":status", b"101".as_slice())]), true), "a tunnel");
    let torn = serialize([("x", b"y".as_slice())]);
    assert!(!is_readable(&torn[..torn.len() - 1], true), "what contradicts itself says nothing");
}

#[test]
fn a_body_in_another_character_set_is_not_readable() {
    let with = |kind: &str| {
        let map = serialize([(":status", b"200".as_slice()), ("content-type", kind.as_bytes())]);
        is_readable(&map, false)
    };
    for kind in
        ["text/html", "application/json; charset=utf-8", "text/plain;charset=\"UTF-8\"; a=b", "a/b; charset=ISO-8859-1"]
    {
        assert!(with(kind), "{kind}");
    }
    for kind in [
        "text/plain; charset=utf-16",
        "text/plain;CHARSET=\"UTF-16LE\"",
        "a/b; x=y; charset = ucs-2",
        "a/b;charset=utf-7",
    ] {
        assert!(!with(kind), "{kind}");
    }
}
