//! Paths that somebody could read in another way, and paths beyond what a credential is bound to.

use attache_core::refusal::Reason;
use attache_tests::table::{Promise, Row};

use crate::tokens::{Tokens, refused};

const MALFORMED: Promise = refused(Reason::PathMalformed);
const NOT_GRANTED: Promise = refused(Reason::CredentialNotGranted);
const NOT_ALLOWED: Promise = refused(Reason::HostNotAllowed);
const SERVED: Promise = Promise::Served;
const CODEC: Promise = Promise::Envoy(400, "http1.codec_error");
const FIELD: Promise = Promise::Ended("http2.invalid.header.field");
const MESSAGING: Promise = Promise::Ended("http2.violation.of.messaging.rule");
/// Envoy's own normalisation gives up.
const NORMALIZED: Promise = Promise::Envoy(400, "path_normalization_failed");

pub fn rows(tokens: &Tokens) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut all = |promise: Promise, h2: Promise, targets: &[&str]| {
        for target in targets {
            let name = format!("custom {}", target.escape_default());
            rows.push(Row::new(name, tokens.custom(target), promise).h2(h2).carrying("custom"));
        }
    };
    // Bound to /v1/, and reached there however it is written; Envoy has resolved what can be.
    all(
        SERVED,
        SERVED,
        &[
            "/v1/x",
            "/v1/",
            "/v1/x/",
            "/v1/x?y=/../z",
            "/v1/?a?b",
            "/v1/x;y",
            "/v1/x%20y",
            "/v1/./x",
            "/v1//x",
            "//v1/x",
            "/v2/../v1/x",
            "/v1/%2e/x",
            "/v1/..x",
            "/v1/x%3fy",
            "/v1\\x",
            "/v1/.;/x",
            "/v1/x%23",
            "/v1/caf%E9/caf%C3%A9/%C0",
        ],
    );
    all(
        NOT_GRANTED,
        NOT_GRANTED,
        &[
            "/v1",
            "/",
            "/v10/x",
            "/V1/x",
            "/v2/x",
            "/x/v1/",
            "/v1;/x",
            "/v1;a=b/x",
            "/v1%3b/x",
            "/v1%20/x",
            "/v1.",
            "/v1/../v2/x",
            "/v1/%2e%2e/v2/x",
            "/v1/.%2e/v2/x",
            "/v1/%2E./v2/x",
            "/v1/x/../../v2/x",
            "/v1/../../../v2/x",
            "/v1/..",
            "/v1/../",
            "/v1\\..\\v2",
            "/v1/..;/v2/x",
            "/v1/..;a=b/v2",
        ],
    );
    all(
        MALFORMED,
        MALFORMED,
        &[
            "/v1/...",
            "/v1/..%3b/v2/x",
            "/v1/%2e%2e;/v2",
            "/v1/%2e%2e%3B/v2",
            "/v1/;/x",
            "/v1/%252e%252e/v2",
            "/v1/%25%32%65/v2",
            "/v1/x%252fy",
            "/v1/x%0d%0aHost:%20evil.test",
            "/v1/x%0a",
            "/v1/x%7f",
            "/v1/%c0%ae%c0%ae/v2/x",
            "/v1/%C0./v2/x",
            "/v1/x%c0%afy",
            "/v1/x%c1%9cy",
            "/v1/x%e0%80%af",
            "/v1/%",
            "/v1/x%2",
            "/v1/%zz",
        ],
    );
    all(
        NORMALIZED,
        NORMALIZED,
        &["/v1/..%2fv2/x", "/v1/..%2Fv2", "/v1/..%5cv2", "/v1%2fx", "/v1/x%5C", "/v1/x%00", "/v1/%00", "/v1/x#f"],
    );
    all(CODEC, FIELD, &["/v1/x y", "/v1/x\ty", ""]);
    all(Promise::Envoy(400, "http1.invalid_characters"), FIELD, &["/v1/x\u{7f}"]);
    all(CODEC, MESSAGING, &["v1/x", "?x", "../v1/x"]);
    all(Promise::Envoy(400, "http1.invalid_url"), MESSAGING, &["*"]);

    let through =
        |target: &str| attache_tests::Spelled::get("localhost", target).line("x-custom-key", &tokens.writer.custom);
    let misplaced = refused(Reason::PlaceholderMisplaced);
    for (target, promise) in [
        ("/api.custom.test/v1/x", SERVED),
        ("/x/../api.custom.test/v1/x", SERVED),
        ("/api.custom.test/v2/x", NOT_GRANTED),
        ("/api.custom.test/", NOT_GRANTED),
        ("/api.custom.test/v1/../v2/x", NOT_GRANTED),
        ("/api.custom.test/../v1/x", NOT_ALLOWED),
        ("/api.custom.test/../api.github.com/user", misplaced),
        ("/api.custom.test/v1/../../api.github.com/user", misplaced),
        ("/api.custom.test/..;/api.github.com/user", misplaced),
        ("/api.custom.test%2fv1/x", NORMALIZED),
        ("/api.custom.test;/v1/x", NOT_ALLOWED),
        ("/api%2ecustom%2etest/v1/x", SERVED),
    ] {
        rows.push(Row::new(format!("gateway {target}"), through(target), promise).carrying("custom"));
    }
    rows
}
