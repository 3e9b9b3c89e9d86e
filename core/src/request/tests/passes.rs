//! What goes on without a credential, and only where the config says so.

use crate::fixture::{OWN, PLACEHOLDER, SESSION, compiled, get, test};
use crate::fixture::{accepted, bind, destination, granted, header, spec};
use crate::policy::{Policy, Unmatched};
use crate::refusal::Reason;
use crate::request::{Snapshot, Way, authorise, identify};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[test]
fn an_unknown_host_is_refused_unless_the_config_lets_it_pass() {
    let request = get("unknown.example", "/x?a=1").bearer(OWN);
    assert_eq!(request.identify(&compiled(Unmatched::Deny)).err(), Some(Reason::HostNotAllowed));
    assert_eq!(request.identify(&compiled(Unmatched::Pass)).unwrap().way, Way::Unmatched);
}

#[test]
fn a_placeholder_never_passes_to_an_unknown_host() {
    let basic = format!("Basic {}", STANDARD.encode(format!("u:{PLACEHOLDER}")));
    let to = |target: &str| get("unknown.example", target);
    for (what, request) in [
        ("bearer", to("/").bearer(PLACEHOLDER)),
        ("Basic", to("/").with("authorization", &basic)),
        ("Basic for the proxy", to("/").with("proxy-authorization", &basic)),
        ("cookie", to("/").with("cookie", format!("a={PLACEHOLDER}"))),
        ("any header", to("/").with("x-custom", PLACEHOLDER)),
        ("path", to(&format!("/{PLACEHOLDER}"))),
        ("query", to(&format!("/?key={PLACEHOLDER}"))),
        ("session token", to("/").with("x-attache-session", SESSION)),
    ] {
        assert_eq!(request.identify(&compiled(Unmatched::Pass)).err(), Some(Reason::PlaceholderMisplaced), "{what}");
    }
}

#[test]
fn an_odd_authority_passes_nowhere() {
    for authority in ["", "api.github.com.", "2130706433", "0x7f.1", "a@b", "a,b", "[::1%25lo]"] {
        let request = get(authority, "/x");
        assert_eq!(request.identify(&compiled(Unmatched::Pass)).err(), Some(Reason::AuthorityMalformed), "{authority}");
    }
}

#[test]
fn a_destination_may_let_requests_without_a_placeholder_pass() {
    let policy = compiled(Unmatched::Deny);
    let way = |request: crate::fixture::Request| request.identify(&policy).map(|asked| asked.way);
    let open = || get("open.example", "/x");
    assert_eq!(way(open()), Ok(Way::Unclaimed(destination::OPEN)));
    assert_eq!(way(open().bearer(OWN)), Ok(Way::Unclaimed(destination::OPEN)));
    assert_eq!(way(open().bearer(PLACEHOLDER)), Ok(Way::Managed(destination::OPEN)));
    assert_eq!(way(open().with("x-custom", PLACEHOLDER)), Err(Reason::PlaceholderMisplaced));
    assert_eq!(way(get("api.github.com", "/x")), Err(Reason::IdentityRequired), "unlike the others");
}

#[test]
fn one_credential_that_demands_a_placeholder_is_enough() {
    let mut spec = spec();
    spec.destinations[destination::OPEN].bindings.push(bind("strict", "x-api-key"));
    let both = Policy::compile(spec.clone()).unwrap();
    assert_eq!(get("open.example", "/x").identify(&both).err(), Some(Reason::IdentityRequired));
    spec.destinations[destination::OPEN].bindings.clear();
    let none = Policy::compile(spec).unwrap();
    assert_eq!(get("open.example", "/x").identify(&none).err(), Some(Reason::IdentityRequired), "nor is none a yes");
}

#[test]
fn a_client_that_waits_for_a_challenge_gets_one() {
    // git sends its credential only after a 401 with a Basic challenge; others would be confused.
    let mut spec = spec();
    spec.destinations[destination::GIT].bindings.push(bind("other", "x-other"));
    let policy = Policy::compile(spec).unwrap();
    for (authority, target, wants) in [
        ("github.com", "/o/r/info/refs?service=git-upload-pack", true),
        ("127.0.0.1:3030", "/git/o/r/info/refs", true),
        ("api.github.com", "/git/", false),
        ("127.0.0.1:3030", "/github/x", false),
        ("127.0.0.1:3030", "/", false),
        ("", "", false),
    ] {
        assert_eq!(policy.wants_challenge(authority.as_bytes(), target.as_bytes()), wants, "{authority}{target}");
    }
}

#[test]
fn no_grant_is_used_for_a_request_that_showed_nothing() {
    let policy = compiled(Unmatched::Pass);
    let grant = accepted(&policy, destination::OPEN, granted("open", header("authorization", "x")));
    for authority in ["open.example", "unknown.example"] {
        let snapshot = get(authority, "/x").read(&policy);
        let asked = identify(&snapshot, &policy).unwrap();
        let verdict = authorise(&policy, &snapshot, &asked, &grant, || crate::access::Body::Unread);
        assert_eq!(verdict.err(), Some(Reason::Internal), "{authority}");
    }
}

#[test]
fn a_request_that_waited_is_read_again_under_the_policy_that_came_meanwhile() {
    let request = get("open.example", "/x").with("x-late-key", PLACEHOLDER);
    let early = request.read(&compiled(Unmatched::Deny));
    let way = |snapshot: &Snapshot, policy: &Policy| identify(snapshot, policy).map(|asked| asked.way);
    assert_eq!(way(&early, &compiled(Unmatched::Deny)), Err(Reason::PlaceholderMisplaced));
    let mut spec = spec();
    spec.destinations[destination::OPEN].bindings.push(bind("late", "x-late-key"));
    let policy = Policy::compile(spec).unwrap();
    let late = Snapshot::read(early.into_bytes(), &policy);
    assert_eq!(way(&late, &policy), Ok(Way::Managed(destination::OPEN)));
    assert_eq!(late.into_bytes(), request.bytes(), "nothing of it is lost");
}
