//! The head of a log: how many records there are and the hash of the last, signed.
//!
//! A signed head that is kept elsewhere is an *anchor*: it proves later that nothing before it was
//! changed and nothing was cut off. Every checkpoint of the log is a signed head, too.

use super::key::{AuditKey, BadSignature, PublicKey};
use attache_core::names::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is signed begins with this, so that no signature of ours means anything else.
const DOMAIN: &str = "attache-audit-head-v1";

/// How far a log reached, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Whose log it is.
    pub instance: Name,
    /// How many records it held, all files together.
    pub count: u64,
    /// The hash of the last of them; 64 zeros if there was none.
    pub hash: String,
    /// When this was said: RFC 3339, as in records.
    pub timestamp: String,
}

/// A head and its signature, in base64url. Written as one word:
/// `INSTANCE,COUNT,HASH,TIMESTAMP,SIGNATURE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// What is signed.
    #[serde(flatten)]
    pub head: Head,
    /// The Ed25519 signature of [`Head::message`].
    pub signature: String,
}

/// What is no anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an anchor: expected what `attache audit head` prints, in one line or as JSON")]
pub struct NotAnAnchor;

impl Head {
    /// The bytes that are signed: domain, instance, count, hash and timestamp, a line each.
    pub fn message(&self) -> String {
        let Self { instance, count, hash, timestamp } = self;
        format!("{DOMAIN}\n{instance}\n{count}\n{hash}\n{timestamp}\n")
    }

    /// Signs it.
    pub fn sign(self, key: &AuditKey) -> Anchor {
        Anchor { signature: key.sign(self.message().as_bytes()), head: self }
    }
}

impl Anchor {
    /// Checks the signature against one of these keys.
    pub fn check(&self, keys: &[PublicKey]) -> Result<(), BadSignature> {
        let message = self.head.message();
        let fits = |key: &PublicKey| key.check(message.as_bytes(), &self.signature).is_ok();
        if keys.iter().any(fits) { Ok(()) } else { Err(BadSignature) }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { instance, count, hash, timestamp } = &self.head;
        write!(f, "{instance},{count},{hash},{timestamp},{}", self.signature)
    }
}

impl FromStr for Anchor {
    type Err = NotAnAnchor;

    fn from_str(text: &str) -> Result<Self, NotAnAnchor> {
        let text = text.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text).map_err(|_| NotAnAnchor);
        }
        let mut words = text.split(',');
        let mut word = || words.next().ok_or(NotAnAnchor);
        let instance = Name::parse(word()?).map_err(|_| NotAnAnchor)?;
        let count = word()?.parse().map_err(|_| NotAnAnchor)?;
        let (hash, timestamp, signature) = (word()?.to_owned(), word()?.to_owned(), word()?.to_owned());
        match words.next() {
            None => Ok(Self { head: Head { instance, count, hash, timestamp }, signature }),
            Some(_) => Err(NotAnAnchor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            instance: Name::parse("default").unwrap(),
            count: 7,
            hash: "ab".repeat(32),
            timestamp: "2026-01-31T12:00:00.120Z".into(),
        }
    }

    #[test]
    fn an_anchor_is_read_as_it_was_written() {
        let anchor = head().sign(&AuditKey::from_seed([7; 32]));
        assert_eq!(anchor.to_string().parse(), Ok(anchor.clone()));
        assert_eq!(serde_json::to_string(&anchor).unwrap().parse(), Ok(anchor.clone()));
        for bad in ["", "default,7", "default,x,h,t,s", &format!("{anchor},more"), "{}", "{\"count\":1}"] {
            assert_eq!(bad.parse::<Anchor>(), Err(NotAnAnchor), "{bad}");
        }
    }

    #[test]
    fn a_signature_fits_every_part_of_its_head() {
        let key = AuditKey::from_seed([7; 32]);
        let anchor = head().sign(&key);
        assert_eq!(anchor.check(&[AuditKey::from_seed([8; 32]).public(), key.public()]), Ok(()));
        assert_eq!(anchor.check(&[AuditKey::from_seed([8; 32]).public()]), Err(BadSignature));
        assert_eq!(anchor.check(&[]), Err(BadSignature));
        let other = |change: &dyn Fn(&mut Anchor)| {
            let mut anchor = anchor.clone();
            change(&mut anchor);
            anchor.check(&[key.public()])
        };
        assert_eq!(other(&|a| a.head.instance = Name::parse("other").unwrap()), Err(BadSignature));
        assert_eq!(other(&|a| a.head.count = 8), Err(BadSignature));
        assert_eq!(other(&|a| a.head.hash = "cd".repeat(32)), Err(BadSignature));
        assert_eq!(other(&|a| a.head.timestamp = "2026-01-31T12:00:00.121Z".into()), Err(BadSignature));
        assert_eq!(other(&|a| a.signature = a.signature.to_lowercase()), Err(BadSignature));
    }
}
