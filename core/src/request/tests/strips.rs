//! Exactly one credential goes upstream: whatever the agent brought along is taken out.

use crate::evidence::AUTH_HEADERS;
use crate::fixture::{ANOTHER, OWN, PLACEHOLDER, Request, SECRET, SESSION};
use crate::fixture::{accepted, compiled, destination, get, granted, header, request, spec, test};
use crate::policy::{AccessMode, CompanionSpec, OperationSpec, Policy, Spec, StripSpec, Unmatched};
use crate::refusal::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn upstream(request: &Request) -> Result<Request, Reason> {
    let policy = compiled(Unmatched::Deny);
    let injection = header("authorization", &format!("Bearer {SECRET}"));
    request.upstream(&policy, &accepted(&policy, destination::API, granted("github", injection)))
}

fn api() -> Request {
    get("api.github.com", "/user").bearer(PLACEHOLDER)
}

/// What must hold of everything that is sent on.
fn assert_only_ours(sent: &Request, what: &str) {
    assert_eq!(sent.all("authorization"), [format!("Bearer {SECRET}")], "{what}");
    for foreign in [PLACEHOLDER, OWN, SESSION] {
        assert!(!sent.holds(foreign), "{what}: {foreign} in {sent:?}");
    }
}

#[test]
fn the_placeholder_is_replaced() {
    let sent = upstream(&api().with("accept", "text/plain")).unwrap();
    assert_only_ours(&sent, "a plain request");
    assert_eq!(sent.all("accept"), ["text/plain"], "what is no credential stays");
    assert_eq!(sent.target(), "/user");
}

#[test]
fn every_header_that_carries_a_credential_somewhere_is_taken_out() {
    for name in AUTH_HEADERS {
        let name = std::str::from_utf8(name).unwrap();
        assert_only_ours(&upstream(&api().with(name, OWN)).unwrap(), name);
        assert_only_ours(&upstream(&api().with(name, OWN).with(name, OWN)).unwrap(), name);
    }
}

#[test]
fn a_carrier_that_only_this_config_names_is_taken_out_everywhere() {
    for name in ["x-unifi-key", "x-device-key"] {
        assert_only_ours(&upstream(&api().with(name, OWN)).unwrap(), name);
    }
}

#[test]
fn a_session_token_stays_here() {
    assert_only_ours(&upstream(&api().with("x-attache-session", SESSION)).unwrap(), "x-attache-session");
    assert_only_ours(&upstream(&api().with("x-attache-reason", OWN)).unwrap(), "a header of ours, made up");
}

#[test]
fn a_placeholder_shown_in_several_headers_leaves_in_none() {
    assert_only_ours(&upstream(&api().with("x-api-key", PLACEHOLDER)).unwrap(), "x-api-key");
}

#[test]
fn every_parameter_that_carries_a_credential_somewhere_is_taken_out_in_any_encoding() {
    for name in [
        "access_token",
        "%61ccess_token",
        "access%5Ftoken",
        "access%5ftoken",
        "Access_Token",
        "ACCESS%5FTOKEN",
        "api_key",
        "apikey",
        "apiKey",
        "api-key",
        "auth_token",
        "private_token",
        "job_token",
        "oauth_token",
        "X-Amz-Security-Token",
        "x-amz-security-token",
    ] {
        for (query, kept) in [
            (format!("{name}={OWN}"), ""),
            (format!("a=1&{name}={OWN}&b=%20"), "?a=1&b=%20"),
            (format!("{name}={OWN}&{name}={OWN}&a"), "?a"),
        ] {
            let request = get("api.github.com", format!("/user?{query}")).bearer(PLACEHOLDER);
            let sent = upstream(&request).unwrap();
            assert_only_ours(&sent, &query);
            assert_eq!(sent.target(), format!("/user{kept}"), "{query}");
        }
    }
}

/// The API, which takes a credential in `x-own-key` and `?key=` as well.
fn strict() -> Policy {
    let mut spec = spec();
    spec.destinations[destination::API].strip =
        StripSpec { headers: vec!["X-Own-Key".into()], query: vec!["key".into()] };
    Policy::compile(spec).unwrap()
}

/// What arrives upstream of a request to it, or to another destination of the same policy.
fn beside_strict(request: &Request, index: usize) -> Result<Request, Reason> {
    let policy = strict();
    let injection = header("authorization", &format!("Bearer {SECRET}"));
    request.upstream(&policy, &accepted(&policy, index, granted("github", injection)))
}

#[test]
fn what_a_destination_takes_besides_is_taken_out_there_and_nowhere_else() {
    for name in ["key", "KEY", "%6bey"] {
        let target = format!("/user?a=1&{name}={OWN};b=2&keys=3");
        let request = get("api.github.com", &target).bearer(PLACEHOLDER).with("x-own-key", OWN).with("x-own-key", OWN);
        let sent = beside_strict(&request, destination::API).unwrap();
        assert_only_ours(&sent, name);
        assert_eq!(sent.target(), "/user?a=1&keys=3");
        assert!(sent.all("x-own-key").is_empty());
    }
    let elsewhere = get("github.com", format!("/o/r?key={OWN}")).bearer(PLACEHOLDER).with("x-own-key", OWN);
    let sent = beside_strict(&elsewhere, destination::GIT).unwrap();
    assert_eq!((sent.target(), sent.all("x-own-key")), (format!("/o/r?key={OWN}"), vec![OWN.to_owned()]));
}

#[test]
fn a_placeholder_may_stand_where_the_destination_takes_a_credential() {
    let basic = format!("Basic {}", STANDARD.encode(format!("x:{PLACEHOLDER}")));
    for request in [
        get("api.github.com", format!("/user?key={PLACEHOLDER}")),
        get("api.github.com", "/user").with("x-own-key", PLACEHOLDER),
        get("api.github.com", "/user").with("x-own-key", &basic),
    ] {
        assert_only_ours(&beside_strict(&request, destination::API).unwrap(), "in its place");
    }
    for request in [
        get("api.github.com", format!("/user?KEY={PLACEHOLDER}")),
        get("api.github.com", format!("/user?keys={PLACEHOLDER}")),
        get("github.com", format!("/o/r?key={PLACEHOLDER}")),
        get("github.com", "/o/r").with("x-own-key", PLACEHOLDER),
    ] {
        let why = beside_strict(&request, destination::API).err();
        assert_eq!(why, Some(Reason::PlaceholderMisplaced), "{request:?}");
    }
    let two = get("api.github.com", "/user").bearer(PLACEHOLDER).with("x-own-key", ANOTHER);
    assert_eq!(beside_strict(&two, destination::API).err(), Some(Reason::EvidenceConflict));
}

#[test]
fn a_read_is_known_by_what_arrives() {
    let mut spec = spec();
    let api = &mut spec.destinations[destination::API];
    let wanted = [("key".to_owned(), "list".to_owned())].into();
    let read =
        OperationSpec { method: "POST".into(), path: "/x".into(), query: wanted, no_other_query: false, body: None };
    api.bindings[0].access.reads.push(read);
    let arrives = |spec: &Spec| {
        let policy = Policy::compile(spec.clone()).unwrap();
        let mut answer = granted("github", header("authorization", SECRET));
        answer.access_mode = AccessMode::ReadOnly;
        let request = request("POST", "api.github.com", "/x?key=list").bearer(PLACEHOLDER);
        let request = request.with("content-type", "application/json");
        request.upstream(&policy, &accepted(&policy, destination::API, answer)).map(drop)
    };
    assert_eq!(arrives(&spec), Ok(()));
    spec.destinations[destination::API].strip.query.push("key".into());
    assert_eq!(arrives(&spec), Err(Reason::ReadOnly));
}

#[test]
fn what_is_taken_out_is_not_set_beside_the_credential() {
    let mut spec = spec();
    let api = &mut spec.destinations[destination::API];
    api.strip.headers.push("x-own-key".into());
    api.bindings[0].with.push(CompanionSpec { header: "X-Own-Key".into(), value: "a".into(), merge: true });
    assert!(Policy::compile(spec).is_err());
}

#[test]
fn what_is_no_credential_is_not_touched() {
    for target in ["/user", "/user?", "/user?a=1&&b=%2f&access_token2=x&=y", "/user?q=access_token=1"] {
        let request = get("api.github.com", target).bearer(PLACEHOLDER);
        assert_eq!(upstream(&request).unwrap().target(), target);
    }
}

#[test]
fn a_grant_that_does_not_fill_the_carrier_is_not_used() {
    // An answer for another form than the policy's would leave the placeholder's place empty.
    let policy = compiled(Unmatched::Deny);
    for injection in [header("x-api-key", SECRET), crate::fixture::query("authorization", SECRET)] {
        let grant = accepted(&policy, destination::API, granted("github", injection));
        assert_eq!(api().upstream(&policy, &grant).err(), Some(Reason::BrokerUnavailable));
    }
}

#[test]
fn a_grant_may_set_more_than_the_credential() {
    // Anthropic's OAuth tokens need a header beside them.
    let policy = compiled(Unmatched::Deny);
    let mut answer = granted("github", header("authorization", SECRET));
    answer.injections.push(header("x-api-key", "second"));
    let sent = api().with("x-api-key", OWN).upstream(&policy, &accepted(&policy, destination::API, answer)).unwrap();
    assert_eq!((sent.all("authorization"), sent.all("x-api-key")), (vec![SECRET.into()], vec!["second".into()]));
}
