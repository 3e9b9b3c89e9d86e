//! Headers that a service wants beside a credential, and that say nothing secret: Anthropic takes an
//! OAuth token only with its `anthropic-beta`, ChatGPT wants to know which account a token is used for.

use crate::evidence::AUTH_HEADERS;
use crate::injection::header::may_be_set;
use crate::placeholder::MARKER;
use crate::policy::CompanionSpec;
use crate::request::{METHOD_HEADERS, Snapshot};

/// One such header, checked.
#[derive(Clone, Debug)]
pub struct Companion {
    header: String,
    value: String,
    merge: bool,
}

/// Why a header may not stand beside a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompanionError {
    /// No header, or one that Envoy or the filter owns.
    #[error("`with`: not a header that can stand beside a credential")]
    Header,
    /// No header's value, or a placeholder in it.
    #[error("`with`: a value is printable ASCII without spaces around it, and no placeholder")]
    Value,
    /// One in which a credential stands: it would go beside ours.
    #[error("`with`: this header carries credentials; use `inject`")]
    Credential,
    /// One by which the request would be another than the one that was decided on.
    #[error("`with`: this header says what the request is; it stays the agent's")]
    Telling,
}

impl Companion {
    /// Checks what a config wrote.
    pub fn compile(spec: &CompanionSpec) -> Result<Self, CompanionError> {
        let header = spec.header.to_ascii_lowercase();
        let name = header.as_bytes();
        if !may_be_set(&header) && !name.starts_with(b"content-") {
            return Err(CompanionError::Header);
        }
        let value = &spec.value;
        let printable = !value.is_empty() && value.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !printable || value.trim() != value || value.contains(MARKER) {
            return Err(CompanionError::Value);
        }
        if AUTH_HEADERS.contains(&name) {
            return Err(CompanionError::Credential);
        }
        if is_telling(name) {
            return Err(CompanionError::Telling);
        }
        Ok(Self { header, value: spec.value.clone(), merge: spec.merge })
    }

    /// The header's lower-case name.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// What it says in a request that says this much by itself; `None` if that is enough.
    pub fn beside(&self, snapshot: &Snapshot) -> Option<Vec<u8>> {
        if !self.merge {
            return Some(self.value.clone().into_bytes());
        }
        let mut list: Vec<u8> = Vec::new();
        for line in snapshot.lines().filter(|line| line.name.of(snapshot.bytes()) == self.header.as_bytes()) {
            let value = line.value.of(snapshot.bytes());
            if value.split(|b| *b == b',').any(|member| member.trim_ascii() == self.value.as_bytes()) {
                return None;
            }
            list.extend_from_slice(value.trim_ascii());
            list.push(b',');
        }
        list.extend_from_slice(self.value.as_bytes());
        Some(list)
    }
}

/// Whether a header of this lower-case name says what the request is, or what its answer shall be.
pub(crate) fn is_telling(name: &[u8]) -> bool {
    let reroutes = matches!(name, b"x-original-url" | b"x-rewrite-url" | b"range" | b"accept-encoding");
    METHOD_HEADERS.contains(&name) || reroutes || name.starts_with(b"content-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn companion(header: &str, value: &str, merge: bool) -> Result<Companion, CompanionError> {
        Companion::compile(&CompanionSpec { header: header.into(), value: value.into(), merge })
    }

    #[test]
    fn what_could_change_the_request_or_carry_a_credential_is_refused() {
        for (header, value, why) in [
            ("Authorization", "x", CompanionError::Credential),
            ("x-api-key", "x", CompanionError::Credential),
            ("X-HTTP-Method-Override", "DELETE", CompanionError::Telling),
            ("Content-Type", "x", CompanionError::Telling),
            ("x-original-url", "/x", CompanionError::Telling),
            (":path", "/x", CompanionError::Header),
            ("x-attache-session", "x", CompanionError::Header),
            ("x-beta", "a\nb", CompanionError::Value),
            ("x-beta", " a", CompanionError::Value),
            ("x-beta", "", CompanionError::Value),
            ("x-beta", "ghp_ATTACHEz438zSqfC5v1GCjipcn64xlMQ9JHv", CompanionError::Value),
        ] {
            assert_eq!(companion(header, value, false).unwrap_err(), why, "{header}: {value:?}");
        }
        assert_eq!(companion("ChatGPT-Account-ID", "a", false).unwrap().header(), "chatgpt-account-id");
    }
}
