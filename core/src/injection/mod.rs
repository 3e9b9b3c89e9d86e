//! How a credential enters a request. One kind, one file, one line in [`Injection::render`].
//!
//! Rendering happens in the broker; the filter gets a finished header or query value and never
//! builds one. A secret that could break out of its position is refused when it is loaded.

mod basic;
pub(crate) mod header;
pub(crate) mod query;
mod scheme;

use crate::policy::Carrier;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};

/// What a config may write under `inject`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Injection {
    /// `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `Authorization: token SECRET` (GitHub's older form).
    Token,
    /// `Authorization: Basic base64(USERNAME:SECRET)` (RFC 7617).
    Basic {
        /// The user name; no colon in it.
        username: String,
    },
    /// `NAME: FORMAT`, where `{}` in the format stands for the secret.
    Header {
        /// The header's name.
        name: String,
        /// The value's format; `{}` alone by default.
        #[serde(default = "header::bare")]
        format: String,
    },
    /// `?NAME=SECRET`, percent-encoded.
    Query {
        /// The parameter's name.
        name: String,
    },
}

/// A finished change to a request.
pub struct Rendered {
    /// Where it goes.
    pub carrier: Carrier,
    /// What goes there, the secret in it.
    pub value: Secret,
}

/// Why a secret cannot be injected this way, or an injection makes no sense. Names no byte of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InjectionError {
    /// Nothing to inject.
    #[error("the secret is empty")]
    Empty,
    /// CR, LF, NUL, another control character or something outside ASCII.
    #[error("the secret holds a character that no header value may hold (control, line break or not ASCII)")]
    Unprintable,
    /// White space at either end, which an upstream would cut off.
    #[error("the secret begins or ends with white space; write the file without it (a final line break is fine)")]
    Untrimmed,
    /// A placeholder where the secret should be.
    #[error(
        "this is a placeholder of attache, not a secret: was `attache session env` evaluated in the broker's shell?"
    )]
    Placeholder,
    /// A user name with a colon, or not printable ASCII.
    #[error("a Basic user name is printable ASCII without a colon (RFC 7617)")]
    BadUsername,
    /// Not a header name, or one that Envoy or this filter owns.
    #[error("not a header that can carry a credential")]
    BadHeader,
    /// No or more than one `{}`, or unprintable text around it.
    #[error("a format is printable ASCII with exactly one {{}}")]
    BadFormat,
    /// Not a plain parameter name.
    #[error("a query parameter's name is made of letters, digits, '-', '_' and '.'")]
    BadParameter,
}

impl Injection {
    /// Checks what the config wrote, without a secret at hand.
    pub fn check(&self) -> Result<(), InjectionError> {
        self.render(&Secret::new("x")).map(|_| ())
    }

    /// Where the credential stands in a request.
    pub fn carrier(&self) -> Carrier {
        match self {
            Injection::Bearer | Injection::Token | Injection::Basic { .. } => Carrier::Header("authorization".into()),
            Injection::Header { name, .. } => Carrier::Header(name.to_ascii_lowercase()),
            Injection::Query { name } => Carrier::Query(name.clone()),
        }
    }

    /// What it makes of a request, for people: `…` stands for the secret.
    pub fn outline(&self) -> String {
        match self {
            Injection::Bearer => "Authorization: Bearer …".into(),
            Injection::Token => "Authorization: token …".into(),
            Injection::Basic { username } => format!("Authorization: Basic base64({username}:…)"),
            Injection::Header { name, format } => format!("{name}: {}", format.replacen("{}", "…", 1)),
            Injection::Query { name } => format!("?{name}=…"),
        }
    }

    /// Encodes the secret for its position.
    pub fn render(&self, secret: &Secret) -> Result<Rendered, InjectionError> {
        check_secret(secret)?;
        let value = match self {
            Injection::Bearer => scheme::render("Bearer", secret),
            Injection::Token => scheme::render("token", secret),
            Injection::Basic { username } => basic::render(username, secret)?,
            Injection::Header { name, format } => header::render(name, format, secret)?,
            Injection::Query { name } => query::render(name, secret)?,
        };
        Ok(Rendered { carrier: self.carrier(), value })
    }
}

/// What every secret must satisfy, whatever its position: visible ASCII, spaces inside only.
pub fn check_secret(secret: &Secret) -> Result<(), InjectionError> {
    // Exposed to look at its characters; errors name none of them.
    let text = secret.expose();
    if text.is_empty() {
        return Err(InjectionError::Empty);
    }
    if !text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(InjectionError::Unprintable);
    }
    if text.trim() != text {
        return Err(InjectionError::Untrimmed);
    }
    if crate::placeholder::find(text.as_bytes()).any(|token| token.len() >= crate::placeholder::MIN_LEN) {
        return Err(InjectionError::Placeholder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn rendered(injection: Injection, secret: &str) -> Result<String, InjectionError> {
        injection.render(&Secret::new(secret)).map(|r| r.value.expose().to_owned())
    }

    #[test]
    fn each_kind_encodes_for_its_position() {
        let header = |format: &str| Injection::Header { name: "X-Key".into(), format: format.into() };
        for (injection, value) in [
            (Injection::Bearer, "Bearer a&b:c#d"),
            (Injection::Token, "token a&b:c#d"),
            // RFC 7617 section 2 gives the construction.
            (Injection::Basic { username: "x-access-token".into() }, "Basic eC1hY2Nlc3MtdG9rZW46YSZiOmMjZA=="),
            (header("{}"), "a&b:c#d"),
            (header("Token token={}"), "Token token=a&b:c#d"),
            (Injection::Query { name: "key".into() }, "a%26b%3Ac%23d"),
        ] {
            assert_eq!(rendered(injection.clone(), "a&b:c#d").as_deref(), Ok(value), "{injection:?}");
        }
    }

    #[test]
    fn an_outline_is_the_rendering_without_the_secret() {
        let header = |format: &str| Injection::Header { name: "x-key".into(), format: format.into() };
        for injection in [Injection::Bearer, Injection::Token, header("{}"), header("Token token={}")] {
            let outline = injection.outline().to_lowercase();
            let Carrier::Header(name) = injection.carrier() else { panic!("{outline}") };
            let value = rendered(injection, "s3cret").unwrap().to_lowercase();
            assert_eq!(outline.replace('…', "s3cret"), format!("{name}: {value}"));
        }
        assert_eq!(Injection::Query { name: "key".into() }.outline(), "?key=…");
        assert_eq!(Injection::Basic { username: "me".into() }.outline(), "Authorization: Basic base64(me:…)");
    }

    #[test]
    fn secrets_that_break_out_are_refused() {
        for (secret, why) in [
            ("", InjectionError::Empty),
            ("a\r\nx: y", InjectionError::Unprintable),
            ("a\0", InjectionError::Unprintable),
            ("é", InjectionError::Unprintable),
            ("a ", InjectionError::Untrimmed),
            ("ghp_ATTACHE0123456789abcdefghijklmnopq", InjectionError::Placeholder),
        ] {
            assert_eq!(rendered(Injection::Bearer, secret), Err(why), "{secret:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_without_a_secret() {
        let header = |name: &str, format: &str| Injection::Header { name: name.into(), format: format.into() };
        for (injection, why) in [
            (Injection::Basic { username: "a:b".into() }, InjectionError::BadUsername),
            (Injection::Basic { username: "a\nb".into() }, InjectionError::BadUsername),
            (Injection::Basic { username: "\u{e9}a".into() }, InjectionError::BadUsername),
            (header(":path", "{}"), InjectionError::BadHeader),
            (header("Host", "{}"), InjectionError::BadHeader),
            (header("x-attache-session", "{}"), InjectionError::BadHeader),
            (header("x y", "{}"), InjectionError::BadHeader),
            (header("x", "none"), InjectionError::BadFormat),
            (header("x", "{}{}"), InjectionError::BadFormat),
            (header("x", "{}\n"), InjectionError::BadFormat),
            (Injection::Query { name: "a&b".into() }, InjectionError::BadParameter),
        ] {
            assert_eq!(injection.check(), Err(why), "{injection:?}");
        }
    }

    #[test]
    fn a_config_names_a_kind_by_one_word() {
        let parse = |text: &str| serde_json::from_str::<Injection>(text).ok();
        assert_eq!(parse(r#""bearer""#), Some(Injection::Bearer));
        assert_eq!(
            parse(r#"{"header":{"name":"X-API-Key"}}"#),
            Some(Injection::Header { name: "X-API-Key".into(), format: "{}".into() })
        );
        assert_eq!(parse(r#""sign""#), None);
    }
}
