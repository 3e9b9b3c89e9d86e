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
