//! Test builds only: traps in a callback that a request names in `x-attache-trap`, or that the
//! plugin is configured to trap in; or has Envoy fail to do something a few times.

use crate::host::{self, Map};
use attache_core::worker::Grant;
use std::cell::Cell;

thread_local! {
    static ARMED: Cell<Option<&'static str>> = const { Cell::new(None) };
    static FAILING: Cell<(&'static str, u32)> = const { Cell::new(("", 0)) };
}

/// What can fail, how a request says so, and how often it then does.
const FAILING_CALLS: [(&str, &[u8], u32); 4] = [
    ("end", b"fail_end", 3),
    ("end", b"fail_end_for_ever", u32::MAX),
    ("wake", b"fail_wake", 3),
    ("set", b"tamper", 1),
];

/// Callbacks that trap at their next turn, whoever's it is: some belong to no request, and by the
/// time a body comes its request's head is out of reach.
const LATER: [&str; 11] = [
    "context_create",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
    "delete",
    "tick",
    "http_call_response",
    "judge_request_body",
    "judge_request_trailers",
];

/// Traps if the request names this callback, or one before it did; arms the ones that come later.
pub fn spring(callback: &str) {
    spring_later(callback);
    let Ok(Some(wanted)) = host::header(Map::Request, "x-attache-trap") else { return };
    if let Some(later) = LATER.iter().find(|name| name.as_bytes() == wanted) {
        ARMED.set(Some(later));
    }
    if let Some((call, _, times)) = FAILING_CALLS.iter().find(|(_, word, _)| *word == wanted) {
        FAILING.set((call, *times));
    }
    if wanted == callback.as_bytes() {
        std::process::abort();
    }
}

/// Fails if a request has asked for that, and has not got it often enough.
pub fn fail(call: &str) -> host::Result<()> {
    match FAILING.get() {
        (failing, left) if failing == call && left > 0 => {
            FAILING.set((failing, left - 1));
            Err(host::Status(10))
        }
        _ => Ok(()),
    }
}

/// As if Envoy had set what it was told to set in another way, if a request has asked for that: what stands
/// in its head is then not what was to stand there.
pub fn tamper(grant: &Grant) -> host::Result<()> {
    if fail("set").is_ok() {
        return Ok(());
    }
    let header = grant.headers().next().map(|(name, _)| name);
    host::set_header(header.unwrap_or(":path").as_bytes(), b"/another")
}

/// Traps if a request has armed this callback.
pub fn spring_later(callback: &str) {
    if ARMED.get() == Some(callback) {
        std::process::abort();
    }
}

/// Traps if the plugin's configuration asks for it, which no request can reach.
pub fn spring_configured(config: &[u8]) {
    if config.windows(TRAPPING.len()).any(|window| window == TRAPPING) {
        std::process::abort();
    }
}

/// What a plugin is configured with that traps as it is configured.
const TRAPPING: &[u8] = b"x-attache-trap: configure";
