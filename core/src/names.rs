//! Names that are safe in a path, a log line, a header and a cluster name.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`Name::MAX_LEN`] characters.
    #[error("a name has at most 63 characters")]
    TooLong,
    /// Something besides `a-z 0-9 - _`, or a first character that is not a letter or digit.
    #[error("a name is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit")]
    BadCharacter,
}

/// The name of a credential, a session or an instance: `[a-z0-9][a-z0-9_-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$"))]
pub struct Name(Box<str>);

impl Name {
    /// Longest name, in characters: a DNS label, so that it fits wherever a name may end up.
    pub const MAX_LEN: usize = 63;

    /// Parses a name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut bytes = text.bytes();
        let first = bytes.next().ok_or(NameError::Empty)?;
        if text.len() > Self::MAX_LEN {
            return Err(NameError::TooLong);
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !plain(first) || !bytes.all(|b| plain(b) || b == b'-' || b == b'_') {
            return Err(NameError::BadCharacter);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn names_are_safe_everywhere() {
        for good in ["github", "a", "0", "my-agent_2", &"x".repeat(63)] {
            assert_eq!(Name::parse(good).map(String::from).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (&*"x".repeat(64), NameError::TooLong),
            ("..", NameError::BadCharacter),
            ("-a", NameError::BadCharacter),
            ("a/b", NameError::BadCharacter),
            ("A", NameError::BadCharacter),
            ("a\0", NameError::BadCharacter),
            ("é", NameError::BadCharacter),
        ] {
            assert_eq!(Name::parse(bad), Err(why), "{bad:?}");
        }
    }
}
