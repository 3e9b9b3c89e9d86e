//! JSON bodies of calls: one object, or a list of them, that every parser reads alike; and one member of
//! an object whose others are not looked at.
//!
//! serde's own structs would take a list for an object, by position; these take objects only.
//! Together with `deny_unknown_fields`, which also refuses a member that stands twice, what is read
//! here says the same to a server that folds case, takes the first of two members, or the last.

use crate::object::Object;
use crate::refusal::Reason;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// Whether a body is text (RFC 8259, 8.1). In what is skipped serde looks for no more than quotes, where a lax
/// decoder of UTF-8 may see other ones (`\xc0\xa2`).
pub(super) fn is_text(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok()
}

/// All calls of a body: at least one. Anything else is unreadable.
pub(super) fn calls<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<Vec<T>, Reason> {
    if !is_text(body) {
        return Err(Reason::BodyUnreadable);
    }
    let calls: Calls<T> = serde_json::from_slice(body).map_err(|_| Reason::BodyUnreadable)?;
    if calls.0.is_empty() { Err(Reason::BodyUnreadable) } else { Ok(calls.0) }
}

/// What one member of an object says, if it stands there and is a text. The other members are skipped,
/// but none of them may stand there twice, in any case: servers that fold case would take `Operation`
/// for `operation`. Some fold more than ASCII, and some end a name at a NUL, so a name of anything but printable ASCII
/// says nothing that is certain.
pub(super) fn text_of<'de, A: MapAccess<'de>>(mut map: A, member: &str) -> Result<Option<String>, A::Error> {
    let (mut found, mut seen) = (None, HashSet::new());
    while let Some(key) = map.next_key::<String>()? {
        if key == member {
            found = map.next_value::<serde_json::Value>()?.as_str().map(str::to_owned);
        } else {
            map.next_value::<IgnoredAny>()?;
        }
        if !key.bytes().all(|b| matches!(b, b' '..=b'~')) || !seen.insert(key.to_ascii_lowercase()) {
            return Err(A::Error::custom("ambiguous member"));
        }
    }
    Ok(found)
}

struct Calls<T>(Vec<T>);

struct CallsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Calls<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CallsVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for CallsVisitor<T> {
    type Value = Calls<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|call| Calls(vec![call]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut calls = Vec::new();
        while let Some(Object(call)) = list.next_element()? {
            calls.push(call);
        }
        Ok(Calls(calls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Note {
        name: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Call {
        name: String,
        note: Option<Object<Note>>,
    }

    #[test]
    fn bytes_that_are_no_text_are_no_call_even_where_nobody_looks() {
        let body = |inner: &[u8]| [br#"{"name":"a","note":{"name":"b","other":""#, inner, br#""}}"#].concat();
        assert!(calls::<Call>(&body("\u{e9}".as_bytes())).is_ok());
        for inner in [&b"\xc0\xa2"[..], b"\xff", b"\xc3", b"\xed\xa0\x80"] {
            assert_eq!(calls::<Call>(&body(inner)).map(|calls| calls.len()), Err(Reason::BodyUnreadable), "{inner:?}");
        }
    }

    #[test]
    fn a_call_is_an_object_that_reads_in_one_way() {
        for (body, names) in [
            (r#"{"name":"a"}"#, Some("a")),
            (r#" [{"name":"a","note":null},{"name":"b","note":{"name":"c"}}] "#, Some("ab")),
            ("[]", None),
            (r#"["a"]"#, None),
            (r#"[["a"]]"#, None),
            (r#"{"name":"a","note":["c"]}"#, None),
            (r#"{"name":"a","name":"b"}"#, None),
            (r#"{"name":"a","Name":"b"}"#, None),
            (r#"{"name":"a"}{"name":"b"}"#, None),
            (r#"{"name":"\ud800"}"#, None),
            ("\u{feff}{\"name\":\"a\"}", None),
            ("null", None),
            ("", None),
        ] {
            let read = calls::<Call>(body.as_bytes());
            let read = read.ok().map(|calls| calls.into_iter().map(|call| call.name).collect::<String>());
            assert_eq!(read.as_deref(), names, "{body}");
        }
        let noted = calls::<Call>(br#"{"name":"a","note":{"name":"c"}}"#).unwrap().remove(0);
        assert_eq!(noted.note.unwrap().0.name, "c");
    }
}
