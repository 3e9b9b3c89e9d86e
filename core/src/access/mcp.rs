//! The Model Context Protocol over streamable HTTP (2025-06-18): JSON-RPC with known methods.

use crate::policy::{AccessSpec, BodyRule, OperationSpec};

/// What a client asks and tells without changing anything but its own connection. (`logging/setLevel`
/// and `resources/subscribe` decide what the server sends it.)
pub const READS: [&str; 17] = [
    "initialize",
    "ping",
    "completion/complete",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "tools/call",
    "tools/list",
];

/// The rules for a server at these paths: what is in [`READS`], and calls of these tools. The end of
/// a session, a DELETE, is a write; to listen, a GET, is a read by its method.
pub fn rules(paths: &[String], tools: &[String]) -> AccessSpec {
    let body = BodyRule::JsonRpc { methods: READS.map(str::to_owned).into(), tools: tools.to_vec() };
    let read = |path: &String| OperationSpec {
        method: "POST".into(),
        path: path.clone(),
        query: Default::default(),
        no_other_query: false,
        body: Some(body.clone()),
    };
    AccessSpec { reads: paths.iter().map(read).collect(), ..AccessSpec::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Body, Operation};
    use crate::fixture::test;
    use crate::policy::AccessMode;
    use crate::refusal::Reason;
    use crate::request::Media;

    #[test]
    fn a_server_is_asked_and_only_these_tools_are_called() {
        let access = Access::compile(&rules(&["/mcp".into()], &["search".into()])).unwrap();
        let check = |method: &str, path: &str, media, body: &str| {
            let (method, path) = (method.as_bytes(), path.as_bytes());
            let operation = Operation { method, path, media, ..Operation::default() };
            access.check(AccessMode::ReadOnly, operation, || Body::Whole(body.as_bytes()))
        };
        let post = |body: &str| check("POST", "/mcp", Media::Json, body);
        for method in READS.iter().filter(|method| **method != "tools/call") {
            assert_eq!(post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)), Ok(()), "{method}");
        }
        let call = |tool: &str| {
            post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}"#))
        };
        assert_eq!((call("search"), call("create")), (Ok(()), Err(Reason::ReadOnly)));
        for method in ["sampling/createMessage", "tasks/cancel", "notifications/message", "Tools/list"] {
            let verdict = post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#));
            assert_eq!(verdict, Err(Reason::ReadOnly), "{method}");
        }
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        for (method, path, media, verdict) in [
            ("GET", "/mcp", Media::Nothing, Ok(())),
            ("DELETE", "/mcp", Media::Nothing, Err(Reason::ReadOnly)),
            ("POST", "/mcp/", Media::Json, Err(Reason::ReadOnly)),
            ("POST", "/mcp", Media::OnJson, Err(Reason::BodyUnreadable)),
            ("POST", "/mcp", Media::Other, Err(Reason::BodyUnreadable)),
            ("POST", "/mcp", Media::Form, Err(Reason::ReadOnly)),
        ] {
            assert_eq!(check(method, path, media, list), verdict, "{method} {path} {media:?}");
        }
    }
}
