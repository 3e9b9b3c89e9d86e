//! What comes back: no secret, however it is cut or written.

use crate::parts;
use attache_core::Secret;
use attache_core::masking::websocket::Frames;
use attache_core::masking::{Masker, Stream, cover};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::ops::Range;

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
    // The last character of a base64 text may hold bits of what follows.
    let telling = |encoded: &str| encoded[..secret.len() * 8 / 6].to_owned();
    let spellings = [secret.to_owned(), telling(&encoded), telling(&URL_SAFE.encode(secret)), hex];
    let is_left = |masked: &[u8]| {
        let stands = |text: &String| masked.windows(text.len()).any(|window| window == text.as_bytes());
        spellings.iter().any(|text| !text.contains('*') && stands(text))
    };
    assert!(!is_left(&whole), "a secret is left");
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
    assert!(!is_left(&streamed), "a secret is left where it was cut");
    assert!(differ_in_leads(&written, &whole, &streamed), "where it is cut changes what is masked");
}

/// Whether two maskings of a text differ in nothing but what stands before an echo in base64, and holds bits of its
/// first group: three characters at most, and line breaks among them. Of a stream they have left before that is known.
fn differ_in_leads(written: &[u8], whole: &[u8], streamed: &[u8]) -> bool {
    const BREAKS: [&[u8]; 4] = [b"%0D%0A", b"\\r\\n", b"%0A", b"\\n"];
    let mut at = 0;
    while let Some(from) = (at..whole.len()).find(|at| whole[*at] != streamed[*at]) {
        at = (from..whole.len()).find(|at| whole[*at] == streamed[*at]).unwrap_or(whole.len());
        if whole[from..at].iter().any(|byte| *byte != b'*') {
            return false;
        }
        let (mut lead, mut letters) = (&written[from..at], 0);
        while let Some((first, rest)) = lead.split_first() {
            let begins = |text: &&&[u8]| lead.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text));
            if let Some(line_break) = BREAKS.iter().find(begins) {
                lead = &lead[line_break.len()..];
                continue;
            }
            // Its end may be a letter to one of the two, and hidden by both.
            let is_cut = |text: &&[u8]| text.get(..lead.len()).is_some_and(|head| head.eq_ignore_ascii_case(lead));
            if BREAKS.iter().any(is_cut) {
                break;
            }
            letters += 1;
            if letters > 3 || !(first.is_ascii_alphanumeric() || b"+/-_".contains(first)) {
                return false;
            }
            lead = rest;
        }
    }
    true
}

/// Frames from an upstream, cut by the first line. What announces a frame stays as it is, and so each is as long as it
/// was; no message holds the secret, in one frame or in several, in text or in what stands between (ping, pong, close).
pub fn websocket(data: &[u8]) {
    const SECRET: &str = "s3cr3t-0123456789";
    let [cuts, frames] = parts(data);
    let Ok(masker) = Masker::new([&Secret::new(SECRET)]) else { return };
    let (mut masked, mut reader, mut at) = (frames.to_vec(), Frames::default(), 0);
    let mut cuts = cuts.iter().cycle().map(|byte| usize::from(*byte) + 1);
    while at < frames.len() {
        let end = (at + cuts.next().unwrap_or(usize::MAX / 2)).min(frames.len());
        let held = reader.held();
        let Ok(found) = reader.feed(&masker, &frames[at..end], end == frames.len()) else { return };
        let most = held + (end - at);
        assert!(found.held <= most && found.echoes.iter().all(|echo| echo.end <= most), "beyond what has come");
        found.echoes.into_iter().for_each(|echo| cover(&mut masked[at - held..], echo));
        at = end;
    }
    let (mut message, mut heads) = (Vec::new(), 0);
    let holds = |text: &[u8]| text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    for (first, payload) in payloads(frames) {
        assert_eq!(frames[heads..payload.start], masked[heads..payload.start], "the head of a frame is masked");
        heads = payload.end;
        let text = &masked[payload];
        if first & 0x08 != 0 {
            assert!(!holds(text), "a secret is left between the frames of a message");
            continue;
        }
        message.extend_from_slice(text);
        assert!(!holds(&message), "a secret is left in a message");
        if first & 0x80 != 0 {
            message.clear();
        }
    }
}

/// The first byte of each frame, and where its payload stands, as far as it has come (RFC 6455, 5.2).
fn payloads(frames: &[u8]) -> Vec<(u8, Range<usize>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let [first, second, rest @ ..] = &frames[at..] {
        let size = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = rest.get(..size) else { break };
        let said = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let length = if size == 0 { u64::from(second & 0x7f) } else { said };
        let start = at + 2 + size;
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(frames.len());
        found.push((*first, start..end));
        at = end;
    }
    found
}
