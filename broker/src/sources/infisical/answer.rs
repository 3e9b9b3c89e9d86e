//! What an answer of Infisical says: classed by its status, its `error` and the beginning of its `message`, none of
//! which is repeated (<https://github.com/Infisical/infisical/blob/main/backend/src/server/plugins/error-handler.ts>).

use super::error::InfisicalError;
use crate::config::InfisicalSecret;
use crate::sources::MOST;
use crate::sources::http::Reply;
use attache_core::Secret;
use serde::Deserialize;

/// What stands in place of a value that we may not see.
const HIDDEN: &str = "<hidden-by-infisical>";

/// What a login or a renewal gives.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    pub access_token: Secret,
    /// How long the token lives, in seconds; 0: for ever.
    #[serde(default)]
    pub expires_in: u64,
    /// How long it lives at most, however often it is renewed; 0: for ever.
    #[serde(default, rename = "accessTokenMaxTTL")]
    pub max_ttl: u64,
}

#[derive(Deserialize)]
struct Answer {
    secret: Found,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    secret_key: String,
    secret_value: Secret,
    #[serde(default)]
    secret_value_hidden: bool,
    version: Option<u64>,
}

/// An error, as far as it is looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Words {
    error: Text,
    message: Text,
}

/// A text in small letters; what is none is empty.
#[derive(Default, Deserialize)]
#[serde(from = "serde_json::Value")]
struct Text(String);

impl From<serde_json::Value> for Text {
    fn from(value: serde_json::Value) -> Self {
        Self(value.as_str().unwrap_or_default().to_lowercase())
    }
}

impl Words {
    /// Empty where it is no error of Infisical's.
    fn of(reply: &Reply) -> Self {
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    fn says(&self, words: &str) -> bool {
        self.message.0.contains(words)
    }
}

/// What a question for a secret comes to.
pub enum Read {
    /// A secret.
    Secret(Secret),
    /// The folder has no secret of this name.
    Absent,
    /// The server has no such route.
    NoRoute,
    /// The token is worth nothing any longer, and why, if the next one is not either.
    TokenOver(InfisicalError),
}

/// What an answer to a question for a secret says.
pub fn read(reply: &Reply, wanted: &InfisicalSecret) -> Result<Read, InfisicalError> {
    let words = Words::of(reply);
    Err(match reply.status {
        200 => return found(reply, wanted).map(Read::Secret),
        // With 400 in former versions.
        400 | 401 if words.says("number of uses limit") => return Ok(Read::TokenOver(InfisicalError::TokenUsedUp)),
        401 => return Ok(Read::TokenOver(InfisicalError::TokenRefused)),
        403 if words.error.0 == "tokenerror" => return Ok(Read::TokenOver(InfisicalError::TokenRefused)),
        403 if words.says("ip address") => InfisicalError::TokenFromElsewhere,
        403 if words.error.0 == "forbiddenreadsecreterror" => InfisicalError::Hidden,
        403 => InfisicalError::Denied,
        404 => return missing(&words, wanted),
        _ => failure(reply),
    })
}

fn found(reply: &Reply, wanted: &InfisicalSecret) -> Result<Secret, InfisicalError> {
    let answer: Answer = serde_json::from_slice(&reply.body).map_err(|_| InfisicalError::Malformed)?;
    let found = answer.secret;
    // Exposed to be told from what only stands in its place, and to be measured.
    let value = found.secret_value.expose();
    if found.secret_value_hidden || value == HIDDEN {
        return Err(InfisicalError::Hidden);
    }
    if !found.secret_key.eq_ignore_ascii_case(&wanted.name) {
        return Err(InfisicalError::Malformed);
    }
    if wanted.version.is_some_and(|version| found.version != Some(version.into())) {
        return Err(InfisicalError::NoVersion);
    }
    match value.len() {
        0 => Err(InfisicalError::Empty),
        1..=MOST => Ok(found.secret_value),
        _ => Err(InfisicalError::TooLong),
    }
}

/// What is not there: the route, the secret, or the place where it would be.
fn missing(words: &Words, wanted: &InfisicalSecret) -> Result<Read, InfisicalError> {
    if words.error.0 == "not found" && words.message.0.starts_with("route ") {
        return Ok(Read::NoRoute);
    }
    // The first word says what: the others may hold any name.
    match words.message.0.split(' ').next().unwrap_or_default() {
        // A version that was named is meant, and nothing else.
        "secret" if wanted.version.is_some() => Err(InfisicalError::NoVersion),
        "secret" => Ok(Read::Absent),
        "folder" | "environment" => Err(InfisicalError::NoFolder),
        "project" | "workspace" => Err(InfisicalError::NoProject),
        // Somebody's page of what he has not: not Infisical's word.
        _ => Err(InfisicalError::Malformed),
    }
}

/// What an answer to a login says.
pub fn login(reply: &Reply) -> Result<Login, InfisicalError> {
    let words = Words::of(reply);
    Err(match reply.status {
        200 => return serde_json::from_slice(&reply.body).map_err(|_| InfisicalError::Malformed),
        401 if words.says("expired client secret") => InfisicalError::SecretExpired,
        401 if words.says("usage limit") || words.says("number of uses limit") => InfisicalError::SecretUsedUp,
        401 if words.says("temporarily locked") => InfisicalError::LockedOut,
        403 if words.says("ip address") => InfisicalError::LoginFromElsewhere,
        // A route that is not there is none that refuses.
        404 if words.error.0 != "notfound" => InfisicalError::Malformed,
        400 | 401 | 403 | 404 | 422 => InfisicalError::LoginRefused,
        _ => failure(reply),
    })
}

/// What an answer says that is none, whatever was asked.
pub fn failure(reply: &Reply) -> InfisicalError {
    match reply.status {
        400 | 405 | 409 | 422 => InfisicalError::Refused(reply.status),
        500..=599 => InfisicalError::Failing(reply.status),
        _ => InfisicalError::Malformed,
    }
}
