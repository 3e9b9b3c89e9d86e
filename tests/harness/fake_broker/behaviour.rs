//! The ways in which an answer can be wrong.

use std::time::Duration;

use serde_json::{Value, json};

/// How an endpoint answers. For a closed port see [`super::FakeBroker::refuse`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Ok,
    /// Never; the connection stays open.
    Hang,
    /// As it should, but so much later.
    Delay(Duration),
    /// The connection is closed without a word.
    Close,
    /// It is reset.
    Reset,
    /// This status; a JSON body where one is allowed.
    Status(u16),
    /// The right answer, but under this status.
    RightUnder(u16),
    /// To another path of the same broker.
    Redirect302,
    /// 200 with a page for people.
    Html200,
    /// The right answer, but as text.
    AsText,
    /// A Content-Length larger than the body, then the connection closes.
    Truncated,
    /// The head alone, then silence.
    HeadersOnly,
    /// A head that announces so many bytes, the right answer as the first of them, then silence.
    Announced(usize),
    /// Bytes that are not HTTP, then the connection closes.
    Garbage,
    /// A header section that no proxy accepts: Envoy then reports an answer with no headers.
    ZeroHeaders,
    /// The right answer to another question.
    WrongNonce,
    /// The right answer after so many bytes of white space.
    Oversized(usize),
    /// A JSON object that names a member twice.
    DuplicateKeys,
    /// Every member of another JSON type.
    WrongType,
    /// A member that nobody knows.
    UnknownMember,
    /// A grant whose lease has no time left.
    ExpiredLease,
}

impl Behaviour {
    /// Whether it starts from the right answer, so that the right answer must be worked out.
    pub(super) fn needs_answer(self) -> bool {
        !matches!(
            self,
            Self::Hang
                | Self::Close
                | Self::Reset
                | Self::Status(_)
                | Self::Redirect302
                | Self::Html200
                | Self::Garbage
                | Self::ZeroHeaders
        )
    }

    /// The right body, made wrong.
    pub(super) fn spoil(self, mut body: Value) -> Vec<u8> {
        match self {
            Self::WrongNonce if body.get("nonce").is_some() => body["nonce"] = json!("0".repeat(32)),
            Self::ExpiredLease if body.pointer("/granted/lease").is_some() => {
                body["granted"]["lease"]["ttl_ms"] = json!(0);
            }
            Self::UnknownMember => body["no_such_member"] = json!(true),
            Self::WrongType => body = retyped(&body),
            Self::DuplicateKeys => return duplicated(&body).into_bytes(),
            _ => {}
        }
        body.to_string().into_bytes()
    }
}

fn retyped(body: &Value) -> Value {
    let members = body.as_object().cloned().unwrap_or_default();
    let other = |value: Value| match value {
        Value::String(_) => json!(1),
        Value::Number(number) => json!(number.to_string()),
        Value::Object(_) => json!([]),
        _ => json!({}),
    };
    members.into_iter().map(|(name, value)| (name, other(value))).collect()
}

fn duplicated(body: &Value) -> String {
    let text = body.to_string();
    let first = body.as_object().and_then(|members| members.iter().next());
    match first {
        Some((name, value)) => text.replacen('{', &format!("{{{}:{value},", json!(name)), 1),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoiled_answers_are_wrong_in_the_way_they_say() {
        let body = json!({"nonce": "n", "granted": {"lease": {"ttl_ms": 5}}});
        let spoiled = |behaviour: Behaviour| String::from_utf8(behaviour.spoil(body.clone())).expect("text");
        assert_eq!(spoiled(Behaviour::Ok), body.to_string());
        assert!(spoiled(Behaviour::DuplicateKeys).matches("\"granted\"").count() == 2);
        assert!(spoiled(Behaviour::WrongNonce).contains(&"0".repeat(32)));
        assert!(spoiled(Behaviour::ExpiredLease).contains("\"ttl_ms\":0"));
        assert_eq!(spoiled(Behaviour::WrongType), r#"{"granted":[],"nonce":1}"#);
        assert!(spoiled(Behaviour::UnknownMember).contains("no_such_member"));
    }
}
