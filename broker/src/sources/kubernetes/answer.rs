//! What an answer says: read with care, for whatever stands in it is a secret.

use super::error::KubernetesError;
use crate::json::Json;
use crate::sources::MOST;
use attache_core::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// An answer, and what was asked.
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Zeroizing<Vec<u8>>,
    /// In which namespace.
    pub namespace: String,
    /// Which Secret.
    pub name: String,
}

/// What an answer says of a key. `Ok(None)`: there is no such Secret.
pub fn reading(reply: &Reply, key: &str) -> Result<Option<Secret>, KubernetesError> {
    match reply.status {
        200 => {}
        401 => return Err(KubernetesError::Unauthorized),
        403 if is_status(reply, "Forbidden") => {
            let (namespace, name) = (reply.namespace.clone(), reply.name.clone());
            return Err(KubernetesError::Forbidden { namespace, name });
        }
        404 if is_status(reply, "NotFound") => return Ok(None),
        500..=599 => return Err(KubernetesError::Failing(reply.status)),
        _ => return Err(KubernetesError::Malformed),
    }
    let mut object = object(reply).filter(|object| is(object, "kind", "Secret")).ok_or(KubernetesError::Malformed)?;
    let value = match object.remove("data") {
        Some(Json::Map(mut data)) => data.remove(key),
        Some(Json::Null) | None => None,
        Some(_) => return Err(KubernetesError::Malformed),
    };
    match value {
        Some(Json::Text(text)) => decoded(&text).map(Some),
        None => Err(KubernetesError::NoKey),
        Some(_) => Err(KubernetesError::Malformed),
    }
}

/// Whether it is what the API says of a Secret that it does not give
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>), and not the page of
/// somebody before it.
fn is_status(reply: &Reply, reason: &str) -> bool {
    let about = |object: &BTreeMap<String, Json>| matches!(object.get("details"), Some(Json::Map(details)) if is(details, "kind", "secrets"));
    object(reply).is_some_and(|object| is(&object, "kind", "Status") && is(&object, "reason", reason) && about(&object))
}

fn object(reply: &Reply) -> Option<BTreeMap<String, Json>> {
    match Json::parse(&reply.body) {
        Ok(Json::Map(object)) => Some(object),
        _ => None,
    }
}

fn is(object: &BTreeMap<String, Json>, name: &str, word: &str) -> bool {
    // Exposed to be compared with a word of the API.
    matches!(object.get(name), Some(Json::Text(text)) if text.expose() == word)
}

/// A value of `data`: base64 of a text, of which one final line break is no part.
fn decoded(text: &Secret) -> Result<Secret, KubernetesError> {
    // Exposed to be decoded. All its room at once: a buffer that grows leaves copies behind.
    let encoded = text.expose();
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    STANDARD.decode_vec(encoded, &mut bytes).map_err(|_| KubernetesError::Malformed)?;
    let text = crate::sources::file::text(&bytes, String::new);
    let text = text.map_err(|why| match why {
        crate::sources::SourceError::Empty(_) => KubernetesError::Empty,
        _ => KubernetesError::NotText,
    })?;
    if text.len() > MOST { Err(KubernetesError::TooLong) } else { Ok(Secret::new(text)) }
}
