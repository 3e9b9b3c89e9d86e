//! Request targets and path patterns.
//!
//! A target is accepted only if nobody can read it in two ways: no dot segments in any encoding,
//! no empty segments, no backslash, no escaped separator, no overlong UTF-8, no control or non-ASCII
//! byte. Escapes of other bytes are taken as they are: a path need not be UTF-8.

use super::percent::{decode, hex_byte};
use crate::headers::Span;
use crate::words;

/// The parts of a request target, as positions in the buffer it was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The path, from its leading slash.
    pub path: Span,
    /// The query after the first `?`, if there is one.
    pub query: Option<Span>,
}

/// The target can be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path can be read in more than one way")]
pub struct Ambiguous;

impl Target {
    /// Splits and checks the target at `span` of `buffer`.
    pub fn parse(buffer: &[u8], span: Span) -> Result<Self, Ambiguous> {
        let text = span.of(buffer);
        let odd = |word| words::below(word, 0x21) | words::from_del(word) | words::is(word, b'#');
        if text.first() != Some(&b'/') || words::any(text, odd) {
            return Err(Ambiguous);
        }
        let split = memchr::memchr(b'?', text);
        let path_end = span.start() + split.unwrap_or(text.len());
        let path = Span::new(span.start(), path_end);
        check_path(path.of(buffer))?;
        Ok(Self { path, query: split.map(|_| Span::new(path_end + 1, span.end())) })
    }
}

/// Checks a path, as a config or a request wrote it.
pub fn check_path(path: &[u8]) -> Result<(), Ambiguous> {
    if path.first() != Some(&b'/') {
        return Err(Ambiguous);
    }
    if is_plain(path) {
        return Ok(());
    }
    if path.contains(&b'\\') {
        return Err(Ambiguous);
    }
    let mut segments = path.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if (segment.is_empty() && !last) || is_dots(segment) || !escapes_are_plain(segment) {
            return Err(Ambiguous);
        }
    }
    Ok(())
}

/// Whether no segment is empty, begins with a dot, or holds what could be read in another way. Most
/// paths are.
fn is_plain(path: &[u8]) -> bool {
    let odd = |word| words::is(word, b'%') | words::is(word, b';') | words::is(word, b'\\');
    let begins_oddly = |word, next| words::is(word, b'/') & (words::is(next, b'/') | words::is(next, b'.'));
    let (Some((_, next)), Some((_, before))) = (path.split_first(), path.split_last()) else { return false };
    !words::any(path, odd) && !words::any_pair(before, next, begins_oddly)
}

/// `.`, `..` and nothing, and what becomes them by decoding or by cutting `;parameters` off, in
/// either order.
fn is_dots(segment: &[u8]) -> bool {
    // Cheap and common: a segment that begins with none of these is none.
    if !matches!(segment.first(), Some(b'.' | b'%' | b';')) {
        return false;
    }
    let mut rest = segment;
    while let Some((first, tail)) = rest.split_first() {
        let escape = rest.get(..3).unwrap_or_default();
        rest = match first {
            b'.' => tail,
            b';' => return true,
            _ if escape.eq_ignore_ascii_case(b"%2e") => rest.get(3..).unwrap_or_default(),
            _ => return escape.eq_ignore_ascii_case(b"%3b"),
        };
    }
    true
}

/// Every `%` is followed by two hex digits that stand for neither a separator nor a control byte
/// nor another `%` whose decoding would make one.
fn escapes_are_plain(segment: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = segment.get(from..).and_then(|rest| memchr::memchr(b'%', rest)) {
        from += at + 3;
        let digits = segment.get(from - 2..from);
        let Some(byte) = digits.and_then(hex_byte) else { return false };
        // The digits after it may be escaped themselves.
        let digits = decode(segment.get(from..).unwrap_or_default(), b'+').take(2).filter(u8::is_ascii_hexdigit);
        let twice = byte == b'%' && digits.count() == 2;
        let next = decode(segment.get(from..).unwrap_or_default(), b'+').next();
        let overlong = next.is_some_and(|next| is_overlong(byte, next));
        if twice || overlong || byte < 0x20 || byte == 0x7f || byte == b'/' || byte == b'\\' {
            return false;
        }
    }
    true
}

/// Whether two bytes begin a character in more bytes than it takes (RFC 3629, 3 and 10), as which lax
/// decoders read `.`, `/` and `\` where we see none: `%c0%ae`, `%e0%80%af`, and `%c0.`, whose second
/// byte some do not look at closely. No text in UTF-8 or in an alphabet of one byte has need of them.
fn is_overlong(lead: u8, next: u8) -> bool {
    match lead {
        0xc0 | 0xc1 => matches!(next, 0x80..=0xbf | b'.'),
        0xe0 => matches!(next, 0x80..=0x9f),
        0xf0 => matches!(next, 0x80..=0x8f),
        0xf8 => matches!(next, 0x80..=0x87),
        0xfc => matches!(next, 0x80..=0x83),
        _ => false,
    }
}

/// Whether `path` lies under `prefix`, segment by segment: `/a` holds `/a` and `/a/b`, not `/ab`.
pub fn is_under(path: &[u8], prefix: &str) -> bool {
    let prefix = prefix.as_bytes();
    let stem = prefix.strip_suffix(b"/").unwrap_or(prefix);
    match path.strip_prefix(stem) {
        Some([]) => prefix.last() != Some(&b'/') || stem.is_empty(),
        Some([first, ..]) => *first == b'/',
        None => false,
    }
}

/// A path pattern: `*` stands for exactly one segment, `*TEXT` for one that ends so, a final `**` for
/// any rest. Segments are compared decoded, as a server does: a rule that names a write must not be
/// escaped from by escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Decoded.
    Literal(Vec<u8>),
    /// Anything before this, decoded (Google's `models/NAME:generateContent`).
    Ends(Vec<u8>),
    Any,
}

/// The pattern is not a path, or uses `*` after the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path pattern is a plain path in which a segment may be `*` or `*TEXT`, and the last one `**`")]
pub struct PatternError;

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        check_path(text.as_bytes()).map_err(|Ambiguous| PatternError)?;
        let (body, open) = text.strip_suffix("/**").map_or((text, false), |body| (body, true));
        let segments = body
            .split('/')
            .skip(1)
            .map(|segment| match segment {
                "*" => Ok(Segment::Any),
                _ => {
                    let (text, ends) = segment.strip_prefix('*').map_or((segment, false), |text| (text, true));
                    let decoded = decode(text.as_bytes(), b'+').collect();
                    match text.contains('*') {
                        true => Err(PatternError),
                        false if ends => Ok(Segment::Ends(decoded)),
                        false => Ok(Segment::Literal(decoded)),
                    }
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { segments, open })
    }

    /// Whether a path is one of those meant.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut rest = path.split(|b| *b == b'/').skip(1);
        let fits = self.segments.iter().all(|segment| match (segment, rest.next()) {
            (Segment::Any, Some(found)) => !found.is_empty(),
            (Segment::Literal(wanted), Some(found)) => decode(found, b'+').eq(wanted.iter().copied()),
            (Segment::Ends(wanted), Some(found)) => ends_once(found, wanted),
            (_, None) => false,
        });
        fits && (self.open || rest.next().is_none())
    }

    /// Whether some server takes a path for one of those meant: one that folds case, cuts
    /// `;parameters` off, or overlooks a final slash.
    pub fn resembles(&self, path: &[u8]) -> bool {
        let stem = path.strip_suffix(b"/").unwrap_or(path);
        let mut rest = stem.split(|b| *b == b'/').skip(1);
        let segments = match self.segments.as_slice() {
            [segments @ .., Segment::Literal(last)] if last.is_empty() => segments,
            segments => segments,
        };
        let fits = segments.iter().all(|segment| match (segment, rest.next()) {
            (Segment::Any, Some(_)) => true,
            (Segment::Literal(wanted), Some(found)) => could_mean(found, wanted),
            (Segment::Ends(wanted), Some(found)) => could_end(found, wanted),
            (_, None) => false,
        });
        fits && (self.open || rest.next().is_none())
    }
}

fn could_mean(segment: &[u8], wanted: &[u8]) -> bool {
    could(segment, |found| found.eq_ignore_ascii_case(wanted.trim_ascii()))
}

fn could_end(segment: &[u8], wanted: &[u8]) -> bool {
    let wanted = wanted.trim_ascii();
    could(segment, |found| {
        let end = found.len().checked_sub(wanted.len()).and_then(|at| found.get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(wanted))
    })
}

/// Whether a segment passes as it is decoded, or without what follows a `;`.
fn could(segment: &[u8], passes: impl Fn(&[u8]) -> bool) -> bool {
    let found: Vec<u8> = decode(segment, b'+').collect();
    let name = found.split(|b| *b == b';').next().unwrap_or_default();
    passes(found.trim_ascii()) || passes(name.trim_ascii())
}

/// Whether a segment is something and then this, which begins nowhere before: servers differ in
/// whether a name ends at the first separator or at the last.
fn ends_once(segment: &[u8], wanted: &[u8]) -> bool {
    let found: Vec<u8> = decode(segment, b'+').collect();
    let before = found.strip_suffix(wanted);
    before.is_some_and(|before| !before.is_empty() && !wanted.first().is_some_and(|first| before.contains(first)))
}

#[cfg(test)]
mod tests;
