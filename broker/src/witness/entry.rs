//! Entries of Envoy's access log as they arrive: OTLP, protobuf.
//!
//! The messages are OTLP's own (`opentelemetry.proto.collector.logs.v1`), as far as they matter here,
//! with bytes for texts: protobuf refuses a batch for one text that is no UTF-8, and agents write what
//! they want into a path.

use super::{HANDSHAKE_MS, HANDSHAKE_ROUTE, MOST_LINES};
use attache_core::verdict::verdict_prefix;
use prost::Message;

/// The members of an entry that are read; `envoy/log.rs` says what each holds.
pub const FIELDS: [&str; 11] = [
    "request_id",
    "method",
    "authority",
    "path",
    "response_code",
    "response_code_details",
    "duration_ms",
    "route",
    "upstream_cluster",
    "upstream_host",
    "attache",
];
/// What Envoy writes for what is not there.
const NOTHING: &[u8] = b"-";
/// Of a longer text, its beginning. A verdict is longer than any text that an agent writes.
const LONGEST: usize = 8192;

/// One request, as Envoy saw it. What it does not know is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// When it began: Unix milliseconds.
    pub at_ms: u64,
    /// `x-request-id`.
    pub request_id: String,
    /// The method; empty where no head was understood.
    pub method: String,
    /// The authority.
    pub authority: String,
    /// The path without its query.
    pub path: String,
    /// The status that the agent got; 0 if it left before.
    pub response_code: u16,
    /// Envoy's word for why.
    pub details: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The route.
    pub route: String,
    /// The cluster that was chosen.
    pub cluster: String,
    /// The address that was dialled.
    pub upstream: String,
    /// The SPIFFE ID of the Envoy that sent it; empty where it shows none.
    pub from: String,
    /// The filter's verdict: JSON.
    pub verdict: String,
    /// Of a connection that ends TLS: whether its handshake was over.
    pub secured: bool,
}

impl Entry {
    /// Whether it reached an upstream that its own verdict does not name: refused, undecided, or decided
    /// for another cluster. What is let pass as it came may go anywhere.
    pub fn went_elsewhere(&self) -> bool {
        let names_it = self.verdict.starts_with(&verdict_prefix(&self.cluster));
        let after_no_cluster = self.verdict.strip_prefix(&verdict_prefix(""));
        let passed = after_no_cluster.is_some_and(|rest| rest.starts_with(",\"decision\":\"pass\""));
        !self.upstream.is_empty() && !names_it && !passed
    }
}

/// The entries of a batch; `None` if it is no OTLP, or of more lines than Envoy sends.
pub fn decode(body: &[u8]) -> Option<Vec<Entry>> {
    let batch = Batch::decode(body).ok()?;
    (batch.lines() <= MOST_LINES).then(|| batch.entries().collect())
}

impl Batch {
    pub(super) fn lines(&self) -> usize {
        let scopes = self.resources.iter().flat_map(|resource| &resource.scopes);
        scopes.map(|scope| scope.entries.len()).sum()
    }

    /// Its entries, but those of handshakes that did not fail.
    pub(super) fn entries(self) -> impl Iterator<Item = Entry> {
        let scopes = self.resources.into_iter().flat_map(|resource| resource.scopes);
        let entries = scopes.flat_map(|scope| scope.entries).map(Entry::from);
        entries.filter(|entry| entry.route != HANDSHAKE_ROUTE || !entry.secured)
    }
}

impl From<Line> for Entry {
    fn from(line: Line) -> Self {
        let mut entry = Self { at_ms: line.at_ns / 1_000_000, ..Self::default() };
        for attribute in line.attributes {
            let written = attribute.value.unwrap_or_default().text;
            let value = if written == NOTHING { Vec::new() } else { written };
            let number = || std::str::from_utf8(&value).ok().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
            let text = || latin(&value);
            match attribute.key.as_slice() {
                b"request_id" => entry.request_id = text(),
                b"method" => entry.method = text(),
                b"authority" => entry.authority = text(),
                // Envoy leaves the query out; whatever it does, no query gets into the log.
                b"path" => entry.path = value.split(|b| *b == b'?').next().map(latin).unwrap_or_default(),
                b"response_code" => entry.response_code = u16::try_from(number()).unwrap_or(0),
                b"response_code_details" => entry.details = text(),
                b"duration_ms" => entry.duration_ms = number(),
                b"route" => entry.route = text(),
                b"upstream_cluster" => entry.cluster = text(),
                b"upstream_host" => entry.upstream = text(),
                b"attache" => entry.verdict = text(),
                key if key == HANDSHAKE_MS.as_bytes() => entry.secured = !value.is_empty(),
                _ => {}
            }
        }
        entry
    }
}

/// A byte, a character: as the filter's records have it.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().take(LONGEST).map(|byte| char::from(*byte)).collect()
}

/// `ExportLogsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Batch {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

/// `ResourceLogs`.
#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

/// `ScopeLogs`.
#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Line>,
}

/// `LogRecord`.
#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(fixed64, tag = "1")]
    at_ns: u64,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<Attribute>,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    value: Option<Text>,
}

/// `AnyValue`, of which Envoy writes texts alone.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(bytes = "vec", tag = "1")]
    text: Vec<u8>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A batch as Envoy sends it.
    pub fn batch(entries: &[&[(&str, &[u8])]]) -> Vec<u8> {
        let attribute = |(key, text): &(&str, &[u8])| Attribute {
            key: key.as_bytes().to_vec(),
            value: Some(Text { text: text.to_vec() }),
        };
        let line = |entry: &&[(&str, &[u8])]| Line {
            at_ns: 1_700_000_000_123_456_789,
            attributes: entry.iter().map(attribute).collect(),
        };
        let scopes = vec![Scope { entries: entries.iter().map(line).collect() }];
        Batch { resources: vec![Resource { scopes }] }.encode_to_vec()
    }

    #[test]
    fn an_entry_is_read_whatever_an_agent_wrote() {
        let sent = batch(&[&[
            ("request_id", b"-"),
            ("path", b"/a\xff\xfe\"b?key=secret"),
            ("response_code", b"426"),
            ("response_code_details", b"low_version"),
            ("duration_ms", b"7"),
            ("of_tomorrow", b"x"),
        ]]);
        let expected = Entry {
            at_ms: 1_700_000_000_123,
            path: "/a\u{ff}\u{fe}\"b".into(),
            response_code: 426,
            details: "low_version".into(),
            duration_ms: 7,
            ..Entry::default()
        };
        assert_eq!(decode(&sent).unwrap(), [expected]);
    }

    #[test]
    fn what_is_no_batch_is_none() {
        assert_eq!(decode(b"{\"resourceLogs\": []}"), None);
        // As many empty lines as find room, of two bytes each.
        let lines = |count: usize| {
            let lines = [0x12, 0].repeat(count);
            let long = |text: &[u8]| {
                let mut length = Vec::new();
                prost::encoding::encode_varint(text.len() as u64, &mut length);
                [length.as_slice(), text].concat()
            };
            let scope = [&[0x12][..], &long(&lines)].concat();
            [&[0x0a][..], &long(&scope)].concat()
        };
        assert_eq!(decode(&lines(MOST_LINES)).map(|all| all.len()), Some(MOST_LINES));
        assert_eq!(decode(&lines(MOST_LINES + 1)), None);
        assert_eq!(decode(b"").unwrap().len(), 0);
    }
}
