//! The key that signs the log: Ed25519, in the state directory, made on first use.
//!
//! `audit.key` is the private key (PKCS#8), `audit.pub` the public one (SPKI), both PEM.

use crate::private_file::PrivateError;
use crate::random::{self, NoRandomness};
use crate::seal::{Safe, SealError};
use attache_core::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::path::PathBuf;
use zeroize::Zeroizing;

const PRIVATE: &str = "audit.key";
/// The public key's file, in the state directory.
pub const PUBLIC: &str = "audit.pub";
/// What is made after the key: where one of these is, the key has been, too.
const LATER: [&str; 2] = [PUBLIC, "attache.db"];
/// Longest key file, in bytes; ours have about 200.
const LONGEST: usize = 4096;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not ours alone, or cannot be read or written.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// It is sealed, and is not opened.
    #[error(transparent)]
    Seal(SealError),
    /// Not the key that we wrote.
    #[error(
        "{0} is damaged: restore it from a backup; to begin anew, move the whole directory aside (and keep its audit.pub: \
         it checks what was signed before)"
    )]
    Damaged(PathBuf),
    /// It was there, and is not.
    #[error(
        "{path} is not there, and {beside} is: restore it from a backup of the same instance; to begin anew, move the \
         whole directory aside (and keep its audit.pub: it checks what was signed before)"
    )]
    Missing {
        /// The key.
        path: PathBuf,
        /// What shows that it was there.
        beside: &'static str,
    },
    /// No new key.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl From<SealError> for KeyError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Private(error) => Self::Private(error),
            error => Self::Seal(error),
        }
    }
}

/// A text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 public key in PEM")]
pub struct NotAKey;

/// A signature that does not fit, or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit")]
pub struct BadSignature;

/// The private key. Cleared from memory when dropped; has no form that could be printed.
pub struct AuditKey(SigningKey);

impl AuditKey {
    /// The key of a state directory; a new one, if there has never been one.
    pub fn open_or_create(safe: &Safe) -> Result<Self, KeyError> {
        let dir = safe.dir();
        let is_there = |name: &str| dir.path().join(name).symlink_metadata().is_ok();
        if let Some(key) = Self::open(safe)? {
            // Killed before the public half was written. There is never a signature that nothing can check.
            if !is_there(PUBLIC) {
                dir.replace(PUBLIC, key.public().pem().as_bytes())?;
            }
            return Ok(key);
        }
        if let Some(beside) = LATER.into_iter().find(|name| is_there(name)) {
            return Err(KeyError::Missing { path: dir.path().join(PRIVATE), beside });
        }
        let key = Self::from_seed(random::bytes()?);
        let damaged = || KeyError::Damaged(dir.path().join(PRIVATE));
        let private = key.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| damaged())?;
        safe.replace(PRIVATE, private.as_bytes())?;
        dir.replace(PUBLIC, key.public().pem().as_bytes())?;
        Ok(key)
    }

    /// The key of a state directory, if it has one.
    pub fn open(safe: &Safe) -> Result<Option<Self>, KeyError> {
        let Some(pem) = safe.read(PRIVATE, LONGEST)? else { return Ok(None) };
        // The file holds the public half, too, and reading it checks that they fit.
        let key = std::str::from_utf8(&pem).ok().and_then(|pem| SigningKey::from_pkcs8_pem(pem).ok());
        key.map(|key| Some(Self(key))).ok_or_else(|| KeyError::Damaged(safe.dir().path().join(PRIVATE)))
    }

    /// A key from its 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&Zeroizing::new(seed)))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs; answers in base64url.
    pub fn sign(&self, message: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.0.sign(message).to_bytes())
    }
}

/// What checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads PEM.
    pub fn parse(pem: &str) -> Result<Self, NotAKey> {
        VerifyingKey::from_public_key_pem(pem).map(Self).map_err(|_| NotAKey)
    }

    /// Writes PEM.
    pub fn pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Tells keys apart: the first 16 hex digits of the SHA-256 of its 32 bytes.
    pub fn id(&self) -> String {
        let mut id = Digest::of(self.0.as_bytes()).to_hex();
        id.truncate(16);
        id
    }

    /// Checks a signature in base64url.
    pub fn check(&self, message: &[u8], signature: &str) -> Result<(), BadSignature> {
        let bytes = URL_SAFE_NO_PAD.decode(signature).map_err(|_| BadSignature)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| BadSignature)?;
        // Strict: of several encodings of one signature, only one is taken.
        self.0.verify_strict(message, &signature).map_err(|_| BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file::PrivateDir;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn dir() -> (tempfile::TempDir, Safe) {
        let temp = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open_or_create(&temp.path().join("i")).unwrap();
        (temp, Safe::plain(dir))
    }

    #[test]
    fn a_key_is_made_once_and_is_ours_alone() {
        let (_temp, dir) = dir();
        let key = AuditKey::open_or_create(&dir).unwrap();
        assert_eq!(AuditKey::open_or_create(&dir).unwrap().public(), key.public());
        let public = std::fs::read_to_string(dir.dir().path().join(PUBLIC)).unwrap();
        assert_eq!(PublicKey::parse(&public), Ok(key.public()));
        for name in [PRIVATE, PUBLIC] {
            let mode = std::fs::metadata(dir.dir().path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(PublicKey::parse("no key"), Err(NotAKey));
    }

    #[test]
    fn a_key_that_is_gone_is_never_made_anew_and_one_without_its_public_half_is_one_whose_making_was_cut_short() {
        let (_temp, dir) = dir();
        let public = AuditKey::open_or_create(&dir).unwrap().public();
        let path = |name: &str| dir.dir().path().join(name);
        std::fs::remove_file(path(PUBLIC)).unwrap();
        assert_eq!(AuditKey::open_or_create(&dir).unwrap().public(), public);
        assert_eq!(std::fs::read_to_string(path(PUBLIC)).unwrap(), public.pem());
        std::fs::remove_file(path(PRIVATE)).unwrap();
        for beside in LATER {
            let error = AuditKey::open_or_create(&dir).err().unwrap().to_string();
            for words in ["audit.key is not there", beside, "restore it from a backup", "move the whole directory"] {
                assert!(error.contains(words), "{words}: {error}");
            }
            assert!(!path(PRIVATE).exists());
            std::fs::write(path("attache.db"), "").unwrap();
            std::fs::remove_file(path(PUBLIC)).ok();
        }
        std::fs::remove_file(path("attache.db")).unwrap();
        assert_ne!(AuditKey::open_or_create(&dir).unwrap().public(), public, "one that never lived begins");
    }

    #[test]
    fn a_key_that_is_damaged_or_exposed_is_refused() {
        let (_temp, dir) = dir();
        drop(AuditKey::open_or_create(&dir).unwrap());
        let path = dir.dir().path().join(PRIVATE);
        let good = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = good.lines().collect();
        let swapped = good.replacen(&lines[1][40..44], "AAAA", 1);
        for bad in ["", "key", &good[..good.len() / 2], &swapped] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(AuditKey::open_or_create(&dir), Err(KeyError::Damaged(_))), "{bad:?}");
        }
        std::fs::write(&path, &good).unwrap();
        assert!(AuditKey::open_or_create(&dir).is_ok());
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(AuditKey::open_or_create(&dir), Err(KeyError::Private(PrivateError::Exposed { .. }))));
    }

    #[test]
    fn a_signature_fits_one_message_and_one_key() {
        let key = AuditKey::from_seed([1; 32]);
        let signature = key.sign(b"message");
        assert_eq!(key.public().check(b"message", &signature), Ok(()));
        assert_eq!(key.public().check(b"massage", &signature), Err(BadSignature));
        assert_eq!(AuditKey::from_seed([2; 32]).public().check(b"message", &signature), Err(BadSignature));
        assert_eq!(key.public().check(b"message", "none"), Err(BadSignature));
        assert_eq!(key.public().id().len(), 16);
    }
}
