//! Every spelling by table; streams cut everywhere; what is left alone.

mod heads;
mod lines;
mod spellings;
mod streams;
mod websockets;

use super::{Masker, Stream, cover};
use crate::secret::Secret;

/// Of everything that means something somewhere, and as long as a short token.
pub(super) const SECRET: &str = "gh/p+0 \"a\\%41=~Zz'";

pub(super) fn masker(secret: &str) -> Masker {
    Masker::new([&Secret::new(secret)]).unwrap()
}

/// What is left of a text that is there whole.
pub(super) fn masked_by(masker: &Masker, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    masker.mask(&mut bytes);
    assert_eq!(bytes.len(), text.len());
    String::from_utf8(bytes).unwrap()
}

/// What an agent gets of a text that comes in these chunks; how many echoes were counted.
pub(super) fn through<'a>(masker: &Masker, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, usize) {
    let (mut out, mut echoes, mut held) = (Vec::new(), 0, 0);
    let mut stream = Stream::default();
    let mut chunks = chunks.into_iter().peekable();
    while let Some(chunk) = chunks.next() {
        out.extend_from_slice(chunk);
        let base = out.len() - chunk.len() - held;
        let found = stream.feed(masker, chunk, chunks.peek().is_none());
        found.echoes.iter().for_each(|echo| cover(&mut out[base..], echo.clone()));
        assert!(found.held <= masker.most_held());
        (held, echoes) = (found.held, echoes + found.new);
    }
    assert_eq!(held, 0, "nothing stays behind");
    (out, echoes)
}
