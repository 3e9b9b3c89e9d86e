//! Placeholders where they do not belong, that nobody knows, that contradict each other, or that
//! are missing.

use attache_core::refusal::Reason;
use attache_tests::Spelled;
use attache_tests::table::{Promise, Row};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::tokens::{Tokens, refused};

const MISPLACED: Promise = refused(Reason::PlaceholderMisplaced);
const CONFLICT: Promise = refused(Reason::EvidenceConflict);
const UNKNOWN: Promise = refused(Reason::PlaceholderUnknown);
const REQUIRED: Promise = refused(Reason::IdentityRequired);
const SERVED: Promise = Promise::Served;

pub fn rows(tokens: &Tokens) -> Vec<Row> {
    [misplaced(tokens), unknown(tokens), conflicting(tokens), missing(tokens)].into_iter().flatten().collect()
}

fn misplaced(tokens: &Tokens) -> Vec<Row> {
    let (writer, github) = (&tokens.writer, &tokens.writer.github);
    let at = |host: &str, target: &str| Spelled::get(host, target);
    let good = || tokens.to("api.github.com");
    let escaped = format!("%{:02x}{}", github.as_bytes()[0], &github[1..]);
    let escaped_marker = github.replacen("ATTACHE", "%41TTACHE", 1);
    let split_marker = github.replacen("ATTACHE", "ATT%41CHE", 1);
    vec![
        // Another credential's destination.
        Row::new("custom's at github's", at("api.github.com", "/user").bearer(&writer.custom), MISPLACED),
        Row::new("github's at custom's", at("api.custom.test", "/v1/x").line("x-custom-key", github), MISPLACED),
        Row::new("github's at query's", at("query.custom.test", &format!("/?key={github}")), MISPLACED),
        Row::new("query's at github's", at("api.github.com", "/user").bearer(&writer.query), MISPLACED),
        Row::new(
            "custom's at github's, as a cookie",
            at("api.github.com", "/user").line("cookie", format!("a=b; t={}", writer.custom)),
            MISPLACED,
        ),
        Row::new(
            "custom's at github's, as Basic",
            at("github.com", "/o/r").line("authorization", basic("x", &writer.custom)),
            MISPLACED,
        ),
        Row::new("at nobody's", tokens.to("evil.test"), refused(Reason::HostNotAllowed)),
        // Another place of its own destination's request.
        Row::new("in the path", at("api.github.com", &format!("/user/{github}")), MISPLACED),
        Row::new(
            "in the path beside a good one",
            at("api.github.com", &format!("/user/{github}")).bearer(github),
            MISPLACED,
        ),
        Row::new("in the query", at("api.github.com", &format!("/user?token={github}")), MISPLACED),
        Row::new(
            "in the query beside a good one",
            at("api.github.com", &format!("/user?token={github}")).bearer(github),
            MISPLACED,
        ),
        Row::new(
            "in the query, as access_token",
            at("api.github.com", &format!("/user?access_token={github}")),
            MISPLACED,
        ),
        Row::new("in another parameter", at("query.custom.test", &format!("/?other={}", writer.query)), MISPLACED),
        Row::new("in a parameter's name", at("query.custom.test", &format!("/?{}=key", writer.query)), MISPLACED),
        Row::new("in its parameter", at("query.custom.test", &format!("/?key={}", writer.query)), SERVED)
            .carrying("query"),
        Row::new(
            "in its parameter, in the path too",
            at("query.custom.test", &format!("/{0}?key={0}", writer.query)),
            MISPLACED,
        ),
        Row::new("in the path, escaped", at("api.github.com", &format!("/user/{escaped_marker}")), MISPLACED),
        Row::new("in the query, escaped", at("api.github.com", &format!("/user?a={escaped_marker}")), MISPLACED),
        Row::new(
            "in the query, its middle escaped",
            at("api.github.com", &format!("/user?a={split_marker}")).bearer(github),
            MISPLACED,
        ),
        Row::new(
            "in the query, its begin escaped",
            at("api.github.com", &format!("/user?a={escaped}")).bearer(github),
            MISPLACED,
        ),
        Row::new("in a header of no meaning", at("api.github.com", "/user").line("x-note", github), MISPLACED),
        Row::new("in a header of no meaning beside a good one", good().line("x-note", github), MISPLACED),
        Row::new("in User-Agent", good().line("user-agent", format!("x/{github}")), MISPLACED),
        Row::new("in Referer", good().line("referer", format!("https://api.github.com/?t={github}")), MISPLACED),
        Row::new("in x-request-id", good().line("x-request-id", github), SERVED),
        // Its own destination takes it wherever credentials stand.
        Row::new("in Basic", at("api.github.com", "/user").line("authorization", basic("x", github)), SERVED),
        Row::new(
            "in Basic, as the user",
            at("github.com", "/o/r").line("authorization", basic(github, "x-oauth-basic")),
            SERVED,
        ),
        Row::new("in x-api-key", at("api.github.com", "/user").line("x-api-key", github), SERVED),
        Row::new("in a cookie", at("api.github.com", "/user").line("cookie", format!("a=b; t={github}")), SERVED),
        Row::new(
            "in Proxy-Authorization",
            at("api.github.com", "/user").line("proxy-authorization", basic("x", github)),
            SERVED,
        ),
    ]
}

fn unknown(tokens: &Tokens) -> Vec<Row> {
    let github = &tokens.writer.github;
    let shown = |token: &str| Spelled::get("api.github.com", "/user").bearer(token);
    let mut other = github.clone().into_bytes();
    let last = other.last_mut().expect("a placeholder is not empty");
    *last = if *last == b'a' { b'b' } else { b'a' };
    let other = String::from_utf8(other).expect("ASCII");
    vec![
        Row::new("one letter off", shown(&other), UNKNOWN),
        Row::new("one letter short", shown(&github[..github.len() - 1]), UNKNOWN),
        Row::new("one letter more", shown(&format!("{github}x")), UNKNOWN),
        Row::new("another prefix", shown(&github.replacen("ghp_", "gho_", 1)), UNKNOWN),
        Row::new("no prefix", shown(&github.replacen("ghp_", "", 1)), UNKNOWN),
        Row::new("the marker alone", shown("ATTACHE"), UNKNOWN),
        Row::new("all made up", shown(&format!("ghp_ATTACHE{}", "x".repeat(29))), UNKNOWN),
        Row::new("a token nobody knows", tokens.to("api.github.com").line("x-attache-session", "ATTACHEx"), UNKNOWN),
        Row::new("the marker in lower case", shown(&github.to_ascii_lowercase()), REQUIRED),
        Row::new("a real token's shape", shown("ghp_0123456789abcdefghijklmnopqrstuvwxyz"), REQUIRED),
    ]
}

fn conflicting(tokens: &Tokens) -> Vec<Row> {
    let Tokens { writer, reader } = tokens;
    let good = || tokens.to("api.github.com");
    let bare = || Spelled::get("api.github.com", "/user");
    vec![
        Row::new("two sessions' placeholders", good().line("x-api-key", &reader.github), CONFLICT),
        Row::new(
            "two sessions' placeholders in one header",
            bare().bearer(&format!("{}, Bearer {}", writer.github, reader.github)),
            CONFLICT,
        ),
        Row::new(
            "two sessions' placeholders, one in Basic",
            bare().bearer(&writer.github).line("x-api-key", basic("x", &reader.github)),
            CONFLICT,
        ),
        Row::new(
            "two placeholders in one Basic",
            bare().line("authorization", basic(&writer.github, &reader.github)),
            CONFLICT,
        ),
        Row::new("two sessions' placeholders in two lines", good().bearer(&reader.github), CONFLICT),
        Row::new("two sessions' placeholders, one a cookie", good().line("cookie", &reader.github), CONFLICT),
        Row::new("one session's two placeholders", good().line("x-api-key", &writer.custom), CONFLICT),
        Row::new("another session's token", good().line("x-attache-session", &reader.token), CONFLICT),
        Row::new(
            "two tokens",
            good().line("x-attache-session", &writer.token).line("x-attache-session", &reader.token),
            CONFLICT,
        ),
        Row::new("a placeholder as a token", good().line("x-attache-session", &writer.github), MISPLACED),
        Row::new("another's placeholder as a token", good().line("x-attache-session", &reader.github), MISPLACED),
        Row::new("a token as a placeholder", bare().bearer(&writer.token), MISPLACED),
        Row::new("a token in the path", Spelled::get("api.github.com", format!("/user/{}", writer.token)), MISPLACED),
        Row::new("the same session's token", good().line("x-attache-session", &writer.token), SERVED),
        Row::new(
            "the same token twice",
            good().line("x-attache-session", &writer.token).line("x-attache-session", &writer.token),
            SERVED,
        ),
        Row::new(
            "the same placeholder thrice",
            good().line("x-api-key", &writer.github).line("cookie", &writer.github),
            SERVED,
        ),
    ]
}

fn missing(tokens: &Tokens) -> Vec<Row> {
    let basic_challenge = Some(r#"Basic realm="attache", charset="UTF-8""#);
    let at = |host: &str, target: &str| Spelled::get(host, target);
    vec![
        Row::new("nothing shown", at("api.github.com", "/user"), REQUIRED).header("www-authenticate", None),
        Row::new("nothing shown to uploads", at("uploads.github.com", "/user"), REQUIRED)
            .header("www-authenticate", None),
        Row::new("nothing shown to custom", at("api.custom.test", "/v1/x"), REQUIRED).header("www-authenticate", None),
        Row::new("nothing shown to query", at("query.custom.test", "/?key="), REQUIRED)
            .header("www-authenticate", None),
        // git asks without, and sends its credential only after this (git's http-auth).
        Row::new("git asks", at("github.com", "/o/r/info/refs?service=git-upload-pack"), REQUIRED)
            .header("www-authenticate", basic_challenge),
        Row::new(
            "git asks the gateway",
            at("localhost", "/github.com/o/r/info/refs?service=git-upload-pack"),
            REQUIRED,
        )
        .header("www-authenticate", basic_challenge),
        Row::new("git asks in upper case", at("GitHub.com:443", "/o/r/info/refs?service=git-upload-pack"), REQUIRED)
            .header("www-authenticate", basic_challenge),
        Row::new(
            "a bare token",
            at("api.github.com", "/user").line("x-attache-session", &tokens.writer.token),
            REQUIRED,
        ),
        Row::new("an empty Authorization", at("api.github.com", "/user").line("authorization", ""), REQUIRED),
        Row::new("Bearer of nothing", at("api.github.com", "/user").line("authorization", "Bearer "), REQUIRED),
        Row::new(
            "a credential of the agent's",
            at("api.github.com", "/user").line("authorization", "Bearer own"),
            REQUIRED,
        ),
        Row::new("Basic of the agent's", at("github.com", "/o/r").line("authorization", basic("me", "own")), REQUIRED),
        Row::new("Basic that is no base64", at("github.com", "/o/r").line("authorization", "Basic !!!"), REQUIRED),
        Row::new("a bare path", at("api.custom.test", "/v2/x"), REQUIRED),
    ]
}

/// A Basic credential (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
