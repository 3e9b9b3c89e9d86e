//! JSON-RPC 2.0, and the one call of MCP whose method does not say what it does.

use super::envelope;
use crate::object::Object;
use crate::refusal::Reason;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// The method that names a tool in its parameters (MCP, "Tools", "Calling Tools").
const CALLS_A_TOOL: &str = "tools/call";

/// One message, with no member that the specification does not know (JSON-RPC 2.0, 4 and 5).
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    jsonrpc: String,
    #[serde(default, deserialize_with = "some")]
    id: Option<Id>,
    method: Option<String>,
    #[serde(default, deserialize_with = "some")]
    params: Option<Params>,
    #[serde(default, deserialize_with = "some")]
    result: Option<Object<Nothing>>,
    error: Option<Object<IgnoredMembers>>,
}

/// What tells a call from its answer.
#[derive(serde::Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its form counts")]
enum Id {
    Text(String),
    Number(serde_json::Number),
}

/// An object without members.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// An object with any.
struct IgnoredMembers;

/// The parameters, of which only one is of interest.
enum Params {
    List,
    Object { name: Option<String> },
}

/// Whether all messages of a body call what is on these lists. An answer to the server's own call
/// passes if it says nothing: that all is well, or that there is none.
pub(super) fn all_are_among(body: &[u8], methods: &[String], tools: &[String]) -> Result<bool, Reason> {
    let mut all = true;
    for message in envelope::calls::<Message>(body)? {
        all &= message.is_among(methods, tools).ok_or(Reason::BodyUnreadable)?;
    }
    Ok(all)
}

impl Message {
    /// `None` for what is no message.
    fn is_among(&self, methods: &[String], tools: &[String]) -> Option<bool> {
        let Self { jsonrpc, id, method, params, result, error } = self;
        if jsonrpc != "2.0" {
            return None;
        }
        match (method, result, error) {
            (Some(method), None, None) if method == CALLS_A_TOOL => match params {
                Some(Params::Object { name: Some(name) }) => Some(methods.contains(method) && tools.contains(name)),
                _ => None,
            },
            (Some(method), None, None) => Some(methods.contains(method)),
            (None, Some(_), None) | (None, None, Some(_)) => id.as_ref().filter(|_| params.is_none()).map(|_| true),
            _ => None,
        }
    }
}

/// A member that, if it stands there, is no `null`.
fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for IgnoredMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| IgnoredMembers)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParamsVisitor)
    }
}

struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Params;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Params, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Params::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Params, A::Error> {
        Ok(Params::Object { name: envelope::text_of(map, "name")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    const OK: Result<bool, Reason> = Ok(true);
    const OTHER: Result<bool, Reason> = Ok(false);
    const UNREADABLE: Result<bool, Reason> = Err(Reason::BodyUnreadable);

    #[test]
    fn every_message_must_be_on_the_list() {
        let methods = ["eth_call", "tools/list", "tools/call", "notifications/initialized"].map(str::to_owned);
        let tools = ["search", "get_issue"].map(str::to_owned);
        let check = |body: &str| all_are_among(body.as_bytes(), &methods, &tools);
        for (body, verdict) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[{"name":"x"},"latest"]}"#, OK),
            (r#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#, OK),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, OK),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"name":"delete"}}}"#,
                OK,
            ),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"eth_call"},{"jsonrpc":"2.0","id":2,"method":"tools/list"}]"#, OK),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction"}"#, OTHER),
            (r#"{"jsonrpc":"2.0","method":"eth_sendRawTransaction"}"#, OTHER),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ETH_call"}"#, OTHER),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call "}"#, OTHER),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_repo"}}"#, OTHER),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"d\u0065lete_repo"}}"#, OTHER),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"delete_repo"}}"#, OTHER),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"eth_call"},{"jsonrpc":"2.0","id":2,"method":"x"}]"#, OTHER),
            // Answers to the server: `{}` to a ping, an error to whatever else it asks.
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, OK),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#, OK),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"action":"accept","content":{}}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","result":{}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"method":"eth_call"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"params":[]}"#, UNREADABLE),
            // No message, or one that servers could read in two ways.
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","name":"x"}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","Name":"x"}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","ſame":"x"}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["search"]}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["search"]}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","method":"x"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","Method":"x"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":null}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":"x"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":null,"method":"eth_call"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":{},"method":"eth_call"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":["eth_call"]}"#, UNREADABLE),
            (r#"{"jsonrpc":"1.0","id":1,"method":"eth_call"}"#, UNREADABLE),
            (r#"{"id":1,"method":"eth_call"}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1}"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","auth":"x"}"#, UNREADABLE),
            (r#"["2.0",1,"eth_call"]"#, UNREADABLE),
            (r#"[["2.0",1,"eth_call"]]"#, UNREADABLE),
            (r#"{"jsonrpc":"2.0","method":"eth_call"}{"jsonrpc":"2.0","method":"x"}"#, UNREADABLE),
            ("[]", UNREADABLE),
            ("", UNREADABLE),
        ] {
            assert_eq!(check(body), verdict, "{body}");
        }
        let no_tool = |body: &str| all_are_among(body.as_bytes(), &methods, &[]);
        assert_eq!(no_tool(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#), OTHER);
        let no_method = |body: &str| all_are_among(body.as_bytes(), &[], &tools);
        assert_eq!(no_method(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#), OTHER);
    }
}
