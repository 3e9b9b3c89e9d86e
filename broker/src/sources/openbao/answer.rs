//! What an answer says: read with care, for whatever stands in it is a secret.

use super::error::OpenBaoError;
use super::http::Reply;
pub use crate::json::Json;
use crate::sources::MOST;
use attache_core::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Every answer of OpenBao (<https://openbao.org/api-docs/>).
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Envelope {
    pub lease_id: String,
    pub lease_duration: u64,
    pub renewable: bool,
    pub data: Option<Json>,
    pub auth: Option<AuthBlock>,
    warnings: Option<Vec<String>>,
    errors: Option<Vec<String>>,
}

/// What a login or a renewal of a token gives.
#[derive(Deserialize)]
pub struct AuthBlock {
    pub client_token: Secret,
    pub lease_duration: u64,
    pub renewable: bool,
    #[serde(default)]
    pub num_uses: u32,
}

/// What was found.
pub struct Found {
    pub secret: Secret,
    /// Its lease, how long it lives, and whether it can be renewed.
    pub lease: Option<(String, Duration, bool)>,
}

/// What an answer to a reading says. `Ok(None)`: there is nothing. `document`: whether a field that is an object is
/// one, as it stands there.
pub fn reading(
    reply: &Reply,
    field: &str,
    version: Option<u32>,
    document: bool,
) -> Result<Option<Found>, OpenBaoError> {
    let answer = match reply.status {
        200 => parse(&reply.body)?,
        404 => return absent(&parse(&reply.body)?, version),
        _ => return Err(failure(reply)),
    };
    let Envelope { data: Some(Json::Map(mut data)), .. } = answer else { return Err(OpenBaoError::Malformed) };
    let version_found = versioned(&data);
    if let Some(found) = version_found {
        if version.is_some_and(|wanted| u64::from(wanted) != found) {
            return Err(OpenBaoError::NoVersion);
        }
        data = match data.remove("data") {
            Some(Json::Map(inner)) => inner,
            _ => return Err(OpenBaoError::Deleted),
        };
    } else if version.is_some() {
        return Err(OpenBaoError::NoVersion);
    }
    let secret = match data.remove(field) {
        Some(Json::Text(text)) => text,
        Some(Json::Map(_)) if document => as_it_stands(&reply.body, version_found.is_some(), field)?,
        Some(Json::Null) | None => return Err(OpenBaoError::NoField),
        Some(_) => return Err(OpenBaoError::NotText),
    };
    // Exposed to be measured.
    match secret.expose().len() {
        0 => return Err(OpenBaoError::Empty),
        1..=MOST => {}
        _ => return Err(OpenBaoError::TooLong),
    }
    let lease = (!answer.lease_id.is_empty())
        .then(|| (answer.lease_id, Duration::from_secs(answer.lease_duration), answer.renewable));
    Ok(Some(Found { secret, lease }))
}

/// A field that is an object, to the byte: written anew, a number of it could be another.
fn as_it_stands(body: &[u8], is_versioned: bool, field: &str) -> Result<Secret, OpenBaoError> {
    type Members<'a> = BTreeMap<String, &'a RawValue>;
    fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        let members: Members<'a> = serde_json::from_str(text).ok()?;
        members.get(name).map(|value| value.get())
    }
    let data = std::str::from_utf8(body).ok().and_then(|text| member(text, "data"));
    let data = data.and_then(|data| if is_versioned { member(data, "data") } else { Some(data) });
    data.and_then(|data| member(data, field)).map(Secret::new).ok_or(OpenBaoError::Malformed)
}

/// The version of a secret in KV version 2, which has its metadata beside it.
fn versioned(data: &BTreeMap<String, Json>) -> Option<u64> {
    let (Some(Json::Map(_) | Json::Null), Some(Json::Map(about))) = (data.get("data"), data.get("metadata")) else {
        return None;
    };
    about.get("version").and_then(Json::as_u64)
}

fn absent(answer: &Envelope, version: Option<u32>) -> Result<Option<Found>, OpenBaoError> {
    if let Some(Json::Map(data)) = &answer.data
        && let Some(Json::Map(about)) = data.get("metadata")
    {
        let destroyed = matches!(about.get("destroyed"), Some(Json::Bool(true)));
        return Err(if destroyed { OpenBaoError::Destroyed } else { OpenBaoError::Deleted });
    }
    if says(answer.warnings.as_deref(), "versioned") {
        return Err(OpenBaoError::NotVersioned);
    }
    if let Some(nowhere) = nowhere(answer) {
        return Err(nowhere);
    }
    match answer.errors.as_deref() {
        // A version that was named is meant, and nothing else.
        Some([]) if version.is_some() => Err(OpenBaoError::NoVersion),
        Some([]) => Ok(None),
        // Somebody's page of what he has not: not OpenBao's word.
        _ => Err(OpenBaoError::Malformed),
    }
}

fn nowhere(answer: &Envelope) -> Option<OpenBaoError> {
    if says(answer.errors.as_deref(), "namespace not found") {
        return Some(OpenBaoError::NoNamespace);
    }
    says(answer.errors.as_deref(), "no handler for route").then_some(OpenBaoError::NoEngine)
}

/// What an answer says that is none, whatever was asked.
pub fn failure(reply: &Reply) -> OpenBaoError {
    match reply.status {
        301 | 302 | 303 | 307 | 308 => OpenBaoError::Standby,
        400 | 405 => OpenBaoError::Refused(reply.status),
        403 => OpenBaoError::Denied,
        404 => parse(&reply.body).ok().and_then(|answer| nowhere(&answer)).unwrap_or(OpenBaoError::Malformed),
        412 => OpenBaoError::Failing(412),
        // Its message, whatever it is, is looked at for one word and not kept.
        503 if error_says(reply, "sealed") => OpenBaoError::Sealed,
        500..=599 => OpenBaoError::Failing(reply.status),
        _ => OpenBaoError::Malformed,
    }
}

/// Whether one of an answer's errors has this word, in small letters.
pub fn error_says(reply: &Reply, word: &str) -> bool {
    parse(&reply.body).is_ok_and(|answer| says(answer.errors.as_deref(), word))
}

fn says(lines: Option<&[String]>, word: &str) -> bool {
    lines.unwrap_or_default().iter().any(|line| line.to_ascii_lowercase().contains(word))
}

/// Parses an answer.
pub fn parse(body: &[u8]) -> Result<Envelope, OpenBaoError> {
    serde_json::from_slice(body).map_err(|_| OpenBaoError::Malformed)
}

/// The members of an answer's `data`.
pub fn data(reply: &Reply) -> Result<BTreeMap<String, Json>, OpenBaoError> {
    match parse(&reply.body)?.data {
        Some(Json::Map(data)) => Ok(data),
        _ => Err(OpenBaoError::Malformed),
    }
}
