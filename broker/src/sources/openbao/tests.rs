//! What an answer means, and that nothing of it shows. Against the real one: tests/openbao.rs.

use super::answer::{Found, failure, reading};
use super::error::OpenBaoError;
use super::http::Reply;
use super::{Client, open};
use crate::config::handed::SecretAt;
use crate::config::openbao::Auth;
use crate::config::{OpenBao, OpenBaoSecret};
use crate::seal::Sealer;
use crate::sources::handed::Handed;
use crate::sources::stand_in::{StandIn, says};
use crate::sources::{Source as _, SourceError, Trouble};
use attache_core::Secret;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const SECRET: &str = "s3cret-in-an-answer";

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, body: Zeroizing::new(body.as_bytes().to_vec()), ..Reply::default() }
}

fn read(status: u16, body: &str, version: Option<u32>) -> Result<Option<Found>, OpenBaoError> {
    reading(&reply(status, body), "token", version, false)
}

fn versioned(version: u64) -> String {
    format!(
        r#"{{"lease_id":"","renewable":false,"lease_duration":0,"data":{{"data":{{"token":"{SECRET}","n":5}},
           "metadata":{{"deletion_time":"","destroyed":false,"version":{version},"custom_metadata":null}}}},
           "wrap_info":null,"warnings":null,"auth":null}}"#
    )
}

#[test]
fn a_field_of_either_version_of_kv_and_of_what_is_leased_is_found() {
    let found = read(200, &versioned(3), None).ok().flatten().unwrap();
    assert_eq!((found.secret.expose(), found.lease), (SECRET, None));
    assert!(read(200, &versioned(3), Some(3)).is_ok());
    let leased = format!(
        r#"{{"lease_id":"db/creds/ro/x","lease_duration":60,"renewable":true,"data":{{"token":"{SECRET}","ttl":1.5,
           "list":[{{"a":[null,-1,true]}}]}}}}"#
    );
    let found = read(200, &leased, None).ok().flatten().unwrap();
    assert_eq!(found.lease, Some(("db/creds/ro/x".into(), std::time::Duration::from_secs(60), true)));
    // KV version 1 says how often it may be asked, and leases nothing.
    let plain = format!(r#"{{"lease_id":"","lease_duration":2764800,"data":{{"token":"{SECRET}"}}}}"#);
    assert_eq!(read(200, &plain, None).ok().flatten().unwrap().lease, None);
}

#[test]
fn a_field_that_is_an_object_is_a_document_for_a_bundle_alone() {
    let document = format!(r#"{{"b":["{SECRET}",-1.50,12345678901234567890123],"a":{{"\u00e9":"q\"\n"}}}}"#);
    let body = format!(r#"{{"data":{{"token":{document}}}}}"#);
    let versioned = format!(r#"{{"data":{{"data":{{"token":{document}}},"metadata":{{"version":3}}}}}}"#);
    for body in [&body, &versioned] {
        let found = reading(&reply(200, body), "token", None, true).ok().flatten().unwrap();
        assert_eq!(found.secret.expose(), document, "no number of it is another");
    }
    assert!(matches!(read(200, &body, None), Err(OpenBaoError::NotText)));
    let list = format!(r#"{{"data":{{"token":["{SECRET}"]}}}}"#);
    assert!(matches!(reading(&reply(200, &list), "token", None, true), Err(OpenBaoError::NotText)));
}

#[test]
fn absent_and_each_error_are_told_apart_and_no_error_holds_a_byte_of_the_answer() {
    assert!(matches!(read(404, r#"{"errors":[]}"#, None), Ok(None)));
    let deleted = |destroyed: bool| {
        format!(
            r#"{{"data":{{"data":null,"metadata":{{"version":1,"destroyed":{destroyed},"deletion_time":"{SECRET}"}}}}}}"#
        )
    };
    let with = |value: &str| format!(r#"{{"data":{{"token":{value},"other":"{SECRET}"}}}}"#);
    let long = format!("\"{}\"", "s".repeat(65 * 1024));
    let errors = |words: &str| format!(r#"{{"errors":["{words} {SECRET}"]}}"#);
    for (status, body, version, passes, words) in [
        (200, versioned(3), Some(4), false, "no such version"),
        (200, with("\"x\""), Some(1), false, "no such version"),
        (404, r#"{"errors":[]}"#.into(), Some(1), false, "no such version"),
        (404, deleted(false), None, false, "is deleted"),
        (200, deleted(false), None, false, "is deleted"),
        (404, deleted(true), None, false, "is destroyed"),
        (
            404,
            format!(r#"{{"data":null,"warnings":["Invalid path for a versioned K/V {SECRET}"]}}"#),
            None,
            false,
            "version 2",
        ),
        (404, errors("no handler for route"), None, false, "no secrets engine"),
        (404, errors("namespace not found"), None, false, "no such namespace"),
        (404, errors("something else"), None, false, "does not answer as OpenBao"),
        (404, format!("<html>{SECRET}</html>"), None, false, "does not answer as OpenBao"),
        (200, format!("<html>{SECRET}</html>"), None, false, "does not answer as OpenBao"),
        (200, format!(r#"{{"data":{{"token":"{SECRET}","token":"two"}}}}"#), None, false, "does not answer as OpenBao"),
        (200, format!(r#"{{"data":"{SECRET}"}}"#), None, false, "does not answer as OpenBao"),
        (200, format!(r#"{{"data":{{"other":"{SECRET}"}}}}"#), None, false, "no such field"),
        (200, with("null"), None, false, "no such field"),
        (200, with("5"), None, false, "no text"),
        (200, with(r#"{"a":1}"#), None, false, "no text"),
        (200, with("\"\""), None, false, "is empty"),
        (200, with(&long), None, false, "longer than 64 KiB"),
        (204, String::new(), None, false, "does not answer as OpenBao"),
        (400, errors("unknown role"), None, false, "HTTP 400"),
        (403, errors("permission denied"), None, false, "do not allow it"),
        (405, errors("unsupported operation"), None, false, "HTTP 405"),
        (307, String::new(), None, true, "is a standby"),
        (412, errors("required index state not present"), None, true, "HTTP 412"),
        (500, errors("internal error"), None, true, "HTTP 500"),
        (502, SECRET.to_owned(), None, true, "HTTP 502"),
        (503, errors("Vault is sealed"), None, true, "it is sealed"),
        (503, errors("in maintenance"), None, true, "HTTP 503"),
        (418, String::new(), None, false, "does not answer as OpenBao"),
    ] {
        let error = read(status, &body, version).err().unwrap_or_else(|| panic!("{status} {words}"));
        let shown = format!("{error} {error:?}");
        assert!(error.to_string().contains(words) && !shown.contains(SECRET), "{status}: {shown}");
        let trouble = Trouble::from(error);
        assert_eq!(trouble.passes(), passes, "{words}");
        assert!(trouble.fix().len() > 10, "{words}");
    }
    assert!(matches!(failure(&reply(404, &errors("namespace not found"))), OpenBaoError::NoNamespace));
}

#[tokio::test]
async fn who_says_too_many_requests_is_left_alone_by_all_secrets() {
    let busy = says("429 Too Many Requests", "retry-after: 40\r\n", r#"{"errors":["rate limit quota exceeded"]}"#);
    let there = StandIn::start(vec![busy, says("200 OK", "", "{}")]).await;
    let server = Arc::new(OpenBao {
        address: format!("http://{}", there.addr),
        nodes: Vec::new(),
        namespace: None,
        ca_file: None,
        identity: None,
        auth: Auth::Token(SecretAt::Env("T".into())),
        refresh: Duration::from_secs(60),
    });
    let handed = Handed::new(Some(Secret::new("t")), Sealer::plain());
    let client = Arc::new(Client::new(server.clone(), handed, Arc::default()));
    for path in ["a/one", "a/other"] {
        let (path, field) = (path.to_owned(), "token".to_owned());
        let secret = OpenBaoSecret { server: server.clone(), path, field, version: None, document: false };
        let source = open(&secret, client.clone());
        let Err(SourceError::Remote { why, .. }) = source.read().await else { panic!("it has answered") };
        assert!(why.to_string().contains("too many requests") && why.passes(), "{why}");
        assert_eq!(why.fix(), "wait, or raise its quota; a longer sources.openbao.refresh asks less often");
        assert!((30..=40).contains(&why.wait().as_secs()), "{why:?}");
        assert!(source.next().unwrap() > Duration::from_secs(20), "{:?}", source.next());
    }
    assert_eq!(there.asked(), ["GET /v1/auth/token/lookup-self"]);
}
