//! Whom the door lets in where to, by table.

use super::{Call, Inside, Passage, evidence, names_a_session};
use crate::connection::{Connection, Property};
use crate::digest::Digest;
use crate::fixture::{self, ANOTHER, PLACEHOLDER, Request, SESSION, destination, request, spec, test};
use crate::policy::{Policy, Spec, Unmatched};
use crate::refusal::Reason;
use crate::wire::EvidenceDigests;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The standard policy, with a destination that is reached without TLS.
fn policy(unmatched: Unmatched, intercept_unmatched: bool) -> Policy {
    let mut spec = Spec { unmatched, intercept_unmatched, ..spec() };
    let mut plain = spec.destinations[destination::OPEN].clone();
    plain.id = "plain.example:80".into();
    plain.authorities.clear();
    plain.plaintext = true;
    spec.destinations.push(plain);
    Policy::compile(spec).unwrap()
}

fn leads(policy: &Policy, request: &Request) -> Result<(String, Passage), Reason> {
    Call::read(&request.read(policy), policy).map(|call| (call.id(), call.passage))
}

fn connect(authority: &str) -> Request {
    Request(Vec::new()).with(":method", "CONNECT").with(":authority", authority)
}

#[test]
fn a_tunnel_leads_where_the_policy_leads() {
    use Passage::{Intercepted, Opaque};
    let (deny, pass, intercept) =
        (policy(Unmatched::Deny, false), policy(Unmatched::Pass, false), policy(Unmatched::Pass, true));
    let not_allowed = Err(Reason::HostNotAllowed);
    for (authority, denied, passed, intercepted) in [
        ("api.github.com:443", Ok(Intercepted), Ok(Intercepted), Ok(Intercepted)),
        ("API.GitHub.com:443", Ok(Intercepted), Ok(Intercepted), Ok(Intercepted)),
        ("192.168.1.1:8443", Ok(Intercepted), Ok(Intercepted), Ok(Intercepted)),
        ("pinned.example:443", Ok(Opaque), Ok(Opaque), Ok(Opaque)),
        ("unknown.example:443", not_allowed, Ok(Opaque), Ok(Intercepted)),
        ("unknown.example:8443", not_allowed, not_allowed, not_allowed),
        ("unknown.example:80", not_allowed, not_allowed, not_allowed),
        ("api.github.com:8443", not_allowed, not_allowed, not_allowed),
        ("pinned.example:8443", not_allowed, not_allowed, not_allowed),
        // An address is no name that could be vetted.
        ("192.0.2.1:443", not_allowed, not_allowed, not_allowed),
        ("[2001:db8::1]:443", not_allowed, not_allowed, not_allowed),
        // A tunnel to what is reached without TLS.
        ("plain.example:80", not_allowed, not_allowed, not_allowed),
    ] {
        for (policy, expected) in [(&deny, denied), (&pass, passed), (&intercept, intercepted)] {
            let expected = expected.map(|passage| (authority.to_lowercase(), passage));
            assert_eq!(leads(policy, &connect(authority)), expected, "{authority}");
        }
    }
}

#[test]
fn a_tunnel_has_one_host_and_a_port() {
    let policy = policy(Unmatched::Pass, false);
    for authority in
        ["", "api.github.com", "api.github.com:", "api.github.com.:443", "u@api.github.com:443", "2130706433:443"]
    {
        assert_eq!(leads(&policy, &connect(authority)), Err(Reason::AuthorityMalformed), "{authority:?}");
    }
}

#[test]
fn plain_http_reaches_what_is_reached_without_tls() {
    let (deny, pass) = (policy(Unmatched::Deny, false), policy(Unmatched::Pass, true));
    let plain = |id: &str| Ok((id.to_owned(), Passage::Plain));
    let (tls, not_allowed) = (Err(Reason::TlsRequired), Err(Reason::HostNotAllowed));
    for (authority, denied, passed) in [
        ("plain.example", plain("plain.example:80"), plain("plain.example:80")),
        ("plain.example:80", plain("plain.example:80"), plain("plain.example:80")),
        ("plain.example:443", not_allowed.clone(), not_allowed.clone()),
        ("api.github.com", tls.clone(), tls.clone()),
        ("api.github.com:80", tls.clone(), tls.clone()),
        ("api.github.com:443", tls.clone(), tls.clone()),
        ("unknown.example", not_allowed.clone(), plain("unknown.example:80")),
        ("unknown.example:8080", not_allowed.clone(), not_allowed.clone()),
        ("pinned.example", not_allowed.clone(), plain("pinned.example:80")),
        ("192.0.2.1", not_allowed.clone(), not_allowed.clone()),
    ] {
        for (policy, expected) in [(&deny, denied), (&pass, passed)] {
            assert_eq!(leads(policy, &request("GET", authority, "/")), expected, "{authority}");
            // Whoever asks for TLS is not served without.
            let secured = request("GET", authority, "/").with(":scheme", "HTTPS");
            assert_eq!(leads(policy, &secured), tls, "{authority}");
        }
    }
}

#[test]
fn who_asks_is_read_from_two_headers_and_no_other() {
    let policy = fixture::compiled(Unmatched::Deny);
    let shown = |request: Request| {
        let snapshot = request.read(&policy);
        evidence(&snapshot).map(|evidence| (evidence.session_token, names_a_session(&evidence)))
    };
    let tunnel = || connect("api.github.com:443");
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("any:{password}")));
    let (mine, nobody) = (Ok((Some(Digest::of(SESSION.as_bytes())), true)), Ok((None, false)));
    for (what, request, expected) in [
        ("nothing", tunnel(), nobody),
        ("Basic", tunnel().with("proxy-authorization", basic(SESSION)), mine),
        ("Bearer", tunnel().with("proxy-authorization", format!("Bearer {SESSION}")), mine),
        ("our own header", tunnel().with("x-attache-session", SESSION), mine),
        ("twice", tunnel().with("x-attache-session", SESSION).with("proxy-authorization", basic(SESSION)), mine),
        ("somebody else's password", tunnel().with("proxy-authorization", basic("open sesame")), nobody),
        (
            "two tokens",
            tunnel().with("x-attache-session", ANOTHER).with("proxy-authorization", basic(SESSION)),
            Err(Reason::EvidenceConflict),
        ),
        (
            "elsewhere",
            tunnel().with("authorization", format!("Bearer {PLACEHOLDER}")),
            Err(Reason::PlaceholderMisplaced),
        ),
        ("anywhere", tunnel().with("x-custom", PLACEHOLDER), Err(Reason::PlaceholderMisplaced)),
        (
            "a name to be resolved",
            request("GET", format!("{PLACEHOLDER}.example"), "/").with("x-attache-session", SESSION),
            Err(Reason::PlaceholderMisplaced),
        ),
        (
            "a way to somebody behind the proxy",
            request("GET", "plain.example", "/").with("authorization", format!("Bearer {PLACEHOLDER}")),
            nobody,
        ),
        (
            "too long",
            tunnel().with("x-attache-session", format!("{SESSION}{}", "x".repeat(4096))),
            Err(Reason::PlaceholderUnknown),
        ),
    ] {
        assert_eq!(shown(request), expected, "{what}");
    }
}

#[test]
fn what_the_connection_shows_is_evidence_too_but_an_address_names_nobody() {
    let policy = fixture::compiled(Unmatched::Deny);
    let shown = |said: &[(Property, &[u8])], listener: Option<&str>| {
        let mut connection = Connection::of(listener.map(fixture::name));
        said.iter().for_each(|(property, said)| connection.learn(*property, said));
        let evidence = evidence(&connect("api.github.com:443").read(&policy).on(connection)).unwrap();
        let named = names_a_session(&evidence);
        (evidence, named)
    };
    let (verified, peer) = ((Property::PeerVerified, &[1][..]), (Property::Peer, &b"spiffe://test/a"[..]));
    let source = (Property::Source, &b"127.0.0.1:1"[..]);
    let nothing = EvidenceDigests::default();
    let of_peer = EvidenceDigests { peer: Some("spiffe://test/a".into()), ..nothing.clone() };
    let of_source = EvidenceDigests { source: "127.0.0.1".parse().ok(), ..nothing.clone() };
    let of_listener = EvidenceDigests { listener: Some(fixture::name("inner")), ..nothing.clone() };
    assert_eq!(shown(&[], None), (nothing.clone(), false));
    assert_eq!(shown(&[peer], None), (nothing, false), "a certificate that nobody verified");
    assert_eq!(shown(&[verified, peer], None), (of_peer, true));
    assert_eq!(shown(&[source], None), (of_source, false));
    assert_eq!(shown(&[], Some("inner")), (of_listener, true));
}

#[test]
fn a_passage_has_its_word_in_records_and_its_listener() {
    for (passage, word, cluster) in [
        (Passage::Intercepted, "intercept", "attache_intercept"),
        (Passage::Opaque, "tunnel", "attache_tunnel"),
        // Nothing is between it and where it goes.
        (Passage::Plain, "plain", ""),
    ] {
        assert_eq!((passage.as_str(), passage.cluster()), (word, cluster));
    }
}

#[test]
fn what_is_told_inside_reads_in_one_way() {
    let token = Digest::of(SESSION.as_bytes()).to_hex();
    for good in [
        "- a.example:443 - - -".to_owned(),
        format!("{token} [::1]:8443 127.0.0.1 spiffe://example/agent attache"),
        "- a.example:443 ::1 - attache".to_owned(),
    ] {
        assert_eq!(Inside::parse(good.as_bytes()).map(|inside| inside.to_string()), Some(good));
    }
    for bad in [
        String::new(),
        "-".into(),
        "- a.example:443 - -".into(),
        "- a.example:443 - - - ".into(),
        "- a.example:443 - - - -".into(),
        " - a.example:443 - - -".into(),
        "-  a.example:443 - - -".into(),
        "- - - - -".into(),
        "- a.example - - -".into(),
        "- A.example:443 - - -".into(),
        "- a.example:0443 - - -".into(),
        "- a.example:443 localhost - -".into(),
        "- a.example:443 - - No_Name!".into(),
        format!("{} a.example:443 - - -", &token[1..]),
        format!("{} a.example:443 - - -", token.replace(|c: char| c.is_ascii_digit(), "x")),
    ] {
        assert_eq!(Inside::parse(bad.as_bytes()), None, "{bad:?}");
    }
    assert_eq!(Inside::parse(b"- a.example:443 - \xff -"), None);
}
