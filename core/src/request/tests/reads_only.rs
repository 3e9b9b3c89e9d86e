//! A read-only session reads: what is not proven to be a read is refused.

use crate::access::Body;
use crate::fixture::{PLACEHOLDER, Request, SECRET, accepted, bind, compiled, destination};
use crate::fixture::{get, granted, header, request, spec, test};
use crate::policy::{AccessMode, AccessSpec, BodyRule, OperationSpec, Policy, Unmatched};
use crate::refusal::Reason;
use crate::request::Media;

fn sends(request: Request, access_mode: AccessMode) -> Result<(), Reason> {
    let policy = compiled(Unmatched::Deny);
    let mut answer = granted("github", header("authorization", SECRET));
    answer.access_mode = access_mode;
    let grant = accepted(&policy, destination::GIT, answer);
    let request = request.with("content-type", "application/x-git-upload-pack-request");
    request.bearer(PLACEHOLDER).upstream(&policy, &grant).map(|_| ())
}

#[test]
fn reads_pass_and_writes_do_not() {
    for (method, target, allowed) in [
        ("GET", "/user", true),
        ("HEAD", "/user", true),
        ("OPTIONS", "/user", true),
        ("POST", "/o/r/git-upload-pack", true),
        ("GET", "/o/r/info/refs?service=git-upload-pack", true),
        ("POST", "/user", false),
        ("PUT", "/user", false),
        ("PATCH", "/user", false),
        ("DELETE", "/user", false),
        ("PROPFIND", "/user", false),
        ("MKCOL", "/user", false),
        ("QUERY", "/user", false),
        ("FOO", "/user", false),
        ("POST", "/o/r/git-receive-pack", false),
        ("GET", "/o/r/info/refs?service=git-receive-pack", false),
        ("HEAD", "/o/r/info/refs?service=git-receive-pack", false),
        ("GET", "/o/r/info/refs?a=1&%73ervice=git%2dreceive%2Dpack", false),
        ("GET", "/user?_method=DELETE", false),
        ("GET", "/user?a=1&%5Fmethod=DELETE", false),
    ] {
        let verdict = if allowed { Ok(()) } else { Err(Reason::ReadOnly) };
        assert_eq!(sends(request(method, "github.com", target), AccessMode::ReadOnly), verdict, "{method} {target}");
        assert_eq!(sends(request(method, "github.com", target), AccessMode::ReadWrite), Ok(()), "{method} {target}");
    }
}

#[test]
fn a_write_is_known_by_its_path_in_any_encoding() {
    for path in ["/o/r/info/ref%73", "/o/r/%69nfo/refs", "/o/r/%69%6E%66%6F/%72efs"] {
        let target = format!("{path}?service=git-receive-pack");
        assert_eq!(sends(get("github.com", &target), AccessMode::ReadOnly), Err(Reason::ReadOnly), "{target}");
        assert_eq!(sends(get("127.0.0.1", format!("/git{target}")), AccessMode::ReadOnly), Err(Reason::ReadOnly));
    }
}

#[test]
fn a_header_that_disguises_the_method_makes_it_a_write() {
    for (name, value) in
        [("x-http-method-override", "DELETE"), ("x-http-method", "PUT"), ("x-method-override", "PATCH")]
    {
        let disguised = || get("github.com", "/user").with(name, value);
        assert_eq!(sends(disguised(), AccessMode::ReadOnly), Err(Reason::ReadOnly), "{name}");
        assert_eq!(sends(disguised(), AccessMode::ReadWrite), Ok(()), "{name}");
    }
}

/// `api.github.com` with these exceptions to read-only.
fn api_with(access: AccessSpec) -> Policy {
    let mut spec = spec();
    spec.destinations[destination::API].bindings =
        vec![crate::policy::BindingSpec { access, ..bind("github", "authorization") }];
    Policy::compile(spec).unwrap()
}

fn operation(method: &str, path: &str, body: Option<BodyRule>) -> OperationSpec {
    OperationSpec { method: method.into(), path: path.into(), query: Default::default(), no_other_query: false, body }
}

fn sends_to_api(policy: &Policy, request: Request, body: Body<'_>) -> Result<(), Reason> {
    let mut answer = granted("github", header("authorization", SECRET));
    answer.access_mode = AccessMode::ReadOnly;
    let grant = accepted(policy, destination::API, answer);
    request.bearer(PLACEHOLDER).upstream_with(policy, &grant, body).map(|_| ())
}

#[test]
fn a_rule_that_names_a_write_goes_before_one_that_names_a_read() {
    let policy = api_with(AccessSpec {
        reads: vec![operation("POST", "/search/**", None)],
        writes: vec![operation("POST", "/search/save", None)],
        ..AccessSpec::default()
    });
    let post = |path: &str| {
        let request = request("POST", "api.github.com", path).with("content-type", "application/json");
        sends_to_api(&policy, request, Body::Unread)
    };
    assert_eq!(post("/search/code"), Ok(()));
    assert_eq!(post("/search/save"), Err(Reason::ReadOnly));
}

#[test]
fn a_rule_is_for_its_method_alone() {
    let policy = api_with(AccessSpec {
        reads: vec![operation("GET", "/a", None), operation("POST", "/b", None)],
        writes: vec![operation("POST", "/c", None), operation("GET", "/", None), operation("GET", "/d/", None)],
        ..AccessSpec::default()
    });
    for (method, path, allowed) in [
        ("POST", "/a", false),
        ("POST", "/b", true),
        ("PUT", "/b", false),
        ("GET", "/c", true),
        ("HEAD", "/c", true),
        // A write that ends in a slash is one with it and without.
        ("GET", "/", false),
        ("GET", "/d/", false),
        ("GET", "/d", false),
        ("GET", "/e", true),
    ] {
        let request = request(method, "api.github.com", path).with("content-type", "application/json");
        let verdict = sends_to_api(&policy, request, Body::Unread);
        assert_eq!(verdict.is_ok(), allowed, "{method} {path}");
    }
}

#[test]
fn a_form_is_no_read_however_it_is_announced() {
    // Frameworks take a method out of a form's body, and differ in what they take for a form.
    let policy = api_with(AccessSpec { reads: vec![operation("POST", "/search", None)], ..AccessSpec::default() });
    let form = "application/x-www-form-urlencoded";
    let json = "application/json";
    for lines in [
        &[("content-type", form)][..],
        &[("content-type", "Multipart/Form-Data; boundary=x")],
        &[("content-type", "application/x-www-form-urlencoded,application/json")],
        &[("content-type", "application/json,application/x-www-form-urlencoded")],
        &[("content-type", form), ("content-type", json)],
        &[("content-type", json), ("content-type", form)],
        &[("content-type", form), ("content-encoding", "gzip")],
        &[("content-encoding", "gzip"), ("content-type", form)],
        &[("content-type", "multipart/mixed; boundary=x")],
        &[("content-type", "MultiPart/Related")],
        &[("content-type", "")],
        &[("content-type", " ; charset=utf-8")],
        &[("content-type", ""), ("content-type", json)],
        &[("content-type", json), ("content-type", "")],
        &[],
        &[("content-encoding", "identity")],
        &[("content-length", "10")],
        &[("content-length", "0"), ("content-length", "10")],
        &[("content-length", "0"), ("transfer-encoding", "chunked")],
        &[("content-length", "0"), ("content-type", form)],
    ] {
        let search = request("POST", "api.github.com", "/search");
        let search = lines.iter().fold(search, |request, (name, value)| request.with(name, value));
        assert_eq!(sends_to_api(&policy, search, Body::Unread), Err(Reason::ReadOnly), "{lines:?}");
    }
}

#[test]
fn a_read_without_a_body_needs_no_type() {
    let policy = api_with(AccessSpec { reads: vec![operation("POST", "/search", None)], ..AccessSpec::default() });
    let search = || request("POST", "api.github.com", "/search").with("content-length", "0");
    assert_eq!(sends_to_api(&policy, search(), Body::Unread), Ok(()));
    assert_eq!(sends_to_api(&policy, search().with("content-type", "application/json"), Body::Unread), Ok(()));
    let binding = policy.destination(destination::API).unwrap().binding(&crate::fixture::name("github")).unwrap();
    assert!(!binding.needs_body(AccessMode::ReadOnly), "nobody waits for what nobody looks at");
}

#[test]
fn where_a_rule_asks_for_the_body_it_must_say_so() {
    let rule = BodyRule::Json { member: "operation".into(), any_of: vec!["download".into()] };
    let policy = api_with(AccessSpec {
        reads: vec![operation("POST", "/batch", Some(rule)), operation("POST", "/search", None)],
        ..AccessSpec::default()
    });
    let batch = || request("POST", "api.github.com", "/batch");
    let post =
        |body| sends_to_api(&policy, batch().with("content-type", "application/vnd.git-lfs+json; charset=utf-8"), body);
    let download = Body::Whole(br#"{"operation":"download"}"#);
    assert_eq!(post(download), Ok(()));
    for announced in [
        &[("content-type", "text/plain")][..],
        &[("content-type", "application/octet-stream")],
        &[("content-type", "text/x+json")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-length", "0")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let unsure = announced.iter().fold(batch(), |request, (name, value)| request.with(name, value));
        assert_eq!(sends_to_api(&policy, unsure, download), Err(Reason::BodyUnreadable), "{announced:?}");
    }
    let form = batch().with("content-type", "application/x-www-form-urlencoded");
    assert_eq!(sends_to_api(&policy, form, download), Err(Reason::ReadOnly));
    assert_eq!(post(Body::Whole(br#"{"operation":"upload"}"#)), Err(Reason::ReadOnly));
    assert_eq!(post(Body::Whole(b"\x1f\x8b")), Err(Reason::BodyUnreadable));
    assert_eq!(post(Body::Unread), Err(Reason::BodyUnreadable));
    assert_eq!(post(Body::TooLarge), Err(Reason::BodyTooLarge));
    let binding = policy.destination(destination::API).unwrap().binding(&crate::fixture::name("github")).unwrap();
    assert!(binding.needs_body(AccessMode::ReadOnly) && !binding.needs_body(AccessMode::ReadWrite));
}

#[test]
fn the_body_is_asked_for_only_where_a_rule_needs_it() {
    let policy = compiled(Unmatched::Deny);
    let mut answer = granted("github", header("authorization", SECRET));
    answer.access_mode = AccessMode::ReadOnly;
    let grant = accepted(&policy, destination::GIT, answer);
    for (method, target) in [("GET", "/user"), ("POST", "/user")] {
        let snapshot = request(method, "github.com", target).bearer(PLACEHOLDER).read(&policy);
        let asked = crate::request::identify(&snapshot, &policy).unwrap();
        let unasked = || -> Body<'_> { panic!("nobody needs the body of {method} {target}") };
        let verdict = crate::request::authorise(&policy, &snapshot, &asked, &grant, unasked);
        assert_eq!(verdict.is_ok(), method == "GET");
    }
}

#[test]
fn a_body_is_what_its_type_says_and_nothing_certain_where_that_says_more() {
    for (written, media) in [
        ("application/json", Media::Json),
        ("Application/JSON; charset=utf-8", Media::Json),
        ("application/graphql+json", Media::Json),
        ("application/graphql", Media::Graphql),
        ("application/graphql; charset=\"utf-8\"", Media::Graphql),
        ("application/graphql; charset=utf-16", Media::Other),
        ("application/vnd.api+json", Media::OnJson),
        ("application/grpc", Media::Grpc),
        ("application/grpc+proto", Media::Grpc),
        ("text/plain", Media::Other),
    ] {
        let asked = request("POST", "api.github.com", "/graphql").with("content-type", written);
        assert_eq!(asked.read(&compiled(Unmatched::Deny)).media(), media, "{written}");
        let encoded = asked.with("content-encoding", "gzip").read(&compiled(Unmatched::Deny)).media();
        assert!(!matches!(encoded, Media::Json | Media::OnJson | Media::Graphql), "{written}");
    }
}
