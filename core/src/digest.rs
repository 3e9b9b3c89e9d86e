//! SHA-256 digests of evidence, and keyed fingerprints of secrets.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The SHA-256 of a placeholder or a session token: what is stored and sent in its stead.
/// Lower-case hex on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{64}$"))]
pub struct Digest([u8; 32]);

/// The text is not 64 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("a digest is 64 lower-case hex digits")]
pub struct DigestError;

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lower-case hex, 64 digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        let mut out = [0; 32];
        let mut digits = text.bytes();
        for byte in &mut out {
            let (Some(high), Some(low)) = (digits.next().and_then(nibble), digits.next().and_then(nibble)) else {
                return Err(DigestError);
            };
            *byte = high << 4 | low;
        }
        if digits.next().is_some() { Err(DigestError) } else { Ok(Self(out)) }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_hex()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// HMAC-SHA-256 (RFC 2104) of `message` under `key`.
pub fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // RFC 2104, section 2: a key shorter than the block is padded with zeros.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(padded, byte)| *padded = *byte);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The fingerprint of a secret: the first 16 hex digits of its HMAC under the instance key.
/// It tells two secrets apart in a log and says nothing else about either.
pub fn fingerprint(instance_key: &[u8; 32], secret: &crate::Secret) -> String {
    // Exposed to the MAC alone; the key keeps a short secret from being guessed offline.
    let mut text = hex(&hmac_sha256(instance_key, secret.expose().as_bytes()));
    text.truncate(16);
    text
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n & 15)).map_or('0', |d| char::from(*d));
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// What a lower-case hex digit is worth.
pub(crate) fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn digests_survive_the_wire() {
        let digest = Digest::of(b"abc");
        // FIPS 180-2, appendix B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_hex(), text);
        assert_eq!(Digest::try_from(text.to_owned()).ok(), Some(digest));
        for bad in ["", "ba", &text.to_uppercase(), &format!("{text}00")] {
            assert!(Digest::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_is_printed_as_it_is_written() {
        let digest = Digest::of(b"abc");
        assert_eq!(format!("{digest:?}"), digest.to_hex());
    }

    #[test]
    fn fingerprints_need_the_key() {
        let secret = crate::Secret::new("ghp_real");
        let one = fingerprint(&[1; 32], &secret);
        assert_eq!(one.len(), 16);
        assert_ne!(one, fingerprint(&[2; 32], &secret));
    }
}
