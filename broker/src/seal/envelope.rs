//! One sealed file: `attache-sealed:v1:KEY:TEXT`, a line of ASCII.
//!
//! KEY is the id of the key that opens it. TEXT is base64url of a random nonce (24 bytes) and of what
//! XChaCha20-Poly1305 made of the content; a nonce so long may be random for as many files as there will be. What it is
//! bound to (the version, the key, the instance, the file's name) is authenticated with it: a file in another's place
//! does not open.

use super::key::Key;
use crate::random::{self, NoRandomness};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// What every sealed file begins with, of whatever version.
pub const MAGIC: &str = "attache-sealed:";
const VERSION: &str = "v1";
const NONCE: usize = 24;
const TAG: usize = 16;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Not sealed.
    Plain,
    /// Sealed, under the key with this id.
    Sealed(String),
    /// Sealed, in a way that this version does not know.
    Newer,
    /// It was sealed, and is damaged.
    Damaged,
}

/// It does not open: damaged, of another key, or of another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotOpen;

/// How long a file is when this many bytes are sealed.
pub fn sealed_len(plain: usize) -> usize {
    MAGIC.len() + VERSION.len() + 18 + (NONCE + plain + TAG).div_ceil(3) * 4 + 1
}

/// What a file is, by its first bytes. Content that is almost the mark of a sealed file is a damaged one: no secret is.
pub fn form(bytes: &[u8]) -> Form {
    let Some(rest) = bytes.strip_prefix(MAGIC.as_bytes()) else {
        let differ = MAGIC.as_bytes().iter().zip(bytes).filter(|(one, other)| one != other).count();
        let is_like = bytes.len() >= 8 && differ <= 2;
        let is_cut = !bytes.is_empty() && MAGIC.as_bytes().starts_with(bytes);
        return if is_like || is_cut { Form::Damaged } else { Form::Plain };
    };
    let mut parts = rest.splitn(3, |byte| *byte == b':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(version), Some(id), Some(_)) if version == VERSION.as_bytes() => match id_of(id) {
            Some(id) => Form::Sealed(id.to_owned()),
            None => Form::Damaged,
        },
        (Some(version), Some(_), _) if is_version(version) && version != VERSION.as_bytes() => Form::Newer,
        _ => Form::Damaged,
    }
}

fn id_of(bytes: &[u8]) -> Option<&str> {
    let is_id = bytes.len() == 16 && bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    std::str::from_utf8(bytes).ok().filter(|_| is_id)
}

fn is_version(bytes: &[u8]) -> bool {
    matches!(bytes, [b'v', digits @ ..] if (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit))
}

/// What the content is bound to.
fn bound(key: &Key, instance: &str, place: &str) -> Vec<u8> {
    // Of these only a place may have a NUL in it, and it has none: no name of a file does.
    [MAGIC, VERSION, "\0", key.id(), "\0", instance, "\0", place].concat().into_bytes()
}

/// Seals content for a place in an instance.
pub fn seal(key: &Key, instance: &str, place: &str, plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    let nonce = random::bytes::<NONCE>()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(NONCE + plain.len() + TAG));
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plain);
    let (_, body) = bytes.split_at_mut(NONCE);
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    #[expect(clippy::expect_used, reason = "content is bounded far below the 256 GiB that the cipher takes")]
    let tag = cipher
        .encrypt_inout_detached(&XNonce::from(nonce), &bound(key, instance, place), body.into())
        .expect("content that the cipher takes");
    bytes.extend_from_slice(&tag);
    let text = URL_SAFE_NO_PAD.encode(&*bytes);
    Ok([MAGIC, VERSION, ":", key.id(), ":", &text, "\n"].concat().into_bytes())
}

/// Opens what [`seal`] made under this key, for the same place in the same instance.
pub fn open(key: &Key, instance: &str, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
    let header = [MAGIC, VERSION, ":", key.id(), ":"].concat();
    let text = sealed.strip_prefix(header.as_bytes()).and_then(|rest| rest.strip_suffix(b"\n")).ok_or(DoesNotOpen)?;
    // Strict: of several encodings of the same bytes, one is taken.
    let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| DoesNotOpen)?);
    let length = bytes.len().checked_sub(NONCE + TAG).ok_or(DoesNotOpen)?;
    let (nonce, rest) = bytes.split_at_mut_checked(NONCE).ok_or(DoesNotOpen)?;
    let (body, tag) = rest.split_at_mut_checked(length).ok_or(DoesNotOpen)?;
    let (Ok(nonce), Ok(tag)) = (<[u8; NONCE]>::try_from(&*nonce), <[u8; TAG]>::try_from(&*tag)) else {
        return Err(DoesNotOpen);
    };
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    let opened =
        cipher.decrypt_inout_detached(&XNonce::from(nonce), &bound(key, instance, place), body.into(), &tag.into());
    opened.map_err(|_| DoesNotOpen)?;
    bytes.truncate(NONCE + length);
    bytes.drain(..NONCE);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::of_slice(&[byte; 32]).unwrap()
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        seal(&key(1), "i", "state/instance.key", plain).unwrap()
    }

    fn opened(sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        open(&key(1), "i", "state/instance.key", sealed)
    }

    #[test]
    fn what_is_sealed_opens_and_says_by_which_key() {
        for plain in [&b""[..], b"s", b"a secret\n", &[0xff; 70_000]] {
            let sealed = sealed(plain);
            assert_eq!(form(&sealed), Form::Sealed(key(1).id().to_owned()));
            assert!(sealed.len() <= sealed_len(plain.len()), "{} {}", sealed.len(), sealed_len(plain.len()));
            assert_eq!(opened(&sealed).unwrap().as_slice(), plain);
        }
        assert_ne!(sealed(b"same"), sealed(b"same"), "no nonce comes twice");
    }

    #[test]
    fn every_bit_that_flips_is_found() {
        let good = sealed(b"a secret");
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(opened(&bad).is_err(), "byte {at}, bit {bit}");
            assert_ne!(form(&bad), Form::Plain, "byte {at}, bit {bit}: nobody takes it for a secret");
        }
    }

    #[test]
    fn every_truncation_is_found_and_so_is_more() {
        let good = sealed(b"a secret");
        for length in 0..good.len() {
            assert!(opened(&good[..length]).is_err(), "{length}");
            assert!(length == 0 || form(&good[..length]) != Form::Plain, "{length}");
        }
        assert!(opened(&[&good[..], b"\n"].concat()).is_err());
        assert!(opened(&[&good[..good.len() - 1], b"A\n"].concat()).is_err());
    }

    #[test]
    fn another_key_instance_or_place_does_not_open_it() {
        let good = sealed(b"a secret");
        assert!(open(&key(2), "i", "state/instance.key", &good).is_err());
        assert!(open(&key(1), "j", "state/instance.key", &good).is_err());
        for place in ["state/audit.key", "secrets/instance.key", "state/instance.ke", ""] {
            assert!(open(&key(1), "i", place, &good).is_err(), "{place}");
        }
        let text = String::from_utf8(good).unwrap().replace(key(1).id(), key(2).id());
        assert!(open(&key(2), "i", "state/instance.key", text.as_bytes()).is_err(), "a header is no key");
    }

    #[test]
    fn plain_secrets_and_newer_versions_are_told_apart() {
        let secrets = ["", "ghp_0123456789", "sk-ant-api03-x", "-----BEGIN PRIVATE KEY-----", "attache", "\u{0}"];
        for plain in secrets.iter().filter(|plain| **plain != "attache") {
            assert_eq!(form(plain.as_bytes()), Form::Plain, "{plain}");
        }
        assert_eq!(form(b"attache-sealed:v2:0123456789abcdef:x\n"), Form::Newer);
        assert_eq!(form(b"attache-sealed:v1:0123456789abcdeX:x\n"), Form::Damaged);
        assert_eq!(form(b"attache-sealed:"), Form::Damaged);
    }
}
