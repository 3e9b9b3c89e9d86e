//! Methods that are none, that carry nothing, or that hide another.

use attache_core::refusal::Reason;
use attache_tests::Spelled;
use attache_tests::table::{Promise, Row};

use crate::tokens::{Tokens, refused};

const NOT_ALLOWED: Promise = refused(Reason::MethodNotAllowed);
const READ_ONLY: Promise = refused(Reason::ReadOnly);
const FIELD: Promise = Promise::Ended("http2.invalid.header.field");
const CODEC: Promise = Promise::Envoy(400, "http1.codec_error");

pub fn rows(tokens: &Tokens) -> Vec<Row> {
    let writer = |method: &str| tokens.to("api.github.com").method(method);
    let reader = || Spelled::get("api.github.com", "/user").bearer(&tokens.reader.github);
    let mut rows = Vec::new();
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] {
        rows.push(Row::new(format!("writer {method}"), writer(method), Promise::Served));
        let promise = if matches!(method, "GET" | "HEAD" | "OPTIONS") { Promise::Served } else { READ_ONLY };
        rows.push(Row::new(format!("reader {method}"), reader().method(method), promise));
    }
    // Methods of other protocols, and of none: the writer's own affair, but no reads.
    for method in ["PROPFIND", "MKCOL", "LOCK", "MERGE", "REPORT", "SEARCH", "PURGE", "LINK"] {
        rows.push(Row::new(format!("reader {method}"), reader().method(method), READ_ONLY));
    }
    for method in ["FOO", "GETX", "A-B", &"A".repeat(24)] {
        rows.push(Row::new(format!("reader {method}"), reader().method(method), READ_ONLY).h1(CODEC));
    }
    rows.push(Row::new(
        "reader QUERY",
        reader().method("QUERY").line("content-type", "text/plain").body("x"),
        READ_ONLY,
    ));
    for method in ["get", "Get", "gET", "post", "delete", "head", "GE_T", "G3T", "trace"] {
        rows.push(Row::new(format!("method {method}"), writer(method), NOT_ALLOWED).h1(CODEC));
    }
    rows.push(Row::new("TRACE", writer("TRACE"), NOT_ALLOWED));
    rows.push(Row::new("5 KB of method", writer(&"A".repeat(5_000)), NOT_ALLOWED).h1(CODEC));
    rows.push(Row::new("25 bytes of method", writer(&"A".repeat(25)), NOT_ALLOWED).h1(CODEC));
    for method in ["", "get ", "GET/1", "GET,POST"] {
        rows.push(Row::new(format!("method {method:?}"), writer(method), CODEC).h2(FIELD));
    }
    rows.push(Row::new(
        "CONNECT",
        Spelled { target: "api.github.com:443".into(), ..writer("CONNECT") },
        refused(Reason::PathMalformed),
    ));
    // What makes a framework take one method for another.
    for (name, value) in [
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "DELETE"),
        ("x-method-override", "DELETE"),
        ("X-HTTP-Method-Override", "GET"),
    ] {
        let h2 = reader().line(name.to_ascii_lowercase(), value);
        rows.push(Row::new(format!("reader {name}: {value}"), h2, READ_ONLY));
        rows.push(Row::new(
            format!("writer {name}: {value}"),
            writer("POST").line(name.to_ascii_lowercase(), value),
            Promise::Served,
        ));
    }
    for query in ["_method=DELETE", "a=b&_method=delete", "%5fmethod=DELETE", "_method", "_%6Dethod=PUT"] {
        let request = Spelled { target: format!("/user?{query}").into(), ..reader() };
        rows.push(Row::new(format!("reader ?{query}"), request, READ_ONLY));
    }
    let form = reader().method("POST").line("content-type", "application/x-www-form-urlencoded").body("_method=GET");
    rows.push(Row::new("reader POST with _method in a form", form, READ_ONLY));
    rows
}
