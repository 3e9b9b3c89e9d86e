//! What comes back: no secret, however it is cut or written.

use crate::parts;
use attache_core::Secret;
use attache_core::masking::websocket::Frames;
use attache_core::masking::{Masker, Stream, cover};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A secret, where to cut, and a text: the first two on a line each. In the text `\0` stands for the secret and `\x01`
/// for its base64. Nothing of it is left, and the cuts change nothing.
pub fn masker(data: &[u8]) {
    let [secret, cuts, text] = parts(data);
    let Ok(secret) = std::str::from_utf8(secret) else { return };
    let Ok(masker) = Masker::new([&Secret::new(secret)]) else { return };
    let encoded = STANDARD.encode(secret);
    let mut written = Vec::new();
    for byte in text.iter().take(4096) {
        match byte {
            0 => written.extend_from_slice(secret.as_bytes()),
            1 => written.extend_from_slice(encoded.as_bytes()),
            other => written.push(*other),
        }
    }
    let mut whole = written.clone();
    masker.mask(&mut whole);
    assert_eq!(whole.len(), written.len(), "masked at another length");
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    for spelled in [
        secret.as_bytes(),
        encoded.trim_end_matches('=').as_bytes(),
        URL_SAFE.encode(secret).trim_end_matches('=').as_bytes(),
        hex.as_bytes(),
    ] {
        // The last character of a base64 text may hold bits of what follows.
        let telling = spelled.get(..spelled.len().saturating_sub(1)).unwrap_or_default();
        assert!(
            !whole.windows(telling.len().max(1)).any(|window| window == telling) || telling.contains(&b'*'),
            "a secret is left"
        );
    }
    let (mut streamed, mut stream, mut at) = (written.clone(), Stream::default(), 0);
    let mut cuts = cuts.iter().cycle().map(|byte| usize::from(*byte) + 1);
    while at < written.len() {
        let end = (at + cuts.next().unwrap_or(usize::MAX / 2)).min(written.len());
        let base = at - stream.held();
        let found = stream.feed(&masker, &written[at..end], end == written.len());
        found.echoes.into_iter().for_each(|echo| cover(&mut streamed[base..], echo));
        assert!(found.held <= masker.most_held(), "more is held than is told");
        at = end;
    }
    assert_eq!(streamed, whole, "where it is cut changes what is masked");
}

/// Frames from an upstream, cut by the first line. None is longer or shorter afterwards, and none stops the reader.
pub fn websocket(data: &[u8]) {
    let [cuts, frames] = parts(data);
    let Ok(masker) = Masker::new([&Secret::new("s3cr3t-0123456789")]) else { return };
    let (mut reader, mut at) = (Frames::default(), 0);
    let mut cuts = cuts.iter().cycle().map(|byte| usize::from(*byte) + 1);
    while at < frames.len() {
        let end = (at + cuts.next().unwrap_or(usize::MAX / 2)).min(frames.len());
        let held = reader.held();
        let Ok(found) = reader.feed(&masker, &frames[at..end], end == frames.len()) else { return };
        let most = held + (end - at);
        assert!(found.held <= most && found.echoes.iter().all(|echo| echo.end <= most), "beyond what has come");
        at = end;
    }
}
