//! Masking: what an upstream sends back of a credential never reaches the agent.
//!
//! A secret is looked for in six *forms*: as it is, as base64 of a text that contains it at each of
//! three alignments (both alphabets, mixed), and as hex in either case. In each form every
//! single character may be written as itself or as an *escape*: `%41`, `\u0041`, `\/`, `\\`, `\"`
//! or `\'`, in any mixture. Base64 may be broken into lines. See `docs/masking.md`.
//!
//! What is found is overwritten with `*` at equal length. A stream ([`Stream`]) comes in chunks,
//! cut anywhere: of a chunk nothing is held back but an end that begins one of these spellings.
//!
//! Two passes find every occurrence without looking at most of the text (`search.rs`): one reads
//! three bytes in each stride, since a spelling without escapes is longer than that; the other looks
//! at each `%` and `\`.

mod escapes;
mod forms;
mod head;
mod kept;
mod search;
mod seeds;
mod stream;
#[cfg(test)]
mod tests;
pub mod websocket;

pub use head::{Head, mask_headers, read_head};
pub use kept::Maskers;
pub use stream::{Found, Stream};

use crate::secret::Secret;
use forms::Form;
use seeds::Seeds;
use std::ops::Range;

/// A shorter secret cannot be told from what merely looks like it.
pub const SHORTEST: usize = 8;

/// What stands where an echo stood.
pub const MASK: u8 = b'*';

/// A secret with fewer than [`SHORTEST`] bytes, or with one that is not printable ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is too short to be masked ({SHORTEST} bytes at least), or not printable ASCII")]
pub struct NotMaskable;

/// Finds secrets in whatever an upstream sends. Made once for each version of a secret.
pub struct Masker {
    secrets: Vec<Secret>,
    forms: Vec<Form>,
    seeds: Seeds,
    /// The most bytes that one spelling takes.
    longest: usize,
}

impl Masker {
    /// Looks for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Result<Self, NotMaskable> {
        let (mut kept, mut forms) = (Vec::new(), Vec::new());
        for secret in secrets {
            check(secret)?;
            // Exposed to be recognised in what the upstream sends.
            forms.extend(Form::all_of(secret.expose().as_bytes()));
            kept.push(secret.clone());
        }
        let longest = forms.iter().map(Form::longest).max().unwrap_or(0);
        Ok(Self { secrets: kept, seeds: Seeds::of(&forms), forms, longest })
    }

    /// Whether these are the secrets it looks for.
    pub(crate) fn looks_for(&self, secrets: &[Secret]) -> bool {
        // Exposed to be compared.
        self.secrets.iter().map(Secret::expose).eq(secrets.iter().map(Secret::expose))
    }

    /// Masks a whole text; how many echoes there were.
    pub fn mask(&self, text: &mut [u8]) -> usize {
        let found = self.find(text);
        found.iter().for_each(|range| cover(text, range.clone()));
        found.len()
    }

    /// The most bytes that a stream holds back.
    pub fn most_held(&self) -> usize {
        self.longest.saturating_sub(1)
    }
}

/// Whether a secret can be masked.
pub fn check(secret: &Secret) -> Result<(), NotMaskable> {
    // Exposed to be measured.
    let bytes = secret.expose().as_bytes();
    let printable = bytes.iter().all(|b| (0x20..0x7f).contains(b));
    if printable && bytes.len() >= SHORTEST { Ok(()) } else { Err(NotMaskable) }
}

/// Overwrites a stretch of text. Line breaks stay: some framings count on them.
pub fn cover(text: &mut [u8], range: Range<usize>) {
    for byte in text.get_mut(range).into_iter().flatten() {
        if !matches!(byte, b'\r' | b'\n') {
            *byte = MASK;
        }
    }
}
