//! The hash chain over audit lines.
//!
//! A sealed line is the record's JSON object with two more members at its end: `prev`, the hash
//! of the line before (64 zeros for the first), and `hash`, the SHA-256 of every byte of the line
//! up to the comma before `"hash"`. Bytes are hashed as written, so no re-serialisation can hide
//! or invent a difference.

use crate::digest::Digest;

/// The hash before the first line.
pub fn genesis() -> String {
    "0".repeat(64)
}

const PREV: &str = ",\"prev\":\"";
const HASH: &str = ",\"hash\":\"";
/// `,"hash":"`, 64 digits, `"}`.
const TAIL_LEN: usize = HASH.len() + 64 + 2;

/// The record is not a JSON object with at least one member, on one line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an audit record is one JSON object on one line, with at least one member")]
pub struct NotARecord;

/// Seals one record: returns the line (without its line break) and its hash.
pub fn seal(record: &str, prev: &str) -> Result<(String, String), NotARecord> {
    let mut line = String::with_capacity(record.len() + PREV.len() + prev.len() + TAIL_LEN);
    let hash = seal_onto(&mut line, record, prev)?;
    Ok((line, hash))
}

/// The same, with the line put at the end of `lines`. Of what is not sealed nothing is put there.
pub fn seal_onto(lines: &mut String, record: &str, prev: &str) -> Result<String, NotARecord> {
    let open = record.strip_suffix('}').filter(|r| r.len() > 1 && r.starts_with('{')).ok_or(NotARecord)?;
    if memchr::memchr(b'\n', record.as_bytes()).is_some() {
        return Err(NotARecord);
    }
    let start = lines.len();
    lines.extend([open, PREV, prev, "\""]);
    let hash = Digest::of(lines.as_bytes().get(start..).unwrap_or_default()).to_hex();
    lines.extend([HASH, hash.as_str(), "\"}"]);
    Ok(hash)
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The line does not end in a hash: cut off, or not an audit line.
    #[error("the line is torn or is not an audit record")]
    Torn,
    /// The line's own hash does not fit its bytes.
    #[error("the line was changed")]
    Changed,
    /// The line does not follow the one before.
    #[error("a line before this one was dropped, inserted or swapped")]
    Unlinked,
}

/// Follows a chain line by line.
pub struct Verifier {
    prev: String,
}

impl Verifier {
    /// Begins after the line whose hash is `prev` ([`genesis`] for a first file).
    pub fn after(prev: String) -> Self {
        Self { prev }
    }

    /// The hash of the last good line: what the next one must name.
    pub fn head(&self) -> &str {
        &self.prev
    }

    /// Checks one line, without its line break.
    pub fn check(&mut self, line: &str) -> Result<(), Broken> {
        let cut = line.len().checked_sub(TAIL_LEN).ok_or(Broken::Torn)?;
        let (hashed, tail) = line.split_at_checked(cut).ok_or(Broken::Torn)?;
        let hash = tail.strip_prefix(HASH).and_then(|t| t.strip_suffix("\"}")).ok_or(Broken::Torn)?;
        if Digest::of(hashed.as_bytes()).to_hex() != hash {
            return Err(Broken::Changed);
        }
        let prev = hashed.strip_suffix('"').and_then(|h| h.rsplit_once(PREV)).ok_or(Broken::Torn)?.1;
        if prev != self.prev {
            return Err(Broken::Unlinked);
        }
        self.prev = hash.to_owned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn chain(n: usize) -> Vec<String> {
        let mut prev = genesis();
        (0..n)
            .map(|i| {
                let (line, hash) = seal(&format!("{{\"seq\":{i}}}"), &prev).unwrap();
                prev = hash;
                line
            })
            .collect()
    }

    fn verify(lines: &[String]) -> Result<(), (usize, Broken)> {
        let mut verifier = Verifier::after(genesis());
        lines.iter().enumerate().try_for_each(|(i, line)| verifier.check(line).map_err(|why| (i, why)))
    }

    #[test]
    fn a_chain_verifies_and_each_line_is_json() {
        let lines = chain(5);
        assert_eq!(verify(&lines), Ok(()));
        for line in &lines {
            assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["hash"].is_string());
        }
    }

    #[test]
    fn any_changed_byte_is_found() {
        let lines = chain(3);
        for at in 0..lines[1].len() {
            let mut bytes = lines[1].clone().into_bytes();
            bytes[at] ^= 1;
            let mut forged = lines.clone();
            forged[1] = String::from_utf8(bytes).unwrap();
            assert!(verify(&forged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn dropped_swapped_and_torn_lines_are_found() {
        let lines = chain(4);
        let mut dropped = lines.clone();
        dropped.remove(1);
        assert_eq!(verify(&dropped), Err((1, Broken::Unlinked)));
        let mut swapped = lines.clone();
        swapped.swap(1, 2);
        assert_eq!(verify(&swapped), Err((1, Broken::Unlinked)));
        let mut torn = lines.clone();
        torn[3].truncate(20);
        assert_eq!(verify(&torn), Err((3, Broken::Torn)));
    }

    #[test]
    fn the_first_line_follows_sixty_four_zeros() {
        let first = chain(1).remove(0);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&first).unwrap()["prev"], "0".repeat(64));
    }

    #[test]
    fn a_verifier_goes_on_where_another_has_ended() {
        let lines = chain(4);
        let hash =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["hash"].as_str().map(str::to_owned);
        let mut first = Verifier::after(genesis());
        assert_eq!(first.head(), genesis());
        lines[..2].iter().for_each(|line| assert_eq!(first.check(line), Ok(())));
        assert_eq!(Some(first.head()), hash(&lines[1]).as_deref());
        let mut second = Verifier::after(first.head().to_owned());
        assert_eq!(second.check(&lines[2]), Ok(()));
        assert_eq!(second.check(&lines[0]), Err(Broken::Unlinked));
        assert_eq!(Some(second.head()), hash(&lines[2]).as_deref(), "a line that is not one leads nowhere");
        assert_eq!(second.check(&lines[3]), Ok(()));
    }

    #[test]
    fn only_objects_are_sealed() {
        for bad in ["", "{}", "[1]", "{\"a\":1}\n", "{\"a\":\n1}"] {
            assert_eq!(seal(bad, &genesis()).err(), Some(NotARecord), "{bad:?}");
        }
    }
}
