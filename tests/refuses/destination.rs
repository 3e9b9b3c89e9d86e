//! Where a request may not go. Nothing here is ever dialled: a destination is one of the config's,
//! each has its cluster, and no cluster resolves what an agent wrote.

use attache_core::refusal::Reason;
use attache_tests::Spelled;
use attache_tests::table::{Promise, Row};

use crate::tokens::{Tokens, refused};

const MALFORMED: Promise = refused(Reason::AuthorityMalformed);
const REROUTED: Promise = refused(Reason::PathMalformed);
const NOT_ALLOWED: Promise = refused(Reason::HostNotAllowed);
/// An authority that Envoy's codecs do not take.
const INVALID: Promise = Promise::Envoy(400, "http.invalid_authority");
const MESSAGING: Promise = Promise::Ended("http2.violation.of.messaging.rule");
const FIELD: Promise = Promise::Ended("http2.invalid.header.field");

pub fn rows(tokens: &Tokens) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut all = |promise: Promise, h2: Promise, authorities: &[&str]| {
        for authority in authorities {
            rows.push(Row::new(format!("to {}", authority.escape_default()), tokens.to(authority), promise).h2(h2));
        }
    };
    all(
        Promise::Served,
        Promise::Served,
        &["api.github.com", "API.GitHub.com", "api.github.com:443", "API.GITHUB.COM:443"],
    );
    // Userinfo, two hosts, ports that are none, empty labels, escapes.
    all(
        MALFORMED,
        MALFORMED,
        &[
            "api.github.com,evil.test",
            "api.github.com:",
            "api.github.com:0",
            "api.github.com:0443",
            "api.github.com:65536",
            "api.github.com:443:80",
            "api.github.com:https",
            "api.github.com:-1",
            "api.github.com:+443",
            "api.github.com:4e2",
            "api.github.com.",
            "api.github.com.:443",
            "api..github.com",
            ".api.github.com",
            "-api.github.com",
            "api%2egithub.com",
            "%61pi.github.com",
            "api.github.com%00",
            "api.github.com%2fevil.test",
            "api.github.com%40evil.test",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "0",
            "127.0.0.1:0",
            "[::FFFF:7f00:1]",
            "[0:0:0:0:0:0:0:1]",
            "[::1",
            "::1",
            "[::1%25lo]",
            "[::1]x",
            "[api.github.com]",
        ],
    );
    // Well-formed, and nobody's.
    all(
        NOT_ALLOWED,
        NOT_ALLOWED,
        &[
            "api.github.com.evil.test",
            "evilapi.github.com",
            "xgithub.com",
            "api.github.com-evil.test",
            "api-github.com",
            "apixgithub.com",
            "sub.api.github.com",
            "www.github.com",
            "gist.github.com",
            "com",
            "github",
            "localhost",
            "xn--gthub-zsa.com",
            "xn--pi-3ia.github.com",
            "api.github.com:80",
            "api.github.com:8443",
            "github.com:22",
            "127.0.0.1",
            "127.0.0.1:443",
            "[::1]",
            "[::1]:443",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
        ],
    );
    all(
        INVALID,
        FIELD,
        &[
            "api.github.com evil.test",
            "api.gіthub.com",
            "ａpi.github.com",
            "api。github.com",
            "api.github.com/evil.test",
            "api.github.com\\evil.test",
            "api.github.com#@evil.test",
            "api.github.com?@evil.test",
        ],
    );
    // HTTP/2 holds userinfo back by itself (RFC 9113, 8.3.1).
    all(
        MALFORMED,
        FIELD,
        &[
            "api.github.com@evil.test",
            "evil.test@api.github.com",
            "user:pass@api.github.com",
            "api.github.com:443@evil.test",
            "@api.github.com",
            "",
        ],
    );
    rows.extend(spelled_twice(tokens));
    rows.extend(by_prefix(tokens));
    rows
}

/// The same thing said in two places.
fn spelled_twice(tokens: &Tokens) -> Vec<Row> {
    let good = || tokens.to("api.github.com");
    let absolute = |host: &str, target: &str| Spelled { target: target.into(), ..tokens.to(host) };
    let served = Promise::Served;
    vec![
        Row::new("two Host lines", good().line("host", "evil.test"), MALFORMED).h2(served),
        Row::new("two Host lines, the other first", tokens.to("evil.test").line("host", "api.github.com"), MALFORMED)
            .h2(NOT_ALLOWED),
        // The absolute form wins over Host (RFC 9112, 3.2.2).
        Row::new("absolute, ours", absolute("evil.test", "http://api.github.com/user"), served).h2(MESSAGING),
        Row::new("absolute, theirs", absolute("api.github.com", "http://evil.test/user"), NOT_ALLOWED).h2(MESSAGING),
        Row::new(
            "absolute, their userinfo",
            absolute("api.github.com", "http://api.github.com@evil.test/user"),
            NOT_ALLOWED,
        )
        .h2(MESSAGING),
        Row::new("absolute, our userinfo", absolute("evil.test", "http://evil.test@api.github.com/user"), served)
            .h2(MESSAGING),
        Row::new(
            "absolute, https",
            absolute("api.github.com", "https://api.github.com/user"),
            Promise::Envoy(403, "http1.https_url_on_plaintext_connection"),
        )
        .h2(MESSAGING),
        Row::new(
            "absolute, ftp",
            absolute("api.github.com", "ftp://api.github.com/user"),
            Promise::Envoy(400, "http1.invalid_scheme"),
        )
        .h2(MESSAGING),
        Row::new("scheme https", good().scheme("https"), served).h1(None),
        Row::new("scheme ftp", good().scheme("ftp"), served).h1(None),
        Row::new("scheme javascript", good().scheme("javascript"), served).h1(None),
        Row::new("no scheme", good().scheme(""), FIELD).h1(None),
        // What else could name a destination is not listened to.
        Row::new("x-forwarded-host", good().line("x-forwarded-host", "evil.test"), served),
        Row::new("x-forwarded-proto", good().line("x-forwarded-proto", "ftp"), served),
        Row::new("x-forwarded-port", good().line("x-forwarded-port", "80"), served),
        Row::new("forwarded", good().line("forwarded", "host=evil.test;proto=http"), served),
        Row::new("x-host", good().line("x-host", "evil.test"), served),
        Row::new("x-original-url", good().line("x-original-url", "/admin"), REROUTED),
        Row::new("x-rewrite-url", good().line("x-rewrite-url", "/admin"), REROUTED),
        Row::new("x-envoy-original-path", good().line("x-envoy-original-path", "/admin"), served),
        Row::new("x-envoy-original-url", good().line("x-envoy-original-url", "http://evil.test/"), served),
        Row::new("x-envoy-original-host", good().line("x-envoy-original-host", "evil.test"), served),
        Row::new("x-envoy-original-dst-host", good().line("x-envoy-original-dst-host", "127.0.0.1:1"), served),
        Row::new(
            "forwarded headers to nobody",
            tokens.to("evil.test").line("x-forwarded-host", "api.github.com"),
            NOT_ALLOWED,
        ),
        // Nor may an agent make Envoy send twice.
        Row::new(
            "retry",
            Spelled::get("api.github.com", "/status/503")
                .bearer(&tokens.writer.github)
                .line("x-envoy-retry-on", "5xx,gateway-error,retriable-status-codes")
                .line("x-envoy-max-retries", "3")
                .line("x-envoy-retriable-status-codes", "503"),
            Promise::Reached(503),
        ),
        Row::new(
            "hedge",
            good().line("x-envoy-hedge-on-per-try-timeout", "true").line("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
            served,
        ),
    ]
}

/// The gateway's own address, with the destination in the path.
fn by_prefix(tokens: &Tokens) -> Vec<Row> {
    let through = |host: &str, target: &str| Spelled::get(host, target).bearer(&tokens.writer.github);
    let served = Promise::Served;
    vec![
        Row::new("prefix, by address", through("127.0.0.1:3030", "/api.github.com/user"), served),
        Row::new("prefix, by name", through("localhost", "/api.github.com/user"), served),
        Row::new("prefix, another's name", through("evil.test", "/api.github.com/user"), served),
        Row::new("prefix, odd address", through("0x7f.1", "/api.github.com/user"), MALFORMED),
        Row::new("prefix, userinfo", through("a@127.0.0.1", "/api.github.com/user"), MALFORMED).h2(FIELD),
        Row::new("prefix below a destination of its own", through("github.com", "/api.github.com/user"), served),
        Row::new("prefix in upper case", through("localhost", "/API.github.com/user"), NOT_ALLOWED),
        Row::new("prefix with a port", through("localhost", "/api.github.com:443/user"), NOT_ALLOWED),
        Row::new("prefix that goes on", through("localhost", "/api.github.com.evil.test/user"), NOT_ALLOWED),
        Row::new("prefix alone", through("localhost", "/api.github.com"), NOT_ALLOWED),
        Row::new("prefix behind another", through("localhost", "/x/api.github.com/user"), NOT_ALLOWED),
        Row::new("nothing", through("localhost", "/"), NOT_ALLOWED),
    ]
}
