//! Behind the door of a forward proxy: a request goes where it was let through to, by that way, and nowhere else.

use crate::connection::{Connection, Property};
use crate::digest::Digest;
use crate::fixture::{PLACEHOLDER, Request, SESSION, destination, get, request, spec, test};
use crate::policy::{MissingPlaceholder, Policy, Spec, Unmatched};
use crate::refusal::Reason;
use crate::request::{Asked, Snapshot, Way, identify};
use crate::wire::Transport;

/// The index of the destination that [`policy`] adds.
const PLAIN: usize = destination::DEVICE + 1;

/// The standard policy, with a destination that is reached without TLS; the first one needs no placeholder.
fn policy(unmatched: Unmatched) -> Policy {
    let mut spec = Spec { unmatched, ..spec() };
    let mut plain = spec.destinations[destination::OPEN].clone();
    plain.id = "plain.example:80".into();
    plain.authorities = vec!["plain.example".into()];
    plain.plaintext = true;
    spec.destinations.push(plain);
    spec.destinations[destination::API].bindings[0].missing_placeholder = MissingPlaceholder::Inject;
    Policy::compile(spec).unwrap()
}

/// A connection of which the proxy says all that is asked for: what the door found, and whom the handshake names.
fn connection(transport: Transport, found: &str, server_name: &str) -> Connection {
    let mut connection = Connection::of(None).by(transport);
    for property in Property::behind_the_door(transport).unwrap() {
        let said = if *property == Property::Inside { found } else { server_name };
        connection.learn(*property, said.as_bytes());
    }
    connection
}

/// What the door wrote of somebody whom nothing identified, let through to this place.
fn let_through_to(id: &str) -> String {
    format!("- {id} - - -")
}

fn asked(policy: &Policy, request: &Request, connection: Connection) -> Result<(Asked, Snapshot), Reason> {
    let snapshot = request.read(policy).on(connection);
    identify(&snapshot, policy).map(|asked| (asked, snapshot))
}

fn way(policy: &Policy, request: &Request, connection: Connection) -> Result<Way, Reason> {
    asked(policy, request, connection).map(|(asked, _)| asked.way)
}

#[test]
fn a_request_in_a_tunnel_goes_to_the_host_and_port_of_the_tunnel_and_of_the_handshake() {
    let policy = policy(Unmatched::Deny);
    let mismatch = Err(Reason::DestinationMismatch);
    for (inside, server_name, authority, expected) in [
        ("api.github.com:443", "api.github.com", "api.github.com", Ok(Way::Managed(destination::API))),
        ("api.github.com:443", "api.github.com", "api.github.com:443", Ok(Way::Managed(destination::API))),
        ("api.github.com:443", "API.github.com", "API.GitHub.com", Ok(Way::Managed(destination::API))),
        ("github.com:443", "github.com", "github.com", Ok(Way::Managed(destination::GIT))),
        ("unifi.lan:8443", "unifi.lan", "unifi.lan:8443", Ok(Way::Managed(destination::UNIFI))),
        // Each of the three names another host, or another port.
        ("api.github.com:443", "api.github.com", "github.com", mismatch),
        ("api.github.com:443", "github.com", "github.com", mismatch),
        ("api.github.com:443", "github.com", "api.github.com", mismatch),
        ("github.com:443", "api.github.com", "api.github.com", mismatch),
        ("unifi.lan:8443", "unifi.lan", "unifi.lan", mismatch),
        ("api.github.com:443", "api.github.com", "api.github.com:8443", mismatch),
        // The handshake named none.
        ("api.github.com:443", "", "api.github.com", mismatch),
        ("unknown.example:443", "unknown.example", "unknown.example", Err(Reason::HostNotAllowed)),
        ("api.github.com:443", "api.github.com", "u@api.github.com", Err(Reason::AuthorityMalformed)),
        // What is reached without TLS is reached by no tunnel.
        ("plain.example:80", "plain.example", "plain.example:80", Err(Reason::TlsRequired)),
    ] {
        let connection = connection(Transport::Intercepted, &let_through_to(inside), server_name);
        let request = get(authority, "/x").bearer(PLACEHOLDER);
        assert_eq!(way(&policy, &request, connection), expected, "{inside}, {server_name}, {authority}");
    }
}

#[test]
fn a_plain_request_goes_to_the_host_and_port_it_was_let_through_to() {
    let policy = policy(Unmatched::Deny);
    for (inside, authority, expected) in [
        ("plain.example:80", "plain.example", Ok(Way::Managed(PLAIN))),
        ("plain.example:80", "Plain.example:80", Ok(Way::Managed(PLAIN))),
        ("plain.example:80", "plain.example:443", Err(Reason::DestinationMismatch)),
        ("plain.example:80", "api.github.com", Err(Reason::DestinationMismatch)),
        ("other.example:80", "plain.example", Err(Reason::DestinationMismatch)),
        // What is reached by TLS gets nothing without.
        ("api.github.com:443", "api.github.com:443", Err(Reason::TlsRequired)),
        ("unknown.example:80", "unknown.example", Err(Reason::HostNotAllowed)),
    ] {
        let connection = connection(Transport::Plain, &let_through_to(inside), "");
        let request = get(authority, "/x").bearer(PLACEHOLDER);
        assert_eq!(way(&policy, &request, connection), expected, "{inside}, {authority}");
    }
}

#[test]
fn without_a_word_from_the_door_nobody_was_let_in() {
    let policy = policy(Unmatched::Pass);
    for found in ["", "-", "api.github.com:443"] {
        for (transport, authority) in [
            (Transport::Intercepted, "api.github.com"),
            (Transport::Intercepted, "unknown.example"),
            (Transport::Plain, "plain.example"),
        ] {
            let connection = connection(transport, found, authority);
            let request = get(authority, "/x").bearer(PLACEHOLDER);
            assert_eq!(way(&policy, &request, connection), Err(Reason::Internal), "{found:?} {authority}");
        }
    }
}

#[test]
fn a_route_prefix_leads_nowhere_behind_the_door() {
    let policy = policy(Unmatched::Deny);
    let inside = |id: &str| connection(Transport::Intercepted, &let_through_to(id), "github.com");
    let prefixed = get("github.com", "/github/user").bearer(PLACEHOLDER);
    let (asked, snapshot) = asked(&policy, &prefixed, inside("github.com:443")).unwrap();
    assert_eq!((asked.way, asked.path.of(snapshot.bytes())), (Way::Managed(destination::GIT), &b"/github/user"[..]));
    let connection = connection(Transport::Intercepted, &let_through_to("gateway.example:443"), "gateway.example");
    let elsewhere = get("gateway.example", "/github/user").bearer(PLACEHOLDER);
    assert_eq!(way(&policy, &elsewhere, connection), Err(Reason::HostNotAllowed));
}

#[test]
fn in_a_tunnel_to_a_host_that_nobody_named_only_http_is_spoken() {
    let policy = policy(Unmatched::Pass);
    let id = |transport| if transport == Transport::Plain { "unknown.example:80" } else { "unknown.example:443" };
    let behind = |transport| connection(transport, &let_through_to(id(transport)), "unknown.example");
    let upgrade = get("unknown.example", "/live").with("upgrade", "websocket");
    assert_eq!(way(&policy, &upgrade, behind(Transport::Intercepted)), Err(Reason::UpgradeRefused));
    assert_eq!(way(&policy, &upgrade, behind(Transport::Plain)), Ok(Way::Unmatched));
    let http = request("POST", "unknown.example", "/live");
    assert_eq!(way(&policy, &http, behind(Transport::Intercepted)), Ok(Way::Unmatched));
    assert_eq!(way(&policy, &http, behind(Transport::Plain)), Ok(Way::Unmatched));
}

#[test]
fn the_token_that_was_shown_at_the_door_counts_inside_as_if_it_stood_in_the_request() {
    let policy = policy(Unmatched::Deny);
    let token = Digest::of(SESSION.as_bytes());
    let behind =
        |host: &str, token: &str| connection(Transport::Intercepted, &format!("{token} {host}:443 - - -"), host);
    let (api, git) = (get("api.github.com", "/user"), get("github.com", "/user"));
    let mine = || behind("api.github.com", &token.to_hex());

    let (shown, snapshot) = asked(&policy, &api, mine()).unwrap();
    assert_eq!(shown.way, Way::Managed(destination::API));
    assert_eq!(shown.evidence.digests(&snapshot).session_token, Some(token));
    assert_eq!(shown.evidence.word(&snapshot), "session_token");
    // It opens no destination that demands a placeholder, and nothing is opened without.
    let of_git = behind("github.com", &token.to_hex());
    assert_eq!(way(&policy, &git, of_git), Err(Reason::IdentityRequired));
    assert_eq!(way(&policy, &api, behind("api.github.com", "-")), Err(Reason::IdentityRequired));

    let again = api.clone().with("x-attache-session", SESSION);
    assert_eq!(way(&policy, &again, mine()), Ok(Way::Managed(destination::API)));
    let another = api.clone().with("x-attache-session", SESSION.replace('9', "8"));
    assert_eq!(way(&policy, &another, mine()), Err(Reason::EvidenceConflict));

    // Nor is what is remembered of one who showed it remembered of one who did not.
    let parts = |connection| {
        let (asked, snapshot) = asked(&policy, &api.clone().bearer(PLACEHOLDER), connection).unwrap();
        let mut parts: Vec<Vec<u8>> = Vec::new();
        asked.evidence.for_each_part(&snapshot, |part| parts.push(part.to_vec()));
        parts
    };
    assert_ne!(parts(mine()), parts(behind("api.github.com", "-")));
    assert_ne!(parts(mine()), parts(behind("api.github.com", &Digest::of(b"another").to_hex())));
}
