//! A secret that cannot be printed.

use serde::{Deserialize, Deserializer, Serializer};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The bytes of a credential. However often it is cloned it stands in memory once, and is zeroed when the last clone is
/// dropped; one door out: [`Secret::expose`].
///
/// There is no `Debug`, no `Display` and no `Serialize`:
///
/// ```compile_fail
/// let secret = attache_core::Secret::new("s3cret");
/// println!("{secret:?}");
/// ```
///
/// ```compile_fail
/// let secret = attache_core::Secret::new("s3cret");
/// println!("{secret}");
/// ```
///
/// ```compile_fail
/// let secret = attache_core::Secret::new("s3cret");
/// serde_json::to_string(&secret).ok();
/// ```
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes ownership of the secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The secret itself. Every caller must be able to say aloud why it needs the bytes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Writes a secret onto the authenticated wire between broker and filter, and nowhere else:
/// named field by field with `#[serde(serialize_with)]`.
pub(crate) fn onto_the_wire<S: Serializer>(secret: &Secret, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(secret.expose())
}

/// Likewise, several of them.
pub(crate) fn all_onto_the_wire<S: Serializer>(secrets: &[Secret], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(secrets.iter().map(Secret::expose))
}
