//! The trace that a request is part of (W3C Trace Context): what of it goes on to the broker.
//!
//! Whoever sends a request writes its `traceparent`. One that reads exactly as the standard writes
//! it goes on, and nothing else: no other version, no `tracestate`, nothing that nobody samples.

use crate::digest::nibble;
use crate::request::Snapshot;
use std::fmt;

/// The header's name, in requests and callouts.
pub const TRACEPARENT: &str = "traceparent";

/// How long one of version 00 is, in bytes: `00-TRACE-PARENT-FLAGS`.
const LENGTH: usize = 55;

/// A sampled trace of version 00, and the span in it that asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; LENGTH]);

impl TraceParent {
    /// Reads the header's value: lower-case hex digits, no ID of zeros, and the flag that says sampled.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let bytes: [u8; LENGTH] = value.try_into().ok()?;
        let parent = Self(bytes);
        let mut parts = bytes.split(|byte| *byte == b'-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_id = |id: &[u8]| id.iter().all(|byte| nibble(*byte).is_some()) && id.iter().any(|byte| *byte != b'0');
        let sizes = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
        let sampled = flags.iter().all(|byte| nibble(*byte).is_some()) && nibble(*flags.last()?)? & 1 == 1;
        (sizes && version == b"00" && is_id(trace) && is_id(span) && sampled && parts.next().is_none())
            .then_some(parent)
    }

    /// That of a request; `None` also where it has several.
    pub fn of(request: &Snapshot) -> Option<Self> {
        let bytes = request.bytes();
        let mut told = request.lines().filter(|line| line.name.of(bytes) == TRACEPARENT.as_bytes());
        match (told.next(), told.next()) {
            (Some(line), None) => Self::parse(line.value.of(bytes)),
            _ => None,
        }
    }

    /// As a header says it.
    pub fn as_str(&self) -> &str {
        // It is ASCII: it was read so.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The trace, as 32 hex digits.
    pub fn trace(&self) -> &str {
        self.as_str().get(3..35).unwrap_or_default()
    }

    /// The span that asks, as 16 hex digits.
    pub fn span(&self) -> &str {
        self.as_str().get(36..52).unwrap_or_default()
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{compiled, get, test};
    use crate::policy::Unmatched;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn what_reads_as_the_standard_writes_it_goes_on() {
        let parent = read(SAMPLED).unwrap();
        assert_eq!((parent.as_str(), format!("{parent:?}").as_str()), (SAMPLED, SAMPLED));
        assert_eq!((parent.trace(), parent.span()), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"));
        assert!(read(&SAMPLED.replace("-01", "-03")).is_some(), "sampled, and random by level 2");
    }

    #[test]
    fn nothing_else_does() {
        let others = [
            String::new(),
            SAMPLED.replace("-01", "-00"),
            SAMPLED.replace("-01", "-02"),
            SAMPLED.replace("00-0a", "01-0a"),
            SAMPLED.replace("00-0a", "ff-0a"),
            SAMPLED.to_uppercase(),
            SAMPLED.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            SAMPLED.replace("b7ad6b7169203331", &"0".repeat(16)),
            SAMPLED.replace('7', "g"),
            SAMPLED.replace("9c-b7", "9-cb7"),
            SAMPLED.replace('-', " "),
            SAMPLED.replace("-01", "-0\n"),
            SAMPLED.replace("-01", "-0/"),
            SAMPLED.replace("-01", "-g1"),
            format!("{SAMPLED}-"),
            format!(" {SAMPLED}"),
            format!("{SAMPLED}\0"),
            SAMPLED[..54].to_owned(),
        ];
        for other in others {
            assert_eq!(read(&other), None, "{other:?}");
        }
        assert_eq!(TraceParent::parse(&[0xff; LENGTH]), None);
    }

    #[test]
    fn a_request_with_two_has_none() {
        let told = |lines: &[&str]| {
            let request = lines.iter().fold(get("a.test", "/"), |request, line| request.with(TRACEPARENT, line));
            TraceParent::of(&request.read(&compiled(Unmatched::Deny)))
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[SAMPLED]), read(SAMPLED));
        assert_eq!(told(&[SAMPLED, SAMPLED]), None);
    }
}
