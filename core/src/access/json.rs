//! The one telling member of a JSON object (git LFS batch: `operation`).

use super::envelope;
use crate::refusal::Reason;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use std::fmt;

/// Whether the object's top-level `member` is one of `any_of`. Anything that two parsers could
/// read differently is unreadable: a repeated member, trailing text, something other than text.
pub(super) fn member_is_one_of(body: &[u8], member: &str, any_of: &[String]) -> Result<bool, Reason> {
    if !envelope::is_text(body) {
        return Err(Reason::BodyUnreadable);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let text = reader.deserialize_map(OneMember(member)).map_err(|_| Reason::BodyUnreadable)?;
    reader.end().map_err(|_| Reason::BodyUnreadable)?;
    Ok(any_of.contains(&text))
}

struct OneMember<'a>(&'a str);

impl<'de> Visitor<'de> for OneMember<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with one text member `{}`", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<String, A::Error> {
        envelope::text_of(map, self.0)?.ok_or_else(|| serde::de::Error::custom("no such text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn only_an_unambiguous_body_is_read() {
        let check = |body: &str| member_is_one_of(body.as_bytes(), "operation", &["download".to_owned()]);
        assert_eq!(check(r#"{"objects":[{"operation":"upload"}],"operation":"download"}"#), Ok(true));
        assert_eq!(check(r#"{"operation":"download"}"#), Ok(true));
        assert_eq!(check(r#"{"operation":"upload"}"#), Ok(false));
        for body in [
            "",
            "[]",
            "{}",
            "{\"operation\":1}",
            r#"{"operation":"download","operation":"upload"}"#,
            r#"{"operation":"download","Operation":"upload"}"#,
            r#"{"operation":"download"} {"operation":"upload"}"#,
            "\x1f\u{8b}",
            "{\"operation\":\"download\",\"operat\u{131}on\":\"upload\"}",
        ] {
            assert_eq!(check(body), Err(Reason::BodyUnreadable), "{body}");
        }
        let skipped = b"{\"note\":\"\xc0\xa2\",\"operation\":\"download\"}";
        let no_text = member_is_one_of(skipped, "operation", &["download".to_owned()]);
        assert_eq!(no_text, Err(Reason::BodyUnreadable));
    }
}
