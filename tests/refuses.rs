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

use attache_tests::stack::Plan;
use attache_tests::table;

use crate::tokens::Tokens;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_may_not_be() {
    let limit = format!("body_limit: '{}'", access::LIMIT);
    let stack = Plan::default().limit(&limit).edit(table::without_lingering).start().await;
    let tokens = Tokens::of(&stack);
    let tables = [destination::rows, path::rows, method::rows, placeholder::rows, access::rows];
    let rows = tables.into_iter().flat_map(|rows| rows(&tokens)).collect();
    table::hold(&stack, rows).await.is_witnessed(&stack).await;
}
