use super::*;
use crate::fixture::test;

fn github() -> Access {
    let operation = |method: &str, path: &str, query: &[(&str, &str)], body| OperationSpec {
        method: method.into(),
        path: path.into(),
        query: query.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        no_other_query: false,
        body,
    };
    let lfs = BodyRule::Json { member: "operation".into(), any_of: vec!["download".into()] };
    Access::compile(&AccessSpec {
        reads: vec![
            operation("POST", "/*/*/git-upload-pack", &[], None),
            operation("POST", "/*/*/info/lfs/objects/batch", &[], Some(lfs)),
        ],
        writes: vec![operation("GET", "/*/*/info/refs", &[("service", "git-receive-pack")], None)],
        ..AccessSpec::default()
    })
    .unwrap()
}

fn read_only(method: &str, target: &str, body: Body<'_>) -> Result<(), Reason> {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.as_bytes())));
    let operation = Operation {
        method: method.as_bytes(),
        path: path.as_bytes(),
        query,
        disguised: false,
        media: Media::Json,
        carrier: None,
        strip: None,
    };
    github().check(AccessMode::ReadOnly, operation, || body)
}

/// Whether a `POST` to `/api` with this query is a read. The credential goes into `own`.
fn is_read(access: &Access, query: &str) -> bool {
    let operation = Operation {
        method: b"POST",
        path: b"/api",
        query: Some(query.as_bytes()),
        disguised: false,
        media: Media::Json,
        carrier: Some(b"own"),
        strip: None,
    };
    access.check(AccessMode::ReadOnly, operation, || Body::Unread).is_ok()
}

#[test]
fn read_only_is_an_allowlist() {
    for (method, target, allowed) in [
        ("GET", "/user", true),
        ("HEAD", "/user", true),
        ("OPTIONS", "/user", true),
        ("POST", "/user", false),
        ("QUERY", "/user", false),
        ("PROPFIND", "/user", false),
        ("get", "/user", false),
        ("POST", "/o/r/git-upload-pack", true),
        ("POST", "/o/r/git-receive-pack", false),
        ("GET", "/o/r/info/refs?service=git-upload-pack", true),
        ("GET", "/o/r/info/refs?service=git-receive-pack", false),
        ("GET", "/o/r/info/refs?x=1&%73ervice=git%2Dreceive-pack", false),
        ("HEAD", "/o/r/info/refs?service=git-receive-pack", false),
        ("GET", "/user?_method=DELETE", false),
        ("GET", "/user?_METHOD=DELETE", false),
        ("GET", "/user?a=1;_method=DELETE", false),
        ("GET", "/user?_method", false),
        ("GET", "/user?.method=DELETE", false),
        ("GET", "/user?_method[]=DELETE", false),
        ("GET", "/user?_method%00x=DELETE", false),
        ("GET", "/user?_method%0b=DELETE", false),
        ("GET", "/user?http.method=DELETE", false),
        ("GET", "/user?X.HTTP.Method.Override=PUT", false),
        ("GET", "/user?X-HTTP-Method-Override=PUT", false),
        ("GET", "/user?x-method-override=PUT", false),
        ("GET", "/user?x-http-method=PUT", false),
        ("GET", "/user?a=1;X-Tunneled-Method=PUT", false),
        ("GET", "/user?x-original-http-method=PUT", false),
        ("GET", "/user?method=DELETE", false),
        ("GET", "/user?Method=%64elete+", false),
        ("GET", "/user?_httpmethod=PUT", false),
        ("GET", "/user?httpMethod=patch", false),
        ("GET", "/user?a=1;http_method=MKCOL", false),
        ("GET", "/user?method=user.get", true),
        ("GET", "/user?$httpMethod=GET", false),
        ("GET", "/user?a=b&%24httpMethod=DELETE", false),
        ("GET", "/user?$httpHeaders=x", false),
        ("GET", "/user?$ct=application/json", false),
        ("GET", "/user?httpmethod=GET", true),
        ("GET", "/user?upgrade=1", true),
        ("GET", "/o/r/info/refs/?service=git-receive-pack", false),
        ("GET", "/o/r/info/refs;x=1?service=git-receive-pack", false),
        ("GET", "/o/r/INFO/refs?service=GIT-receive-pack", false),
        ("GET", "/o/r/info/refs?service=git-receive-pack%20", false),
        ("GET", "/o/r/info/refs?x=1;service=git-receive-pack", false),
        ("POST", "/o/r/GIT-upload-pack", false),
    ] {
        assert_eq!(read_only(method, target, Body::Unread).is_ok(), allowed, "{method} {target}");
    }
}

#[test]
fn a_read_known_by_its_query_has_that_value_and_no_other() {
    let action = ("action".to_owned(), "query".to_owned());
    let read = OperationSpec {
        method: "POST".into(),
        path: "/api".into(),
        query: [action].into(),
        no_other_query: false,
        body: None,
    };
    let access = Access::compile(&AccessSpec { reads: vec![read], ..AccessSpec::default() }).unwrap();
    for (query, allowed) in [
        ("action=query", true),
        ("action=query&titles=x", true),
        ("x=1&%61ction=quer%79", true),
        ("action=query&action=query", true),
        ("", false),
        ("action=delete", false),
        ("action=Query", false),
        ("action=query&action=delete", false),
        ("action=delete&action=query", false),
        ("action=query&Action=delete", false),
        ("action=query&%61ction=delete", false),
        ("action=query&action%20=delete", false),
        ("action=query&x=1;action=delete", false),
        ("action=query;action=delete", false),
        ("action=query&action[]=delete", false),
        ("action=query&action%5B0%5D=delete", false),
        ("action=query&action", false),
        // As PHP makes a variable of it.
        ("action=query&action%00=delete", false),
        ("action=query&action%00x=delete", false),
        ("action=query&action.x=delete", false),
        ("action=query&actions=delete", true),
    ] {
        assert_eq!(is_read(&access, query), allowed, "{query}");
    }
}

#[test]
fn where_no_other_parameter_may_stand_what_is_empty_or_never_arrives_is_none() {
    let read = OperationSpec {
        method: "POST".into(),
        path: "/api".into(),
        query: [("action".to_owned(), "query".to_owned())].into(),
        no_other_query: true,
        body: None,
    };
    let access = Access::compile(&AccessSpec { reads: vec![read], ..AccessSpec::default() }).unwrap();
    for (query, allowed) in [
        ("action=query", true),
        ("%61ction=query", true),
        ("&action=query&&", true),
        // Carries the credential: it is taken out, and another is set.
        ("own=attache_x&action=query", true),
        ("action=query&access_token=attache_x", true),
        ("action=query&titles=x", false),
        ("action=query&owned=x", false),
        ("action=query;titles=x", false),
        ("own=attache_x", false),
        ("", false),
    ] {
        assert_eq!(is_read(&access, query), allowed, "{query}");
    }
}

#[test]
fn a_disguised_method_is_no_read() {
    let operation = Operation {
        method: b"GET",
        path: b"/",
        query: None,
        disguised: true,
        media: Media::Unsaid,
        carrier: None,
        strip: None,
    };
    assert_eq!(github().check(AccessMode::ReadOnly, operation, || Body::Unread), Err(Reason::ReadOnly));
    assert_eq!(github().check(AccessMode::ReadWrite, operation, || Body::Unread), Ok(()));
}

#[test]
fn a_body_counts_as_what_it_is_announced_to_be() {
    let judge = |path: &[u8], media| {
        let operation =
            Operation { method: b"POST", path, query: None, disguised: false, media, carrier: None, strip: None };
        github().check(AccessMode::ReadOnly, operation, || Body::Whole(br#"{"operation":"download"}"#))
    };
    let batch = b"/o/r/info/lfs/objects/batch";
    assert_eq!(judge(batch, Media::Json), Ok(()));
    for media in [Media::Nothing, Media::Other] {
        assert_eq!(judge(batch, media), Err(Reason::BodyUnreadable), "{media:?}");
    }
    for path in [&batch[..], b"/o/r/git-upload-pack"] {
        for media in [Media::Form, Media::Unsaid] {
            assert_eq!(judge(path, media), Err(Reason::ReadOnly), "{media:?}");
        }
    }
    for media in [Media::Nothing, Media::Other] {
        assert_eq!(judge(b"/o/r/git-upload-pack", media), Ok(()), "{media:?}");
    }
}

#[test]
fn a_body_decides_where_a_rule_asks_for_it() {
    let batch = "/o/r/info/lfs/objects/batch";
    for (body, verdict) in [
        (Body::Whole(br#"{"operation":"download"}"#), Ok(())),
        (Body::Whole(br#"{"operation":"upload"}"#), Err(Reason::ReadOnly)),
        (Body::Whole(b"?"), Err(Reason::BodyUnreadable)),
        (Body::TooLarge, Err(Reason::BodyTooLarge)),
        (Body::Unread, Err(Reason::BodyUnreadable)),
    ] {
        assert_eq!(read_only("POST", batch, body), verdict, "{body:?}");
    }
}
