//! What a Connect server says (<https://github.com/1Password/connect/blob/main/docs/openapi/spec.yaml>), and what of it
//! a reference names. As with `op`, names are the same in any case, IDs to the letter.

use super::error::ConnectError;
use crate::sources::MOST;
use crate::sources::http::Reply;
use attache_core::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;

/// `op://VAULT/ITEM/[SECTION/]FIELD`.
#[derive(Clone, Debug)]
pub struct Reference {
    pub vault: String,
    pub item: String,
    pub section: Option<String>,
    pub field: String,
}

impl Reference {
    /// What the config has let through; anything else names nothing.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.trim_start_matches("op://").split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (vault, item, third) = (next(), next(), next());
        let (section, field) = match parts.next() {
            Some(field) => (Some(third), field),
            None => (None, third),
        };
        Self { vault, item, section, field }
    }
}

/// Whether it is an ID, and needs no looking up.
pub fn is_id(name: &str) -> bool {
    name.len() == 26 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// A vault, or an item without its fields.
#[derive(Deserialize)]
pub struct Named {
    id: String,
    #[serde(alias = "title")]
    name: Option<String>,
    state: Option<String>,
}

/// An item.
#[derive(Deserialize)]
pub struct Item {
    pub title: Option<String>,
    state: Option<String>,
    sections: Option<Vec<Section>>,
    fields: Option<Vec<Field>>,
}

#[derive(Deserialize)]
struct Section {
    id: Option<String>,
    label: Option<String>,
}

#[derive(Deserialize)]
struct Field {
    id: String,
    label: Option<String>,
    value: Option<Secret>,
    section: Option<Section>,
}

fn is(found: Option<&String>, name: &str) -> bool {
    found.is_some_and(|found| found.eq_ignore_ascii_case(name))
}

fn is_there(state: Option<&String>) -> bool {
    !matches!(state.map(String::as_str), Some("ARCHIVED" | "DELETED"))
}

/// The ID of the one that has this name. `Ok(None)`: none has.
pub fn one_of(found: Vec<Named>, name: &str, what: &'static str) -> Result<Option<String>, ConnectError> {
    let mut found = found.into_iter().filter(|one| is_there(one.state.as_ref()) && is(one.name.as_ref(), name));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(one), None) if is_id(&one.id) => Ok(Some(one.id)),
        (Some(_), None) => Err(ConnectError::Malformed),
        _ => Err(ConnectError::Ambiguous(what)),
    }
}

fn one<'a>(mut found: impl Iterator<Item = &'a Field>) -> Result<Option<&'a Field>, ConnectError> {
    match (found.next(), found.next()) {
        (found, None) => Ok(found),
        _ => Err(ConnectError::Ambiguous("field")),
    }
}

impl Item {
    /// Without the fields that nobody has asked for: `wanted` are names in small letters.
    pub fn trimmed(mut self, wanted: &HashSet<String>) -> Result<Self, ConnectError> {
        if !is_there(self.state.as_ref()) {
            return Err(ConnectError::NoItem);
        }
        let is_wanted = |name: &String| wanted.contains(&name.to_ascii_lowercase());
        let keep = |field: &Field| is_wanted(&field.id) || field.label.as_ref().is_some_and(is_wanted);
        self.fields.iter_mut().for_each(|fields| fields.retain(keep));
        Ok(self)
    }

    /// Whether it has this title, in any case.
    pub fn is_called(&self, title: &str) -> bool {
        is(self.title.as_ref(), title)
    }

    /// The value of the field that a reference names.
    pub fn value(&self, reference: &Reference) -> Result<Secret, ConnectError> {
        let value = self.field(reference)?.value.as_ref().ok_or(ConnectError::Empty)?;
        // Exposed to be measured.
        match value.expose().len() {
            0 => Err(ConnectError::Empty),
            1..=MOST => Ok(value.clone()),
            _ => Err(ConnectError::TooLong),
        }
    }

    fn field(&self, reference: &Reference) -> Result<&Field, ConnectError> {
        let fields = || {
            let all = self.fields.iter().flatten();
            all.filter(|field| reference.section.as_ref().is_none_or(|section| self.is_in(field, section)))
        };
        let by_label = || fields().filter(|field| is(field.label.as_ref(), &reference.field));
        if let Ok(Some(field)) = one(fields().filter(|field| field.id == reference.field)) {
            return Ok(field);
        }
        match one(by_label()) {
            Ok(found) => found.ok_or(ConnectError::NoField),
            // Of many, a reference without a section names the one without a section.
            Err(many) => one(by_label().filter(|field| field.section.is_none()))?.ok_or(many),
        }
    }

    fn is_in(&self, field: &Field, name: &str) -> bool {
        let Some(section) = &field.section else { return false };
        let named = |section: &Section| section.id.as_deref() == Some(name) || is(section.label.as_ref(), name);
        let all = self.sections.iter().flatten();
        named(section) || all.filter(|one| one.id.is_some() && one.id == section.id).any(named)
    }
}

/// Reads an answer; `missing` is what a 404 means.
pub fn read<T: DeserializeOwned>(reply: &Reply, missing: ConnectError) -> Result<T, ConnectError> {
    /// An error, as far as it is looked at.
    #[derive(Deserialize)]
    struct Words {
        status: u16,
    }
    Err(match reply.status {
        200 => return serde_json::from_slice(&reply.body).map_err(|_| ConnectError::Malformed),
        401 => ConnectError::TokenRefused,
        403 => ConnectError::Denied,
        // Somebody's page of what he has not is not Connect's word.
        404 if serde_json::from_slice(&reply.body).is_ok_and(|words: Words| words.status == 404) => missing,
        400 | 405 | 413 => ConnectError::Refused(reply.status),
        500..=599 => ConnectError::Failing(reply.status),
        _ => ConnectError::Malformed,
    })
}

/// `NAME eq "VALUE"`, in the language of SCIM's filters (RFC 7644, 3.4.2.2), whose texts are JSON's.
pub fn filter(attribute: &str, value: &str) -> String {
    format!("{attribute} eq {}", serde_json::Value::from(value))
}
