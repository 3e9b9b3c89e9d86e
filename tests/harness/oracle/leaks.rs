//! No place holds a secret, in any form, compressed or not.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::Violation;
use crate::agent::{Decoded, Transcript};
use crate::secrets::{Secrets, unescaped};

/// A compressed body is searched up to this many bytes of its content.
const LONGEST_CONTENT: u64 = 64 << 20;

pub(super) fn in_bytes(secrets: &Secrets, place: &str, bytes: &[u8]) -> Vec<Violation> {
    let leak = |finding: crate::secrets::Finding| Violation::Leak {
        place: place.to_owned(),
        secret: finding.name,
        form: finding.form,
        offset: finding.offset,
    };
    let mut found = secrets.find(bytes);
    if found.is_empty() {
        found = unescaped(bytes).map(|text| secrets.find(&text)).unwrap_or_default();
    }
    found.into_iter().map(leak).collect()
}

/// What an agent received: as bytes, with framing removed, and with content coding removed.
pub(super) fn in_transcript(secrets: &Secrets, transcript: &Transcript) -> Vec<Violation> {
    let place = |what: &str| format!("{what} received on {}", transcript.label());
    let mut leaks = in_bytes(secrets, &place("bytes"), &transcript.raw());
    for decoded in transcript.decoded() {
        leaks.extend(in_bytes(secrets, &place("header lines"), &decoded.lines));
        leaks.extend(in_bytes(secrets, &place("a body"), &decoded.body));
        for content in contents(&decoded) {
            leaks.extend(in_bytes(secrets, &place("a compressed body"), &content));
        }
    }
    let mut seen = BTreeSet::new();
    leaks.retain(|leak| match leak {
        Violation::Leak { secret, form, .. } => seen.insert((secret.clone(), *form)),
        _ => true,
    });
    leaks
}

/// The body with its content coding removed, as far as it can be: a cut stream yields its beginning.
fn contents(decoded: &Decoded) -> Vec<Vec<u8>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    let body = &decoded.body[..];
    let coding = decoded.encoding.as_deref().unwrap_or_default().to_ascii_lowercase();
    let mut contents = Vec::new();
    if coding.contains("gzip") || body.starts_with(GZIP) {
        contents.push(inflate(MultiGzDecoder::new(body)));
    }
    if coding.contains("deflate") {
        contents.push(inflate(ZlibDecoder::new(body)));
        contents.push(inflate(DeflateDecoder::new(body)));
    }
    contents
}

fn inflate(decoder: impl Read) -> Vec<u8> {
    let mut content = Vec::new();
    // An error ends the content where it stands; what came before it is searched.
    decoder.take(LONGEST_CONTENT).read_to_end(&mut content).ok();
    content
}
