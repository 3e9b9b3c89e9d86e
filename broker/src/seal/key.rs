//! Keys: 32 bytes, written in hex or base64, told apart by a fingerprint.

use crate::random::{self, NoRandomness};
use attache_core::digest::{hex, hmac_sha256};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// No written key is longer, in bytes: 64 hex digits and what stands around them.
pub const LONGEST: usize = 256;
/// Of what the fingerprint is made, under the key: it says nothing about the key, and is no key of anything.
const LABEL: &[u8] = b"attache seal key id";

/// A text that is no key. Says nothing of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 bytes in hex or base64, as `attache state new-key` or `openssl rand -base64 32` makes them")]
pub struct NotAKey;

/// A key. Cleared from memory when dropped; has no form that could be printed but the one that keeps it.
pub struct Key {
    bytes: Zeroizing<[u8; 32]>,
    id: String,
}

impl Key {
    /// A new one.
    pub fn make() -> Result<Self, NoRandomness> {
        Ok(Self::new(Zeroizing::new(random::bytes::<32>()?)))
    }

    /// A key from its bytes.
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        let mut id = hex(&hmac_sha256(&bytes, LABEL));
        id.truncate(16);
        Self { bytes, id }
    }

    /// A key as somebody wrote it: hex or base64 (of either alphabet, padded or not), and white space around it.
    pub fn parse(text: &[u8]) -> Result<Self, NotAKey> {
        let text = text.trim_ascii();
        // One byte more than fits: what is longer is no key.
        let mut bytes = Zeroizing::new([0; 36]);
        let any = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let found = match text.len() {
            64 => unhex(text, bytes.as_mut_slice()).then_some(32),
            43 | 44 => [STANDARD, URL_SAFE]
                .iter()
                .find_map(|alphabet| GeneralPurpose::new(alphabet, any).decode_slice(text, bytes.as_mut_slice()).ok()),
            _ => None,
        };
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(bytes.get(..32).filter(|_| found == Some(32)).ok_or(NotAKey)?);
        Ok(Self::new(key))
    }

    /// A key from bytes that must be one.
    pub fn of_slice(bytes: &[u8]) -> Result<Self, NotAKey> {
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(Some(bytes).filter(|bytes| bytes.len() == 32).ok_or(NotAKey)?);
        Ok(Self::new(key))
    }

    /// Tells keys apart, in files, logs and commands: the first 16 hex digits of an HMAC under it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The 32 bytes, to encrypt with, and to be kept.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

fn unhex(text: &[u8], out: &mut [u8]) -> bool {
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (pair, byte) in text.chunks(2).zip(out) {
        let [high, low] = pair else { return false };
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
        *byte = high << 4 | low;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

    #[test]
    fn a_key_is_the_same_in_hex_and_in_base64_of_either_alphabet() {
        let bytes = [0xfb; 32];
        let key = Key::of_slice(&bytes).unwrap();
        let texts = [
            hex(&bytes),
            hex(&bytes).to_uppercase(),
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
            URL_SAFE.encode(bytes),
            format!("\n {}\r\n", STANDARD.encode(bytes)),
        ];
        for text in texts {
            let found = Key::parse(text.as_bytes()).unwrap();
            assert_eq!((found.bytes(), found.id()), (&bytes, key.id()), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let short = STANDARD.encode([7; 31]);
        let long = STANDARD.encode([7; 33]);
        let odd = "g".repeat(64);
        for text in ["", "s3cret", &short, &long, &odd, &"ab".repeat(31), &"ab".repeat(33), &"ä".repeat(32)] {
            let error = Key::parse(text.as_bytes()).err().unwrap().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        assert!(Key::of_slice(&[0; 31]).is_err());
    }

    #[test]
    fn an_id_tells_keys_apart_and_is_no_part_of_one() {
        let ids: std::collections::BTreeSet<_> = (0..=9).map(|byte| Key::of_slice(&[byte; 32]).unwrap().id).collect();
        assert_eq!(ids.len(), 10);
        assert!(ids.iter().all(|id| id.len() == 16));
    }
}
