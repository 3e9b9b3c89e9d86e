//! Who is meant: authorities, paths, and what is handed on from the door.

use attache_core::door::Inside;
use attache_core::headers::Span;
use attache_core::matching::host::{Authority, Host};
use attache_core::matching::path::Target;

/// What is an authority has one spelling, which other readers understand as we do.
pub fn authority(data: &[u8]) {
    let Ok(parsed) = Authority::parse(data) else { return };
    let canonical = parsed.to_string();
    assert_eq!(Authority::parse(canonical.as_bytes()).as_ref(), Ok(&parsed), "{canonical} is read otherwise");
    assert!(data.eq_ignore_ascii_case(canonical.as_bytes()), "{canonical} is more than another case");
    // The WHATWG's reader takes odd spellings of addresses for addresses: those are none of ours.
    let read = url::Host::parse(&parsed.host.to_string());
    let same = match (&parsed.host, &read) {
        (Host::Name(name), Ok(url::Host::Domain(domain))) => name == domain,
        (Host::V4(address), Ok(url::Host::Ipv4(other))) => address == other,
        (Host::V6(address), Ok(url::Host::Ipv6(other))) => address == other,
        // Punycode that stands for nothing.
        (Host::Name(name), Err(_)) => name.split('.').any(|label| label.starts_with("xn--")),
        _ => false,
    };
    assert!(same, "{:?} is read as {read:?}", parsed.host);
}

/// However often a path is decoded, it leads nowhere else.
pub fn path(data: &[u8]) {
    let Ok(target) = Target::parse(data, Span::new(0, data.len())) else { return };
    let path = target.path.of(data);
    assert!(path.starts_with(b"/") && !path.contains(&b'?') && !path.contains(&b'#'));
    let once = decoded(path);
    assert_eq!(count(path, b'/'), count(&once, b'/'), "a separator appears");
    for text in [once.clone(), decoded(&once)] {
        assert!(!text.iter().any(|byte| *byte < 0x20 || *byte == 0x7f || *byte == b'\\'), "a control byte appears");
        let mut segments = text.split(|byte| *byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            let plain = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            assert!(!matches!(plain, b"." | b"..") && (last || !segment.is_empty()), "a segment that is none");
        }
    }
    if let Some(query) = target.query {
        assert_eq!(path.len() + 1 + query.of(data).len(), data.len());
    }
}

/// What the door hands on is read as it was written, and nothing else is.
pub fn inside(data: &[u8]) {
    let Some(inside) = Inside::parse(data) else { return };
    let written = inside.to_string();
    assert_eq!(Inside::parse(written.as_bytes()), Some(inside), "{written}");
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        let digits = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *byte == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn count(text: &[u8], of: u8) -> usize {
    text.iter().filter(|byte| **byte == of).count()
}
