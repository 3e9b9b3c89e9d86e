//! A credential of several fields, which are used together: written, and resolved.

use super::values::Word;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// No field lies deeper in a document: names in one path, and objects and lists in one another.
pub const DEEPEST: usize = 16;

/// What becomes of the fields of a secret that is a JSON object. Fields that are named nowhere are not looked at.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleSpec {
    /// The field that is injected: it stands where the credential stands.
    pub secret: FieldPath,
    /// By name: headers that are set beside it at every destination, each from a field.
    #[serde(default)]
    pub headers: BTreeMap<Word, FieldPath>,
    /// The field that says until when all of it is good: Unix seconds or milliseconds, or RFC 3339.
    pub expires: Option<FieldPath>,
    /// By a name of your own: fields that are no secrets. `agent_env` may hand them out.
    #[serde(default)]
    pub fields: BTreeMap<Word, FieldPath>,
    /// The field with a list of hosts (`HOST` or `HOST:PORT`): of the credential's destinations only these are left.
    pub destinations: Option<FieldPath>,
}

/// Where a field is: names of members, from the outermost, with dots between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct FieldPath(String);

/// Not a path of a field.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected the names of members with dots between them, e.g. tokens.access_token: printable ASCII without spaces, \
     at most {DEEPEST} names"
)]
pub struct NoFieldPath;

impl TryFrom<String> for FieldPath {
    type Error = NoFieldPath;
    fn try_from(text: String) -> Result<Self, NoFieldPath> {
        let plain = Word::try_from(text.clone()).is_ok() && text.split('.').all(|name| !name.is_empty());
        if plain && text.split('.').count() <= DEEPEST { Ok(Self(text)) } else { Err(NoFieldPath) }
    }
}

impl FieldPath {
    /// The names, from the outermost.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of the fields of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What is injected.
    pub secret: FieldPath,
    /// Headers that are set beside it: lower-case names, each once.
    pub headers: Vec<BundleHeader>,
    /// Until when it is good.
    pub expires: Option<FieldPath>,
    /// What is no secret, by name.
    pub fields: BTreeMap<String, FieldPath>,
    /// Of which hosts only these are left.
    pub destinations: Option<FieldPath>,
}

/// A header that is set from a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleHeader {
    /// Its name, lower-case.
    pub name: String,
    /// From where.
    pub field: FieldPath,
    /// Whether the field is a public one, which no answer is searched for.
    pub is_public: bool,
}
