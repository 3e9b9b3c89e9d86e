//! What a request may not be: one table of attacks, each over HTTP/1 and HTTP/2, each with its
//! status, its reason, its record, and nothing upstream.

#[path = "refuses/access.rs"]
mod access;
#[path = "refuses/destination.rs"]
mod destination;
#[path = "refuses/method.rs"]
mod method;
#[path = "refuses/path.rs"]
mod path;
#[path = "refuses/placeholder.rs"]
mod placeholder;
#[path = "refuses/protocols.rs"]
mod protocols;
#[path = "refuses/tokens.rs"]
mod tokens;

use attache_core::refusal::Reason;
use attache_tests::Spelled;
use attache_tests::stack::Plan;
use attache_tests::table::{self, Row};

use crate::tokens::{Tokens, refused};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_may_not_be() {
    let limit = format!("body_limit: '{}'", access::LIMIT);
    let stack = Plan::default().limit(&limit).edit(table::without_lingering).start().await;
    let tokens = Tokens::of(&stack);
    let tables = [destination::rows, path::rows, method::rows, placeholder::rows, access::rows];
    let rows = tables.into_iter().flat_map(|rows| rows(&tokens)).collect();
    table::hold(&stack, rows).await.is_witnessed(&stack).await;
}

/// Where the method does not tell what a request does, what is asked does.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_may_not_ask_in_other_protocols() {
    let limit = format!("body_limit: '{}'", access::LIMIT);
    let stack = protocols::plan().limit(&limit).edit(table::without_lingering).start().await;
    let rows = protocols::rows(&stack, access::LIMIT);
    table::hold(&stack, rows).await.is_witnessed(&stack).await;
}

/// A client of gRPC looks for `grpc-status`, and takes any other answer for a broken server.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_grpc_is_refused_in_grpc() {
    let stack = protocols::plan().start().await;
    let bearer = format!("Bearer {}", stack.broker.exported("asks", "SPEAKS"));
    let call = async |target: &str, media: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", media), ("te", "trailers")];
        let mut agent = stack.agent().h2(stack.proxy).await;
        agent.request("POST", "speaks.extra.test", target, &headers, b"\0\0\0\0\0").await.expect("an answer")
    };
    for (target, media) in protocols::GRPC_WRITES {
        let answer = call(target, media).await;
        let said = ["grpc-status", "x-attache-reason"].map(|name| answer.header(name));
        assert_eq!(said, [Some("7".to_owned()), Some("read_only".to_owned())], "{target} {media}");
    }
    assert!(stack.upstream().requests().is_empty(), "a refused call arrived");
    assert_eq!(call("/shop.v1.Stock/Get", "application/grpc").await.status, 200);
    stack.reconcile().await;
}

/// Where hosts that no destination names may pass, a placeholder still may not: whoever answers
/// there would learn it.
#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_passes_to_no_unmanaged_host() {
    let stack = Plan::default().extra("unmatched: pass\n").edit(table::without_lingering).start().await;
    let writer = Tokens::of(&stack).writer;
    let to = |target: &str| Spelled::get("elsewhere.test", target);
    let basic = placeholder::basic("x", &writer.github);
    let escaped = writer.github.replacen("ATTACHE", "%41TTACHE", 1);
    let misplaced = [
        ("as Bearer", to("/").bearer(&writer.github)),
        ("as Basic", to("/").line("authorization", &basic)),
        ("as Basic to a proxy", to("/").line("proxy-authorization", &basic)),
        ("as a cookie", to("/").line("cookie", format!("a={}", writer.custom))),
        ("in its own header", to("/").line("x-custom-key", &writer.custom)),
        ("in a header of no meaning", to("/").line("x-note", &writer.query)),
        ("in the path", to(&format!("/{}", writer.github))),
        ("in the query", to(&format!("/?key={}", writer.query))),
        ("in the query, escaped", to(&format!("/?key={escaped}"))),
        ("as a session", to("/").line("x-attache-session", &writer.token)),
        ("made up", to("/").bearer("ATTACHE")),
    ];
    let rows = misplaced.map(|(name, request)| Row::new(name, request, refused(Reason::PlaceholderMisplaced)));
    table::hold(&stack, rows.into()).await.is_witnessed(&stack).await;
}
