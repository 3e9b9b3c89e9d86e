//! Exactly one credential goes upstream: whatever the agent brought along is taken out.

use crate::access::Body;
use crate::evidence::AUTH_HEADERS;
use crate::fixture::{OWN, PLACEHOLDER, Request, SECRET, SESSION};
use crate::fixture::{accepted, compiled, destination, get, granted, header, test};
use crate::policy::Unmatched;
use crate::refusal::Reason;
use crate::request::{authorise, identify};
use crate::worker::Grant;

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
fn what_is_set_is_read_back_until_it_stood_alone_and_wherever_there_was_more_of_it() {
    let policy = compiled(Unmatched::Deny);
    let grant = || accepted(&policy, destination::API, granted("github", header("authorization", SECRET)));
    let is_certain = |request: &Request, grant: &Grant| {
        let snapshot = request.read(&policy);
        let asked = identify(&snapshot, &policy).unwrap();
        authorise(&policy, &snapshot, &asked, grant, || Body::Unread).unwrap().is_certain()
    };
    let seen = grant();
    assert!(!is_certain(&api(), &seen), "nobody has looked yet");
    seen.saw_alone();
    assert!(is_certain(&api(), &seen));
    assert!(!is_certain(&api().with("authorization", OWN), &seen), "two lines to replace");
    assert!(!is_certain(&api(), &grant()), "another grant");
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
