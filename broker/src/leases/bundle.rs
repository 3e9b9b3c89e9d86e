//! Bundles: one secret that is a JSON object, taken apart into what is injected, what is public, and until when.

use crate::clock::Now;
use crate::config::{Bundle, Destination, FieldPath};
use crate::json::{Json, NotJson};
use crate::sources::MOST;
use attache_core::Secret;
use attache_core::injection::{Injection, InjectionError, Rendered};
use attache_core::masking;
use attache_core::matching::host::Authority;
use std::collections::BTreeMap;
use std::time::Duration;

/// A public field is no longer, in bytes.
const MOST_PUBLIC: usize = 1024;

/// A number from here on counts milliseconds: as seconds it would be the year 5138.
const MILLISECONDS: f64 = 1e11;

/// Why a document cannot be used. Names fields, never content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No JSON.
    #[error("the secret is to be a JSON object (`bundle`), and {0}")]
    NotJson(#[from] NotJson),
    /// Longer than a secret may be.
    #[error("the secret is longer than 64 KiB")]
    TooLong,
    /// JSON, and no object.
    #[error("the secret is to be a JSON object (`bundle`), and is another value")]
    NotAnObject,
    /// Nothing there.
    #[error("its field {0} is not there")]
    Missing(FieldPath),
    /// Another kind of value.
    #[error("its field {0} is no text")]
    NotText(FieldPath),
    /// A header that cannot hold it.
    #[error("its field {0} cannot be injected: {1}")]
    NotInjectable(FieldPath, InjectionError),
    /// It cannot be told from chance in an answer.
    #[error("its field {0} is too short to be masked, or not printable ASCII")]
    NotMaskable(FieldPath),
    /// No time.
    #[error("its field {0} is no time: Unix seconds or milliseconds, or RFC 3339")]
    NotATime(FieldPath),
    /// That time is over.
    #[error("its field {0} says that it has ended")]
    Over(FieldPath),
    /// No hosts.
    #[error("its field {0} is no list of hosts, each HOST or HOST:PORT")]
    NotHosts(FieldPath),
    /// Hosts, and none of the config's.
    #[error("its field {0} names none of the credential's destinations")]
    NoneLeft(FieldPath),
    /// A public field that cannot be one.
    #[error("its public field {0} is no text of one line, of at most 1 KiB")]
    NotPublic(FieldPath),
    /// A public field with a secret in it.
    #[error("its public field {0} holds what is injected as a secret")]
    PublicSecret(FieldPath),
}

impl BundleError {
    /// What an operator does about it.
    pub fn fix(&self) -> &'static str {
        match self {
            BundleError::NotJson(_) | BundleError::TooLong | BundleError::NotAnObject => {
                "put the JSON object there that the credential's `bundle` describes, or remove `bundle`"
            }
            BundleError::Missing(_) | BundleError::NotText(_) | BundleError::NotInjectable(..) => {
                "correct the path in the credential's `bundle`, or write the field as one line of text"
            }
            BundleError::NotMaskable(_) => {
                "name the field in `bundle.fields` where it is no secret, or write `mask: false`: echoes of all fields \
                 then reach the agent"
            }
            BundleError::NotATime(_) => "correct the path of `bundle.expires`, or what stands there",
            BundleError::Over(_) => "put a new document there; it is noticed by itself",
            BundleError::NotHosts(_) | BundleError::NoneLeft(_) => {
                "correct the list in the document, or remove `bundle.destinations`; a host that the config does not \
                 name is never added"
            }
            BundleError::NotPublic(_) | BundleError::PublicSecret(_) => {
                "correct the path in `bundle.fields`, or remove it there"
            }
        }
    }
}

/// A document, taken apart.
pub struct Unpacked {
    /// What is injected where the credential stands.
    pub secret: Secret,
    /// Until when it is good, by its own account.
    pub ends: Option<Now>,
    /// What agents may have, by its name in the config.
    pub public: BTreeMap<String, String>,
    headers: Vec<Header>,
    /// The hosts that are left; `None`: all.
    left: Option<Vec<Authority>>,
}

struct Header {
    name: String,
    value: Secret,
    field: FieldPath,
    is_public: bool,
}

/// Takes a document apart.
pub fn unpack(
    bundle: &Bundle,
    document: &Secret,
    destinations: &[Destination],
    now: Now,
) -> Result<Unpacked, BundleError> {
    // Exposed to be read as what it is: a document.
    let text = document.expose().as_bytes();
    if text.len() > MOST {
        return Err(BundleError::TooLong);
    }
    let document = Json::parse(text)?;
    if !matches!(document, Json::Map(_)) {
        return Err(BundleError::NotAnObject);
    }
    let headers = bundle.headers.iter().map(|header| {
        let (field, value) = (header.field.clone(), text_or_number(&document, &header.field)?);
        Ok(Header { name: header.name.clone(), value, field, is_public: header.is_public })
    });
    let unpacked = Unpacked {
        secret: secret(&document, &bundle.secret)?,
        ends: bundle.expires.as_ref().map(|field| end(&document, field, now)).transpose()?,
        headers: headers.collect::<Result<_, BundleError>>()?,
        public: BTreeMap::new(),
        left: bundle.destinations.as_ref().map(|field| hosts(&document, field)).transpose()?,
    };
    if let Some(field) = &bundle.destinations
        && !destinations.iter().any(|destination| unpacked.reaches(destination))
    {
        return Err(BundleError::NoneLeft(field.clone()));
    }
    let public = bundle.fields.iter().map(|(name, field)| Ok((name.clone(), unpacked.public(&document, field)?)));
    Ok(Unpacked { public: public.collect::<Result<_, BundleError>>()?, ..unpacked })
}

impl Unpacked {
    /// Whether the document leaves this destination.
    pub fn reaches(&self, destination: &Destination) -> bool {
        let is_meant =
            |at: &Authority| at.host == destination.host && at.port.is_none_or(|port| port == destination.port);
        self.left.as_ref().is_none_or(|left| left.iter().any(is_meant))
    }

    /// What is set beside the secret.
    pub fn headers(&self) -> Result<Vec<Rendered>, BundleError> {
        let rendered = self.headers.iter().map(|header| {
            let injection = Injection::Header { name: header.name.clone(), format: "{}".to_owned() };
            injection.render(&header.value).map_err(|why| BundleError::NotInjectable(header.field.clone(), why))
        });
        rendered.collect()
    }

    /// What of that must not come back.
    pub fn masked(&self) -> Result<Vec<Secret>, BundleError> {
        let secret = self.headers.iter().filter(|header| !header.is_public).map(|header| {
            masking::check(&header.value).map_err(|_| BundleError::NotMaskable(header.field.clone()))?;
            Ok(header.value.clone())
        });
        secret.collect()
    }

    /// A public field, which holds nothing of what is injected.
    fn public(&self, document: &Json, field: &FieldPath) -> Result<String, BundleError> {
        let value = text_or_number(document, field)?;
        // Exposed to be handed out, as the config says; compared with what never is.
        let text = value.expose();
        let hidden = self.headers.iter().filter(|header| !header.is_public).map(|header| &header.value);
        if hidden.chain([&self.secret]).any(|hidden| text.contains(hidden.expose())) {
            return Err(BundleError::PublicSecret(field.clone()));
        }
        if text.len() > MOST_PUBLIC || text.contains(char::is_control) {
            return Err(BundleError::NotPublic(field.clone()));
        }
        Ok(text.to_owned())
    }
}

fn find<'a>(document: &'a Json, field: &FieldPath) -> Result<&'a Json, BundleError> {
    let found = field.names().try_fold(document, |at, name| match at {
        Json::Map(members) => members.get(name),
        _ => None,
    });
    found.filter(|value| !matches!(value, Json::Null)).ok_or_else(|| BundleError::Missing(field.clone()))
}

fn secret(document: &Json, field: &FieldPath) -> Result<Secret, BundleError> {
    match find(document, field)? {
        Json::Text(text) => Ok(text.clone()),
        _ => Err(BundleError::NotText(field.clone())),
    }
}

fn text_or_number(document: &Json, field: &FieldPath) -> Result<Secret, BundleError> {
    match find(document, field)? {
        // Any other may have been read as another number than is written there.
        Json::Number(number) if number.is_u64() || number.is_i64() => Ok(Secret::new(number.to_string())),
        _ => secret(document, field),
    }
}

/// When it ends. A moment that has passed is an error at once.
fn end(document: &Json, field: &FieldPath, now: Now) -> Result<Now, BundleError> {
    let of_number = |number: f64| {
        let ms = if number < MILLISECONDS { number * 1000.0 } else { number };
        (number > 0.0 && ms < 1e15).then_some(ms as u64)
    };
    let ms = match find(document, field)? {
        Json::Number(number) => number.as_f64().and_then(of_number),
        // Exposed to read a date, which is no secret.
        Json::Text(text) => match text.expose().parse::<jiff::Timestamp>() {
            Ok(at) => u64::try_from(at.as_millisecond()).ok(),
            Err(_) => text.expose().parse().ok().and_then(of_number),
        },
        _ => None,
    };
    let ms = ms.ok_or_else(|| BundleError::NotATime(field.clone()))?;
    match ms.checked_sub(now.wall_ms).filter(|left| *left > 0) {
        Some(left) => Ok(now.plus(Duration::from_millis(left))),
        None => Err(BundleError::Over(field.clone())),
    }
}

fn hosts(document: &Json, field: &FieldPath) -> Result<Vec<Authority>, BundleError> {
    let wrong = || BundleError::NotHosts(field.clone());
    let Json::List(items) = find(document, field)? else { return Err(wrong()) };
    let parsed = items.iter().map(|item| match item {
        // Exposed to be compared with the config's hosts.
        Json::Text(text) => Authority::parse(text.expose().as_bytes()).map_err(|_| wrong()),
        _ => Err(wrong()),
    });
    parsed.collect()
}

#[cfg(test)]
mod tests;
