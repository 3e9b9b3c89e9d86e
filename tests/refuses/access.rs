//! A session that may only read: what git and its large files need to be read, and nothing that writes.

use attache_core::refusal::Reason;
use attache_tests::Spelled;
use attache_tests::table::{Promise, Row};

use crate::tokens::{Tokens, refused};

const READ_ONLY: Promise = refused(Reason::ReadOnly);
const UNREADABLE: Promise = refused(Reason::BodyUnreadable);
const SERVED: Promise = Promise::Served;
/// The limit of a body that is read before a decision.
pub const LIMIT: usize = 16 << 10;

pub fn rows(tokens: &Tokens) -> Vec<Row> {
    let mut rows = Vec::new();
    let reader =
        |method: &str, target: &str| Spelled::get("github.com", target).method(method).bearer(&tokens.reader.github);
    for (method, target, promise) in [
        ("GET", "/o/r", SERVED),
        ("GET", "/o/r/info/refs?service=git-upload-pack", SERVED),
        ("GET", "/o/r.git/info/refs?service=git-upload-pack", SERVED),
        ("GET", "/o/r/info/refs", SERVED),
        ("POST", "/o/r/git-upload-pack", SERVED),
        ("POST", "/o/r.git/git-upload-pack", SERVED),
        ("GET", "/o/r/info/refs?service=git-receive-pack", READ_ONLY),
        ("HEAD", "/o/r/info/refs?service=git-receive-pack", READ_ONLY),
        ("GET", "/o/r.git/info/refs?service=git-receive-pack", READ_ONLY),
        ("GET", "/o/r/info/refs?x=1&service=git-receive-pack", READ_ONLY),
        ("GET", "/o/r/info/refs?service=git-upload-pack&service=git-receive-pack", READ_ONLY),
        ("GET", "/o/r/info/refs?service=git-receive-pack&service=git-upload-pack", READ_ONLY),
        ("GET", "/o/r/info/refs?%73ervice=git%2Dreceive-pack", READ_ONLY),
        ("GET", "/o/r/%69nfo/refs?service=git-receive-pack", READ_ONLY),
        ("GET", "/o/./r/info/refs?service=git-receive-pack", READ_ONLY),
        ("GET", "/o//r/info/refs?service=git-receive-pack", READ_ONLY),
        ("POST", "/o/r/git-receive-pack", READ_ONLY),
        ("POST", "/o/r/git-upload-pack/../git-receive-pack", READ_ONLY),
        ("POST", "/o/r/git-upload-pack/x", READ_ONLY),
        ("POST", "/o/git-upload-pack", READ_ONLY),
        ("PUT", "/o/r/git-upload-pack", READ_ONLY),
        ("POST", "/o/r", READ_ONLY),
        ("DELETE", "/o/r", READ_ONLY),
        ("PUT", "/o/r/info/lfs/objects/x", READ_ONLY),
        ("POST", "/o/r/info/lfs/verify", READ_ONLY),
        ("POST", "/o/r/info/lfs/locks", READ_ONLY),
    ] {
        let request = reader(method, target).line("content-type", "application/x-git-upload-pack-request");
        rows.push(Row::new(format!("git {method} {target}"), request, promise));
    }
    // Frameworks look for a method in what they take for a form, and differ in what that is.
    let fetch = || reader("POST", "/o/r/git-upload-pack");
    rows.push(Row::new("git, of no type", fetch().body("_method=delete"), READ_ONLY));
    rows.push(Row::new("git, without a body", fetch().line("content-length", "0"), SERVED));
    for kind in ["", "multipart/mixed; boundary=x", "multipart/form-data; boundary=x"] {
        let request = fetch().line("content-type", kind).body("_method=delete");
        rows.push(Row::new(format!("git, of type {kind:?}"), request, READ_ONLY));
    }
    let unannounced = |body: &[u8]| reader("POST", "/o/r/info/lfs/objects/batch").body(body);
    let batch = |body: &[u8]| unannounced(body).line("content-type", "application/vnd.git-lfs+json");
    let padded = |total: usize| {
        let body = r#"{"operation":"download"}"#;
        format!("{}{body}", " ".repeat(total - body.len()))
    };
    for (name, body, promise) in [
        ("download", r#"{"operation":"download","objects":[]}"#.to_owned(), SERVED),
        ("download, up to the limit", padded(LIMIT), SERVED),
        ("download, over the limit", padded(LIMIT + 1), refused(Reason::BodyTooLarge)),
        ("upload", r#"{"operation":"upload","objects":[]}"#.into(), READ_ONLY),
        ("upload, escaped", r#"{"operation":"\u0075pload"}"#.into(), READ_ONLY),
        ("download, escaped", r#"{"operation":"\u0064ownload"}"#.into(), SERVED),
        ("Download", r#"{"operation":"Download"}"#.into(), READ_ONLY),
        ("both", r#"{"operation":"download","operation":"upload"}"#.into(), UNREADABLE),
        ("both, in two cases", r#"{"operation":"download","Operation":"upload"}"#.into(), UNREADABLE),
        ("two documents", r#"{"operation":"download"}{"operation":"upload"}"#.into(), UNREADABLE),
        ("neither", r#"{"objects":[]}"#.into(), UNREADABLE),
        ("a list", r#"["download"]"#.into(), UNREADABLE),
        ("no text", r#"{"operation":true}"#.into(), UNREADABLE),
        ("no JSON", "operation=download".into(), UNREADABLE),
        ("not UTF-8", "\u{feff}{\"operation\":\"download\"}".into(), UNREADABLE),
        ("deep", format!(r#"{{"operation":"download","x":{}{}}}"#, "[".repeat(8_000), "]".repeat(8_000)), SERVED),
    ] {
        rows.push(Row::new(format!("LFS {name}"), batch(body.as_bytes()), promise));
    }
    // The judge stands on the path as it is plainly written. What a rule means and no judge has read is
    // refused; what no rule means is a write by its method.
    let download = r#"{"operation":"download"}"#;
    for (target, promise) in [
        ("/o/r/info/lfs/objects/batch?x=1", SERVED),
        ("/o//r/info/lfs/./objects/batch", SERVED),
        ("/o/r/info/lfs/objects/%62atch", SERVED),
        ("/o/r/info/lfs/objects/batch/", READ_ONLY),
        ("/o/r/info/lfs/objects/batch;x", READ_ONLY),
        ("/o/r/info/lfs/objects/Batch", READ_ONLY),
        ("/o/r/s/info/lfs/objects/batch", READ_ONLY),
        ("/o/r/info/lfs/objects/batch%3f", READ_ONLY),
    ] {
        let request = reader("POST", target).line("content-type", "application/json").body(download);
        rows.push(Row::new(format!("LFS at {target}"), request, promise));
    }
    rows.push(Row::new("LFS without a body", batch(b""), UNREADABLE));
    let download = br#"{"operation":"download"}"#;
    rows.push(Row::new("LFS unannounced", unannounced(download), READ_ONLY));
    let form = unannounced(download).line("content-type", "application/x-www-form-urlencoded");
    rows.push(Row::new("LFS as a form", form, READ_ONLY));
    let compressed = batch(b"\x1f\x8b\x08\x00").line("content-encoding", "gzip");
    rows.push(Row::new("LFS compressed", compressed, UNREADABLE));
    let elsewhere = |method: &str, target: &str| {
        Spelled::get("api.github.com", target).method(method).bearer(&tokens.reader.github)
    };
    for (method, target, promise) in [
        ("GET", "/user", SERVED),
        ("GET", "/user?method=list&upgrade=1", SERVED),
        ("GET", "/user?_method=DELETE", READ_ONLY),
        ("GET", "/user?x-method-override=DELETE", READ_ONLY),
        ("GET", "/user?a=1;X-HTTP-Method=PUT", READ_ONLY),
        ("GET", "/user?method=DELETE", READ_ONLY),
        ("GET", "/user?httpMethod=patch", READ_ONLY),
        ("POST", "/graphql", READ_ONLY),
        ("POST", "/repos/o/r/issues", READ_ONLY),
        ("PATCH", "/repos/o/r", READ_ONLY),
        ("POST", "/o/r/git-upload-pack", READ_ONLY),
    ] {
        rows.push(Row::new(format!("api {method} {target}"), elsewhere(method, target), promise));
    }
    let upgrade = elsewhere("GET", "/user").line("connection", "upgrade").line("upgrade", "websocket");
    rows.push(
        Row::new("WebSocket", upgrade, Promise::Envoy(426, "upgrade_failed"))
            .h2(Promise::Ended("http2.invalid.header.field")),
    );
    // Named without Connection it asks for nothing (RFC 9110, 7.8), and Envoy drops it.
    let unasked = elsewhere("GET", "/user").line("upgrade", "websocket");
    rows.push(Row::new("Upgrade without Connection", unasked, SERVED).h2(Promise::Ended("http2.invalid.header.field")));
    rows
}
