//! Canonical forms: what is accepted means one thing, however often it is read.

use super::{bytes, config, made_of};
use crate::headers::Span;
use crate::matching::host::{Authority, Host};
use crate::matching::path::{Pattern, Target, check_path};
use crate::matching::query;
use crate::names::Name;
use proptest::prelude::*;

const AUTHORITIES: &[&str] = &[
    "api", "github", "COM", "xn--", "a", "_", "-", ".", ".", ":", ":", "443", "0", "127", "0x7f", "1", "[", "]", "::",
    "::1", "ffff", "fe80", "%", "25", "@", ",", " ", "\0", "\u{e9}", "/",
];

const TARGETS: &[&str] = &[
    "/", "/", "/", "a", "b", ".", ".", "..", ";", "%", "%2e", "%2E", "%2f", "%5c", "%25", "%32", "%65", "2e", "25",
    "%00", "%20", "%3b", "\\", "?", "#", "=", "&", "+", " ", "\u{e9}", "*",
];

const PATTERNS: &[&str] = &["/a", "/A", "/%61", "/a;b", "/", "/*", "/**", "/a%20"];

/// What a server makes of a path that it decodes so many times.
fn decoded(path: &[u8], times: usize) -> Vec<u8> {
    (0..times).fold(path.to_vec(), |path, _| query::decode(&path).collect())
}

/// Whether a resolver in the manner of inet_aton takes this name for an address.
fn is_read_as_address(name: &str) -> bool {
    let number = |label: &str| match label.strip_prefix("0x") {
        Some(hex) => hex.is_empty() || u64::from_str_radix(hex, 16).is_ok(),
        None => label.parse::<u64>().is_ok(),
    };
    name.split('.').count() <= 4 && name.split('.').all(number)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_authority_has_one_spelling(text in made_of(AUTHORITIES, 8), noise in bytes(24)) {
        let _ = Authority::parse(&noise);
        if let Ok(authority) = Authority::parse(text.as_bytes()) {
            let written = authority.to_string();
            prop_assert_eq!(Authority::parse(written.as_bytes()), Ok(authority.clone()));
            prop_assert_eq!(&written, &text.to_ascii_lowercase(), "nothing but the case may change");
            if let Host::Name(name) = &authority.host {
                prop_assert!(!is_read_as_address(name), "{}", name);
            }
        }
    }

    #[test]
    fn a_target_that_is_accepted_reads_in_one_way(text in made_of(TARGETS, 10), noise in bytes(24)) {
        let _ = Target::parse(&noise, Span::new(0, noise.len()));
        let text = format!("/{text}");
        let Ok(target) = Target::parse(text.as_bytes(), Span::new(0, text.len())) else { return Ok(()) };
        let path = target.path.of(text.as_bytes());
        let segments = path.split(|b| *b == b'/').count();
        for times in 0..4 {
            let read = decoded(path, times);
            prop_assert_eq!(read.split(|b| *b == b'/').count(), segments, "no separator appears: {}", text);
            prop_assert!(!read.contains(&b'\\') && !read.iter().any(u8::is_ascii_control), "{}", text);
            for segment in read.split(|b| *b == b'/') {
                // Without its parameters, as servers cut them off before or after decoding.
                let name = segment.split(|b| *b == b';').next().unwrap();
                prop_assert!(name != b"." && name != b"..", "no dots appear after {} times: {}", times, text);
                prop_assert!(!name.is_empty() || segment.is_empty(), "{}", text);
            }
        }
        // And it is accepted again, alone and with its query.
        prop_assert!(check_path(path).is_ok());
        let query = target.query.map(|query| query.of(text.as_bytes()));
        let again = [path, if query.is_some() { b"?" } else { b"" }, query.unwrap_or_default()].concat();
        prop_assert_eq!(again, text.as_bytes());
    }

    #[test]
    fn what_is_exactly_meant_is_also_loosely_meant(
        (pattern, path) in (made_of(PATTERNS, 5), made_of(PATTERNS, 5)),
        (written, plain) in (made_of(TARGETS, 5), made_of(TARGETS, 4)),
    ) {
        // Refusals match loosely, permissions exactly: a refusal that misses what a permission
        // would meet is a hole.
        for path in [&path, &pattern] {
            if let (Ok(pattern), Ok(())) = (Pattern::parse(&pattern), check_path(path.as_bytes())) {
                prop_assert!(!pattern.matches(path.as_bytes()) || pattern.resembles(path.as_bytes()), "{pattern:?} {path}");
            }
        }
        for written in [&written, &plain] {
            let exactly = query::decodes_to(written.as_bytes(), plain.as_bytes());
            prop_assert!(!exactly || query::resembles(written.as_bytes(), plain.as_bytes()), "{written} {plain}");
            for parameter in query::parameters(written.as_bytes()) {
                prop_assert!(query::loose_parameters(written.as_bytes()).any(|loose| loose == parameter), "{written}");
            }
        }
    }

    #[test]
    fn a_name_is_what_was_written(text in "[a-zA-Z0-9_./\u{e9}-]{0,70}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert_eq!(name.as_str(), text);
        }
    }

    #[test]
    fn decoding_undoes_encoding(plain in bytes(40)) {
        let encoded: String = plain.iter().map(|b| format!("%{b:02X}")).collect();
        prop_assert!(query::decodes_to(encoded.as_bytes(), &plain));
        prop_assert!(query::decodes_to(encoded.to_lowercase().as_bytes(), &plain));
    }
}
