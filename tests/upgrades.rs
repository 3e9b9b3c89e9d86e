//! WebSocket takes a permission of its own; what the upstream sends through one is masked like a body,
//! and it is cut when its session may go on no longer.

#[path = "upgrades/masked.rs"]
mod masked;
#[path = "upgrades/permission.rs"]
mod permission;

use attache_tests::stack::{Plan, SOON};
use attache_tests::websocket::{Opened, WebSocket};
use attache_tests::{Attache, Reply, Response, Stack, Unanswered};

/// Where a WebSocket may be opened, and where not.
const CHAT: &str = "chat.extra.test";
const CALM: &str = "calm.extra.test";
/// The credential of both.
const SECRET: &str = "chat-token-0123456789-abcdefghij";

/// A gateway with these, a session that may write and one that may only read.
async fn start() -> Stack<Attache> {
    let yaml = format!(
        "{{source: {{file: chat}}, inject: bearer, agent_env: {{CHAT: placeholder}}, destinations: [\
         {{host: {CHAT}, websocket: true, access: {{graphql: {{paths: [/graphql]}}}}, upstream: DIAL}}, \
         {{host: {CALM}, access: {{graphql: {{paths: [/graphql]}}}}, upstream: DIAL}}]}}"
    );
    let plan = Plan::default().credential("chat", SECRET, &yaml);
    let plan = plan.session("{name: talks, credentials: [chat]}");
    plan.session("{name: listens, credentials: [chat], access_mode: read-only}").start().await
}

/// Asks for a WebSocket in a session's name.
async fn open(
    stack: &Stack<Attache>,
    how: Opened,
    session: &str,
    host: &str,
    path: &str,
    more: &[(&str, &str)],
) -> Result<(WebSocket, Response), Unanswered> {
    let bearer = format!("Bearer {}", stack.broker.exported(session, "CHAT"));
    let headers = [&[("authorization", bearer.as_str())][..], more].concat();
    match how {
        Opened::ByGet => WebSocket::get(stack.agent().h1(stack.proxy).await, host, path, &headers).await,
        Opened::ByConnect => WebSocket::connect(stack.agent().h2(stack.proxy).await, host, path, &headers).await,
    }
}

/// The status of an answer that opens one.
fn opens(how: Opened) -> u16 {
    match how {
        Opened::ByGet => 101,
        Opened::ByConnect => 200,
    }
}

/// An answer that opens one, says these bytes, and then returns every byte.
fn saying(pieces: &[&[u8]]) -> Reply {
    pieces.iter().fold(Reply::upgrade("websocket"), |reply, piece| reply.body(piece.to_vec()))
}

/// The reason that an answer names.
fn reason(answer: &Response) -> String {
    answer.header("x-attache-reason").unwrap_or_else(|| answer.status.to_string())
}
