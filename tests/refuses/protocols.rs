//! A session that may only read, where the method says nothing: GraphQL, JSON-RPC, gRPC, and services
//! whose reads are POSTs or whose writes are GETs.

use attache_core::refusal::Reason;
use attache_tests::stack::Plan;
use attache_tests::table::{Promise, Row};
use attache_tests::{Attache, Spelled, Stack};

use crate::tokens::refused;

const WRITES: Promise = refused(Reason::ReadOnly);
const UNREADABLE: Promise = refused(Reason::BodyUnreadable);
const TOO_LARGE: Promise = refused(Reason::BodyTooLarge);
const SERVED: Promise = Promise::Served;
const JSON: &str = "application/json";

/// The credentials, each with the rules of its host.
const PLACES: [(&str, &str); 4] = [
    (
        "speaks",
        "{git: [/git/*], graphql: {paths: [/graphql]}, grpc: [shop.v1.Stock/Get, shop.v1.Prices/*], \
         mcp: {paths: [/mcp], tools: [search]}, \
         reads: [{method: POST, path: /rpc, body: {json_rpc: {methods: [eth_call]}}}]}",
    ),
    ("searches", "{like: [elasticsearch, npm, webdav]}"),
    ("stores", "{like: [s3]}"),
    ("chats", "{like: [slack]}"),
];

/// A plan with these, and one session that may use them all to read.
pub fn plan() -> Plan {
    let named = |plan: Plan, (name, access): &(&str, &str)| {
        let variable = name.to_uppercase();
        let yaml = format!(
            "{{source: {{file: {name}}}, inject: bearer, agent_env: {{{variable}: placeholder}}, \
             destinations: [{{host: {name}.extra.test, access: {access}, upstream: DIAL}}]}}"
        );
        plan.credential(name, &format!("the-real-secret-of-what-{name}-1234567890"), &yaml)
    };
    let names = PLACES.map(|(name, _)| name).join(", ");
    let plan = PLACES.iter().fold(Plan::default(), named);
    plan.session(&format!("{{name: asks, credentials: [{names}], access_mode: read-only}}"))
}

pub fn rows(stack: &Stack<Attache>, limit: usize) -> Vec<Row> {
    let to = |name: &str, method: &str, target: &str| {
        let token = stack.broker.exported("asks", &name.to_uppercase());
        Spelled::get(format!("{name}.extra.test"), target).method(method).bearer(&token)
    };
    let speak =
        |target: &str, media: &str, body: &[u8]| to("speaks", "POST", target).line("content-type", media).body(body);
    let mut rows = Vec::new();
    let mut add = |name: String, request, promise| rows.push(Row::new(name, request, promise).carrying("speaks"));
    for (media, body, promise) in documents(limit) {
        let name = format!("GraphQL {media} {:.60}", body.escape_ascii().to_string());
        add(name, speak("/graphql", media, &body), promise);
    }
    let mutation = br#"{"query":"mutation{a}"}"#;
    let query = br#"{"query":"{a}"}"#;
    for (target, promise) in [
        ("/graphql?query=mutation%7Ba%7D", WRITES),
        ("/graphql?operationName=M", WRITES),
        ("/graphql/", WRITES),
        ("/GraphQL", WRITES),
        ("/graph%71l", SERVED),
        ("/x/../graphql", SERVED),
        ("//graphql", SERVED),
    ] {
        add(format!("GraphQL at {target}"), speak(target, JSON, query), promise);
        let writes = if let Promise::Served = promise { WRITES } else { promise };
        add(format!("GraphQL at {target}, a mutation"), speak(target, JSON, mutation), writes);
    }
    let compressed = speak("/graphql", JSON, query).line("content-encoding", "gzip");
    add("GraphQL compressed".into(), compressed, UNREADABLE);
    add("GraphQL of no type".into(), to("speaks", "POST", "/graphql").body(query), WRITES);
    add("GraphQL by PUT".into(), speak("/graphql", JSON, query).method("PUT"), WRITES);
    for (target, promise) in [
        ("/graphql", SERVED),
        ("/graphql?query=%7Ba%7D", SERVED),
        ("/graphql?query=query+Q%7Ba%7D+mutation+M%7Bb%7D&operationName=Q", SERVED),
        ("/graphql?query=query+Q%7Ba%7D+mutation+M%7Bb%7D&operationName=M", WRITES),
        ("/graphql?query=mutation%7Ba%7D", WRITES),
        ("/graphql?query=%7Ba%7D&query=mutation%7Ba%7D", WRITES),
        ("/graphql?query=%7Ba%7D;query=mutation%7Ba%7D", WRITES),
        ("/graphql?id=7", WRITES),
        ("/graphql?extensions=%7B%22persistedQuery%22:%7B%7D%7D", WRITES),
        ("/graphql/?query=mutation%7Ba%7D", WRITES),
        ("/GRAPHQL?query=mutation%7Ba%7D", WRITES),
    ] {
        add(format!("GraphQL GET {target}"), to("speaks", "GET", target), promise);
    }
    let both = to("speaks", "GET", "/graphql?query=%7Ba%7D").line("content-type", JSON).body(mutation);
    add("GraphQL GET with a body".into(), both, WRITES);

    for (target, body, promise) in [
        ("/rpc", r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}"#, SERVED),
        ("/rpc", r#"{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":[]}"#, WRITES),
        ("/rpc", r#"[{"jsonrpc":"2.0","id":1,"method":"eth_call"},{"jsonrpc":"2.0","id":2,"method":"x"}]"#, WRITES),
        ("/rpc", r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","method":"x"}"#, UNREADABLE),
        ("/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#, SERVED),
        ("/mcp", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, SERVED),
        ("/mcp", r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#, SERVED),
        ("/mcp", r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"search"}}"#, SERVED),
        ("/mcp", r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"delete"}}"#, WRITES),
        ("/mcp", r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"search","name":"x"}}"#, UNREADABLE),
    ] {
        add(format!("JSON-RPC {target} {body}"), speak(target, JSON, body.as_bytes()), promise);
    }
    add("MCP, to listen".into(), to("speaks", "GET", "/mcp").line("accept", "text/event-stream"), SERVED);
    add("MCP, to end a session".into(), to("speaks", "DELETE", "/mcp"), WRITES);

    for (target, media, promise) in [
        ("/shop.v1.Stock/Get", "application/grpc", SERVED),
        ("/shop.v1.Prices/List", "application/grpc+proto", SERVED),
        ("/shop.v1.Stock/Get", "application/grpc-web+proto", WRITES),
        ("/shop.v1.Stock/Get", JSON, WRITES),
    ] {
        add(format!("gRPC {target} {media}"), speak(target, media, b"\0\0\0\0\0"), promise);
    }
    for (method, target, promise) in [
        ("POST", "/git/r/git-upload-pack", SERVED),
        ("GET", "/git/r/info/refs?service=git-upload-pack", SERVED),
        ("GET", "/git/r/info/refs?service=git-receive-pack", WRITES),
        ("GET", "/elsewhere/r/info/refs?service=git-receive-pack", WRITES),
        ("POST", "/git/r/git-receive-pack", WRITES),
        ("POST", "/$batch", WRITES),
        ("POST", "/batch", WRITES),
        ("PROPFIND", "/", WRITES),
        ("QUERY", "/", WRITES),
    ] {
        let request = to("speaks", method, target).line("content-type", "application/x-git-upload-pack-request");
        add(format!("{method} {target}"), request, promise);
    }
    for (place, method, target, promise) in [
        ("searches", "POST", "/logs/_search", SERVED),
        ("searches", "POST", "/_bulk", WRITES),
        ("searches", "GET", "/logs/_refresh", WRITES),
        ("searches", "POST", "/-/npm/v1/security/advisories/bulk", SERVED),
        ("searches", "PROPFIND", "/dav/", SERVED),
        ("searches", "PROPPATCH", "/dav/", WRITES),
        ("stores", "POST", "/b/k?select&select-type=2", SERVED),
        ("stores", "POST", "/b?delete", WRITES),
        ("stores", "POST", "/b/k?select&select-type=2&delete", WRITES),
        ("chats", "GET", "/api/conversations.history?channel=C", SERVED),
        ("chats", "GET", "/api/chat.postMessage?channel=C&text=x", WRITES),
    ] {
        let request = to(place, method, target).line("content-type", JSON).body("{}");
        rows.push(Row::new(format!("{place} {method} {target}"), request, promise).carrying(place));
    }
    rows
}

/// Calls of gRPC that write, or that are none to the letter. Envoy answers them in gRPC.
pub const GRPC_WRITES: [(&str, &str); 5] = [
    ("/shop.v1.Stock/Set", "application/grpc"),
    ("/shop.v1.Stock/Set", "application/grpc+proto"),
    ("/shop.v1.Stock/Get/", "application/grpc"),
    ("/shop.v1.stock/Get", "application/grpc"),
    ("/shop.v1.Stock/Get?x=1", "application/grpc"),
];

/// Bodies at the endpoint, each announced as something.
fn documents(limit: usize) -> Vec<(&'static str, Vec<u8>, Promise)> {
    let padded = |total: usize| {
        let body = r#"{"query":"{a}"}"#;
        format!("{}{body}", " ".repeat(total - body.len())).into_bytes()
    };
    let nested = |depth: usize| format!(r#"{{"query":"{}{}"}}"#, "{a".repeat(depth), "}".repeat(depth)).into_bytes();
    let texts = [
        (JSON, r#"{"query":"{a}"}"#, SERVED),
        (JSON, r#"{"query":"query Q{a} mutation M{b}","operationName":"Q"}"#, SERVED),
        (JSON, r#"[{"query":"{a}"},{"query":"{b: mutation}"}]"#, SERVED),
        (JSON, r##"{"query":"# mutation\n{a}"}"##, SERVED),
        (JSON, r#"{"query":"mutation{a}"}"#, WRITES),
        (JSON, r#"{"query":"query Q{a} mutation M{b}","operationName":"M"}"#, WRITES),
        (JSON, r#"[{"query":"{a}"},{"query":"mutation{a}"}]"#, WRITES),
        (JSON, r##"{"query":"# {a}\nmutation{a}"}"##, WRITES),
        (JSON, r#"{"query":"subscription{a}"}"#, WRITES),
        (JSON, r#"{"query":"{a}","query":"mutation{a}"}"#, UNREADABLE),
        (JSON, r#"{"query":"query Q{a} mutation M{b}"}"#, UNREADABLE),
        (JSON, r##"{"query":"{a} #\rmutation{b}"}"##, UNREADABLE),
        (JSON, r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}"#, UNREADABLE),
        (JSON, r#"{"id":"7"}"#, UNREADABLE),
        (JSON, "\u{feff}{\"query\":\"{a}\"}", UNREADABLE),
        (JSON, "", UNREADABLE),
        ("application/json; charset=utf-8", r#"{"query":"{a}"}"#, SERVED),
        ("application/json; charset=utf-7", r#"{"query":"{a}"}"#, UNREADABLE),
        ("application/graphql", "{a}", SERVED),
        ("application/graphql", "mutation{a}", WRITES),
        ("application/graphql+json", r#"{"query":"{a}"}"#, SERVED),
        ("application/vnd.api+json", r#"{"query":"{a}"}"#, UNREADABLE),
        ("text/plain", r#"{"query":"{a}"}"#, UNREADABLE),
        ("application/x-www-form-urlencoded", "query=%7Ba%7D", WRITES),
        ("multipart/form-data; boundary=x", "--x--", WRITES),
    ];
    let mut rows: Vec<_> = texts.map(|(media, body, promise)| (media, body.as_bytes().to_vec(), promise)).into();
    rows.extend([
        (JSON, padded(limit), SERVED),
        (JSON, padded(limit + 1), TOO_LARGE),
        // The parser's own depth is bounded: no stack of a VM overflows, and the next row is served.
        (JSON, nested(40), SERVED),
        (JSON, nested(5_000), UNREADABLE),
        (JSON, format!(r#"{{"query":"{{a(x:{}"}}"#, "[".repeat(12_000)).into_bytes(), UNREADABLE),
        (JSON, format!("{}1{}", "[".repeat(8_000), "]".repeat(8_000)).into_bytes(), UNREADABLE),
        (JSON, r#"{"query":"{a}"}"#.into(), SERVED),
    ]);
    rows
}
