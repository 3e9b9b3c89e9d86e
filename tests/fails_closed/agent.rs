//! Agents that send what no client sends: the filter reads bytes, whatever they are, and no byte
//! ends its VM.

use attache_core::refusal::Reason;
use attache_tests::Spelled;
use attache_tests::stack::Plan;
use attache_tests::table::{self, Promise, Row};

use crate::scene::created;

/// What Envoy says of a head that its HTTP/1 codec does not take.
const CODEC: Promise = Promise::Envoy(400, "http1.codec_error");
const AUTHORITY: Promise = Promise::Envoy(400, "http.invalid_authority");
const CHARACTER: Promise = Promise::Envoy(400, "http1.invalid_characters");
/// And what of one in HTTP/2.
const FIELD: Promise = Promise::Ended("http2.invalid.header.field");

/// Bytes that are no UTF-8: two of them have ended careless filters.
const ODD: &[u8] = b"\xff\xfe";

#[tokio::test(flavor = "multi_thread")]
async fn no_header_ends_a_vm() {
    let stack = Plan::default().edit(table::without_lingering).start().await;
    let placeholder = stack.placeholder("writer", "github");
    let vms = created(&stack).await;
    let bare = || Spelled::get("api.github.com", "/user");
    let good = || bare().bearer(&placeholder);
    let odd_beside = |bytes: &[u8]| [bytes, ODD].concat();
    let bearer = format!("Bearer {placeholder}");
    let identity = Promise::Refused(Reason::IdentityRequired);
    let malformed = Promise::Refused(Reason::HeadersMalformed);
    let path = Promise::Refused(Reason::PathMalformed);

    let mut rows = vec![
        Row::new("nothing odd", good(), Promise::Served),
        // Bytes that are no UTF-8.
        Row::new("odd name", good().line([b"x-", ODD].concat(), "v"), CODEC).h2(FIELD),
        Row::new("nothing but odd in a name", good().line(ODD, "v"), CODEC).h2(FIELD),
        Row::new("odd authorization", bare().line("authorization", ODD), identity),
        Row::new("odd Basic", bare().line("authorization", odd_beside(b"Basic ")), identity),
        Row::new("odd after Bearer", bare().line("authorization", odd_beside(b"Bearer ")), identity),
        Row::new(
            "odd behind the placeholder",
            bare().line("authorization", odd_beside(bearer.as_bytes())),
            Promise::Served,
        ),
        // Envoy escapes them where it normalises, in the path alone.
        Row::new("odd path", Spelled::get("api.github.com", odd_beside(b"/us")).bearer(&placeholder), CODEC)
            .h2(Promise::Served),
        Row::new("odd query", Spelled::get("api.github.com", odd_beside(b"/user?a=")).bearer(&placeholder), CODEC)
            .h2(path),
        Row::new("odd authority", Spelled::get(odd_beside(b"api.github.com"), "/user").bearer(&placeholder), AUTHORITY)
            .h2(FIELD),
        Row::new("nothing but odd in the authority", Spelled::get(ODD, "/user").bearer(&placeholder), AUTHORITY)
            .h2(FIELD),
        Row::new("odd method", good().method(odd_beside(b"GE")), CODEC).h2(FIELD),
        Row::new("odd scheme", good().scheme(ODD), Promise::Served).h2(FIELD),
        // Bytes that end a header somewhere.
        Row::new("NUL in a value", good().line("x-note", "a\0b"), CHARACTER).h2(FIELD),
        Row::new("NUL in a name", good().line("x-\0", "v"), CHARACTER).h2(FIELD),
        Row::new("CR in a value", good().line("x-note", "a\rb"), Promise::Served).h2(FIELD),
        Row::new("LF in a value", good().line("x-note", "a\nx-two: b"), Promise::Served).h2(FIELD),
        Row::new("CRLF in a value", good().line("x-note", "a\r\nx-two: b"), Promise::Served).h2(FIELD),
        Row::new("a folded line", good().line("x-note", "a\r\n b"), Promise::Served).h2(FIELD),
        Row::new("an empty name", good().line("", "v"), CODEC).h2(FIELD),
        Row::new("a space in a name", good().line("x note", "v"), CODEC).h2(FIELD),
        Row::new("a colon in a name", good().line("x:note", "v"), Promise::Served).h2(FIELD),
        Row::new("upper case in a name", good().line("X-Note", "v"), Promise::Served).h2(FIELD),
        Row::new(
            "an underscore in a name",
            good().line("x_note", "v"),
            Promise::Envoy(400, "http1.unexpected_underscore"),
        )
        .h2(Promise::Ended("http2.unexpected_underscore")),
        Row::new("an empty value", good().line("x-note", ""), Promise::Served),
        // Heads that contradict themselves.
        Row::new("a pseudo-header among the headers", good().line(":path", "/other"), CODEC).h2(FIELD),
        Row::new("two lengths", good().line("content-length", "0").line("content-length", "1"), CODEC).h2(FIELD),
        Row::new("a negative length", good().line("content-length", "-1"), CODEC).h2(FIELD),
        Row::new(
            "a length and chunks",
            good().line("content-length", "5").line("transfer-encoding", "chunked"),
            Promise::Envoy(400, "http1.content_length_and_chunked_not_allowed"),
        )
        .h2(FIELD),
        Row::new(
            "chunks of chunks",
            good().line("transfer-encoding", "chunked, chunked"),
            Promise::Envoy(501, "http1.invalid_transfer_encoding"),
        )
        .h2(FIELD),
        Row::new("no authority", Spelled { authority: None, ..good() }, Promise::Envoy(400, "missing_host_header"))
            .h2(Promise::Ended("http2.violation.of.messaging.rule")),
        // Named by Connection, the placeholder is gone before the filter: nothing is injected.
        Row::new("a placeholder named by Connection", good().line("connection", "authorization"), identity).h2(FIELD),
        // Many and much.
        Row::new("95 headers", numbered(good(), 93), Promise::Served),
        Row::new("120 headers", numbered(good(), 120), Promise::Envoy(431, "http1.too_many_headers"))
            .h2(Promise::Ended("http2.too_many_headers")),
        Row::new("60 kB in one header", good().line("x-much", "x".repeat(60_000)), Promise::Served),
        Row::new(
            "64 kB in one header",
            good().line("x-much", "x".repeat(64_000)),
            Promise::Envoy(431, "http1.headers_too_large"),
        )
        .h2(Promise::Ended("http2.header_list_size_too_large")),
        Row::new("60 kB of authorization", bare().line("authorization", "x".repeat(60_000)), identity),
        Row::new("60 kB of Basic", bare().line("authorization", format!("Basic {}", "eHh4".repeat(15_000))), identity),
        Row::new("8 auth-bearing headers", auth_bearing(good(), 7), Promise::Served),
        Row::new("9 auth-bearing headers", auth_bearing(good(), 8), malformed),
        Row::new("15 auth-bearing headers", auth_bearing(good(), 14), malformed),
        Row::new("8 times the placeholder", repeated(bare(), &placeholder, 8), Promise::Served),
        Row::new("9 times the placeholder", repeated(bare(), &placeholder, 9), malformed),
        Row::new("1000 times the placeholder", repeated(bare(), &placeholder, 1_000), malformed),
        Row::new("the same authorization twice", good().bearer(&placeholder), Promise::Served),
        // Envoy names requests; an agent that does cannot hide one behind another.
        Row::new(
            "a request id of the agent's",
            good().line("x-request-id", "11111111-1111-1111-1111-111111111111"),
            Promise::Served,
        ),
        Row::new(
            "two request ids of the agent's",
            good().line("x-request-id", "a").line("x-request-id", "b"),
            Promise::Served,
        ),
    ];
    for name in [
        "x-note",
        "referer",
        "user-agent",
        "content-type",
        "accept",
        "cookie",
        "x-request-id",
        "x-attache-session",
        "x-forwarded-for",
        "x-envoy-original-path",
    ] {
        rows.push(Row::new(format!("odd {name}"), good().line(name, ODD), Promise::Served));
    }
    // The last: all that came before has left the VM as it was.
    rows.push(Row::new("nothing odd, at the end", good(), Promise::Served));
    let held = table::hold(&stack, rows).await;
    assert_eq!(created(&stack).await, vms, "a VM was replaced");
    held.is_witnessed(&stack).await;
}

fn numbered(request: Spelled, count: usize) -> Spelled {
    (0..count).fold(request, |request, index| request.line(format!("x-number-{index}"), "v"))
}

fn auth_bearing(request: Spelled, count: usize) -> Spelled {
    let single =
        attache_core::evidence::AUTH_HEADERS.iter().filter(|name| !matches!(**name, b"authorization" | b"cookie"));
    single.take(count).fold(request, |request, name| request.line(name, "v"))
}

fn repeated(request: Spelled, placeholder: &str, times: usize) -> Spelled {
    request.line("authorization", format!("Bearer {}", vec![placeholder; times].join(",")))
}
