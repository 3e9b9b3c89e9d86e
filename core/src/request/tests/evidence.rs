//! Who asks: a placeholder is recognised wherever it belongs, and refused wherever it does not.

use crate::connection::{Connection, Property};
use crate::digest::Digest;
use crate::fixture::{
    ANOTHER, PLACEHOLDER, Request, SESSION, accepted, bind, compiled, destination, get, granted, header, spec, test,
};
use crate::policy::{BindingSpec, Carrier, EvidenceSpec, MissingPlaceholder, Policy, Spec, Unmatched};
use crate::refusal::Reason;
use crate::request::{Way, identify};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// The evidence, as it goes over the wire: (placeholder, session token), and its word.
fn shows(request: &Request) -> Result<(Option<Digest>, Option<Digest>, String), Reason> {
    let policy = compiled(Unmatched::Deny);
    let snapshot = request.read(&policy);
    let asked = crate::request::identify(&snapshot, &policy)?;
    let digests = asked.evidence.digests(&snapshot);
    assert_eq!(digests.word(), asked.evidence.word(&snapshot), "the broker's records say the same");
    Ok((digests.placeholder, digests.session_token, digests.word()))
}

fn placeholder(token: &str) -> Result<(Option<Digest>, Option<Digest>, String), Reason> {
    Ok((Some(Digest::of(token.as_bytes())), None, "placeholder".into()))
}

fn api() -> Request {
    get("api.github.com", "/user")
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn a_placeholder_is_recognised_in_every_form_clients_send() {
    let pair = format!("x-access-token:{PLACEHOLDER}");
    for (header, value) in [
        ("authorization", format!("Bearer {PLACEHOLDER}")),
        ("authorization", format!("bearer {PLACEHOLDER}")),
        ("authorization", format!("token {PLACEHOLDER}")),
        ("authorization", format!("Token token={PLACEHOLDER}")),
        ("authorization", format!("Token token=\"{PLACEHOLDER}\", nonce=\"x\"")),
        ("authorization", PLACEHOLDER.into()),
        ("authorization", basic(&pair)),
        ("authorization", basic(&format!("{PLACEHOLDER}:x-oauth-basic"))),
        ("authorization", basic(&format!("{PLACEHOLDER}:"))),
        ("authorization", format!("bAsIc   {} ", STANDARD.encode(&pair))),
        ("proxy-authorization", basic(&pair)),
        ("x-api-key", PLACEHOLDER.into()),
        ("private-token", PLACEHOLDER.into()),
        // A header that carries a credential of some other destination in this policy.
        ("x-unifi-key", PLACEHOLDER.into()),
        ("cookie", format!("a=b; session={PLACEHOLDER}; c=d")),
    ] {
        assert_eq!(shows(&api().with(header, &value)), placeholder(PLACEHOLDER), "{header}: {value}");
    }
}

#[test]
fn basic_is_read_as_leniently_as_any_server_reads_it() {
    // All three lengths of the last group: with padding, without, and with bits that mean nothing.
    for user in ["u", "us", "use"] {
        let pair = format!("{user}:{PLACEHOLDER}");
        for value in [STANDARD.encode(&pair), STANDARD_NO_PAD.encode(&pair)] {
            let request = api().with("authorization", format!("Basic {value}"));
            assert_eq!(shows(&request), placeholder(PLACEHOLDER), "{value}");
        }
    }
    let pair = format!("us:{PLACEHOLDER}");
    let mut value = STANDARD_NO_PAD.encode(&pair).into_bytes();
    assert_ne!(pair.len() % 3, 0, "the last group must have bits to spare");
    *value.last_mut().unwrap() += 1;
    let request = api().with("authorization", [b"Basic ", &*value].concat());
    assert_eq!(shows(&request), placeholder(PLACEHOLDER));
}

#[test]
fn a_placeholder_is_recognised_in_its_query_parameter() {
    for target in [
        format!("/x?key={PLACEHOLDER}"),
        format!("/x?a=1&key={PLACEHOLDER}&b=2"),
        format!("/x?&&key={PLACEHOLDER}&"),
        // Each parameter before it counts with what ends it: more of them than the value has bytes.
        format!("/x?{}key={PLACEHOLDER}", "&".repeat(2 * PLACEHOLDER.len())),
        format!("/x?key=a&key={PLACEHOLDER}"),
    ] {
        assert_eq!(shows(&get("maps.example", &target)), placeholder(PLACEHOLDER), "{target}");
        assert_eq!(shows(&get("localhost", format!("/maps{target}"))), placeholder(PLACEHOLDER), "{target}");
    }
}

#[test]
fn a_parameter_carries_if_any_credential_of_the_destination_stands_there() {
    let mut spec = spec();
    let long = BindingSpec { carrier: Carrier::Query("subscription-key".into()), ..bind("long", "") };
    spec.destinations[destination::MAPS].bindings.extend([bind("other", "x-other"), long]);
    let policy = Policy::compile(spec).unwrap();
    let word =
        |target: &str| get("maps.example", target).identify(&policy).map(|asked| asked.evidence.placeholder.is_some());
    assert_eq!(word(&format!("/x?key={PLACEHOLDER}")), Ok(true));
    assert_eq!(word(&format!("/x?subscription-key={PLACEHOLDER}")), Ok(true));
    // The shortest thing that looks like a placeholder, right before and within the name.
    assert_eq!(word("/x?a=ATTACHE&subscription-key=1"), Err(Reason::PlaceholderMisplaced));
    assert_eq!(word("/x?subscription-key=1&ATTACHE"), Err(Reason::PlaceholderMisplaced));
}

#[test]
fn a_misplaced_placeholder_is_refused() {
    let p = PLACEHOLDER;
    let maps = |target: String| get("maps.example", target);
    for (what, request) in [
        ("path", get("api.github.com", format!("/user/{p}"))),
        ("path parameter", get("api.github.com", format!("/user;{p}"))),
        ("query, where a header carries", get("api.github.com", format!("/user?access_token={p}"))),
        ("another header", api().with("x-custom", p)),
        ("the agent's name", api().with("user-agent", format!("agent ({p})"))),
        ("referer", api().with("referer", format!("https://x/?t={p}"))),
        ("request id", api().with("x-request-id", p)),
        ("beside a good one", api().bearer(p).with("x-custom", p)),
        ("path of a query credential", maps(format!("/{p}?key={p}"))),
        ("another parameter", maps(format!("/x?other={p}"))),
        ("a parameter's name", maps(format!("/x?{p}=1"))),
        ("a parameter without a value", maps(format!("/x?{p}"))),
        ("a longer name", maps(format!("/x?key2={p}"))),
        ("a name that ends alike", maps(format!("/x?akey={p}"))),
        ("beside its parameter", maps(format!("/x?key=1&{p}"))),
        ("a fake query in the path", maps(format!("/key={p}"))),
    ] {
        assert_eq!(shows(&request), Err(Reason::PlaceholderMisplaced), "{what}");
    }
}

#[test]
fn a_percent_encoded_placeholder_is_never_forwarded() {
    let encode = |from: usize, to: usize| -> String {
        let escape = |(at, c): (usize, char)| {
            if (from..to).contains(&at) { format!("%{:02x}", c as u32) } else { c.to_string() }
        };
        PLACEHOLDER.chars().enumerate().map(escape).collect()
    };
    // The whole token, the marker, one letter of the marker.
    for hidden in [encode(0, 99), encode(4, 11), encode(10, 11)] {
        for target in [format!("/x?key={hidden}"), format!("/x?other={hidden}"), format!("/x/{hidden}")] {
            for authority in ["maps.example", "open.example"] {
                let misplaced = Err(Reason::PlaceholderMisplaced);
                assert_eq!(shows(&get(authority, &target)), misplaced, "{authority}{target}");
                let beside = get(authority, &target).bearer(PLACEHOLDER);
                assert_eq!(shows(&beside), misplaced, "{authority}{target}, beside a good one");
            }
            let passes = get("unknown.example", &target).identify(&compiled(Unmatched::Pass));
            assert_eq!(passes.err(), Some(Reason::PlaceholderMisplaced), "{target} to an unmanaged host");
        }
    }
    // A plain one beside an escape that hides nothing is as good as without.
    let plain = get("maps.example", format!("/a%20b?key={PLACEHOLDER}&q=100%25"));
    assert_eq!(shows(&plain), placeholder(PLACEHOLDER));
}

#[test]
fn two_placeholders_conflict() {
    let pair = basic(&format!("u:{ANOTHER}"));
    for (what, request) in [
        ("two headers", api().bearer(PLACEHOLDER).with("x-api-key", ANOTHER)),
        ("two lines", api().bearer(PLACEHOLDER).bearer(ANOTHER)),
        ("one joined line", api().with("authorization", format!("Bearer {PLACEHOLDER},Bearer {ANOTHER}"))),
        ("plain and Basic", api().with("authorization", &pair).with("x-api-key", PLACEHOLDER)),
        ("both in Basic", api().with("authorization", basic(&format!("{PLACEHOLDER}:{ANOTHER}")))),
        ("a cookie", api().bearer(PLACEHOLDER).with("cookie", format!("a={ANOTHER}"))),
        ("a longer one", api().bearer(PLACEHOLDER).with("x-api-key", format!("{PLACEHOLDER}0"))),
        ("header and query", get("maps.example", format!("/?key={PLACEHOLDER}")).bearer(ANOTHER)),
        ("two parameters", get("maps.example", format!("/?key={PLACEHOLDER}&key={ANOTHER}"))),
    ] {
        assert_eq!(shows(&request), Err(Reason::EvidenceConflict), "{what}");
    }
}

#[test]
fn the_same_placeholder_twice_is_one() {
    let pair = basic(&format!("u:{PLACEHOLDER}"));
    let twice = api().bearer(PLACEHOLDER).with("x-api-key", PLACEHOLDER).with("proxy-authorization", pair);
    assert_eq!(shows(&twice), placeholder(PLACEHOLDER));
}

#[test]
fn a_session_token_is_evidence_of_its_own() {
    let session = Some(Digest::of(SESSION.as_bytes()));
    let alone = api().with("x-attache-session", SESSION);
    assert_eq!(shows(&alone), Ok((None, session, "session_token".into())));
    let both = alone.clone().bearer(PLACEHOLDER);
    let shown = Some(Digest::of(PLACEHOLDER.as_bytes()));
    assert_eq!(shows(&both), Ok((shown, session, "placeholder+session_token".into())));
    assert_eq!(shows(&both.bearer(ANOTHER)), Err(Reason::EvidenceConflict));
    assert_eq!(shows(&alone.with("x-attache-session", SESSION)), Ok((None, session, "session_token".into())), "twice");
}

#[test]
fn two_session_tokens_conflict() {
    let other = SESSION.replace('9', "8");
    for request in [
        api().with("x-attache-session", SESSION).with("x-attache-session", &other),
        api().with("x-attache-session", format!("{SESSION},{other}")),
    ] {
        assert_eq!(shows(&request), Err(Reason::EvidenceConflict));
    }
}

#[test]
fn without_evidence_there_is_no_identity() {
    for (what, request) in [
        ("nothing", api()),
        ("a real key", api().bearer("ghp_0123456789abcdefghijklmnopqrstuvwxyz")),
        ("a marker in lower case", api().bearer(&PLACEHOLDER.to_lowercase())),
        ("Basic that is none", api().with("authorization", "Basic ???")),
        ("Basic without a token", api().with("authorization", basic("user:password"))),
        ("a session header with anything", api().with("x-attache-session", "reviewer")),
        ("bytes", api().with("authorization", b"Basic \xff\xfe")),
    ] {
        assert_eq!(shows(&request), Err(Reason::IdentityRequired), "{what}");
    }
}

/// Like a JWT; what it says is the broker's to find out.
const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_";

/// The policy of these tests, whose sessions demand all there is.
fn demanding() -> Policy {
    let identity_headers = vec!["x-attache-identity".into(), "x-my-identity".into()];
    let evidence = EvidenceSpec { peer: true, source: true, listener: true, identity_headers };
    let mut spec = Spec { evidence, ..spec() };
    spec.destinations[destination::API].bindings[0].missing_placeholder = MissingPlaceholder::Inject;
    Policy::compile(spec).unwrap()
}

fn connection(peer: &[u8], source: &[u8], listener: Option<&str>) -> Connection {
    let mut connection = Connection::of(listener.map(crate::fixture::name));
    connection.learn(Property::PeerVerified, &[1]);
    connection.learn(Property::Peer, peer);
    connection.learn(Property::Source, source);
    connection
}

#[test]
fn nothing_is_asked_for_that_no_session_demands() {
    assert_eq!(compiled(Unmatched::Deny).properties(), []);
    assert!(!compiled(Unmatched::Deny).needs_listener());
    assert!(demanding().needs_listener());
    assert_eq!(demanding().properties(), [Property::PeerVerified, Property::Peer, Property::Source]);
}

#[test]
fn a_jwt_is_one_line_of_its_own_header_and_nothing_else() {
    let policy = demanding();
    let word = |request: &Request| {
        let snapshot = request.read(&policy);
        identify(&snapshot, &policy).map(|asked| asked.evidence.word(&snapshot))
    };
    let name = "x-attache-identity";
    assert_eq!(word(&api().with(name, JWT)), Ok("jwt".into()));
    assert_eq!(word(&api().with("x-my-identity", JWT).bearer(PLACEHOLDER)), Ok("placeholder+jwt".into()));
    let longest = format!("{JWT}{}", "x".repeat(crate::evidence::MOST_JWT - JWT.len()));
    assert_eq!(word(&api().with(name, &longest)), Ok("jwt".into()));
    let bearer = format!("Bearer {JWT}");
    for wrong in
        ["", "a.b", "a.b.c.d", "..", "a..c", &bearer, "a.b.c=", &format!("{JWT},{JWT}"), &format!("{longest}x")]
    {
        assert_eq!(word(&api().with(name, wrong)), Err(Reason::IdentityRequired), "{wrong:.40}");
        assert_eq!(word(&api().with(name, wrong).bearer(PLACEHOLDER)), Err(Reason::IdentityRequired), "{wrong:.40}");
    }
    for second in [name, "x-my-identity"] {
        assert_eq!(word(&api().with(name, JWT).with(second, JWT)), Err(Reason::EvidenceConflict));
    }
    assert_eq!(word(&api().with(name, PLACEHOLDER)), Err(Reason::PlaceholderMisplaced));
    assert_eq!(word(&api().with("authorization", &bearer)), Err(Reason::IdentityRequired), "never in Authorization");
    // Where no provider is named, the header says nothing.
    assert_eq!(shows(&api().with(name, JWT)), Err(Reason::IdentityRequired));
}

#[test]
fn a_jwt_is_taken_out_of_what_goes_upstream() {
    let policy = demanding();
    let grant = accepted(&policy, destination::API, granted("github", header("authorization", "Bearer x")));
    let sent = api().with("x-my-identity", JWT).upstream(&policy, &grant).unwrap();
    assert!(sent.holds("Bearer x") && !sent.holds("eyJ") && sent.all("x-my-identity").is_empty());
}

#[test]
fn a_connection_that_may_name_a_session_is_asked_about_where_no_placeholder_is_needed() {
    let policy = demanding();
    let way =
        |request: Request, connection| identify(&request.read(&policy).on(connection), &policy).map(|asked| asked.way);
    let (peer, source) = (b"spiffe://test/a".as_slice(), b"127.0.0.1:1".as_slice());
    let managed = Ok(Way::Managed(destination::API));
    assert_eq!(way(api(), connection(peer, b"", None)), managed);
    assert_eq!(way(api(), connection(b"", b"", Some("inner"))), managed);
    assert_eq!(way(api(), connection(b"", source, None)), Err(Reason::IdentityRequired), "an address names nobody");
    let git = get("github.com", "/x");
    assert_eq!(
        way(git, connection(peer, source, Some("inner"))),
        Err(Reason::IdentityRequired),
        "a placeholder is needed"
    );
    let open = get("open.example", "/x");
    assert_eq!(way(open, connection(peer, source, None)), Ok(Way::Unclaimed(destination::OPEN)));
}

#[test]
fn every_kind_of_evidence_has_its_place_in_what_is_remembered() {
    let policy = demanding();
    let parts = |request: &Request, connection: Connection| {
        let snapshot = request.read(&policy).on(connection);
        let asked = identify(&snapshot, &policy).unwrap();
        let mut parts: Vec<Vec<u8>> = Vec::new();
        asked.evidence.for_each_part(&snapshot, |part| parts.push(part.to_vec()));
        parts
    };
    let all = api().bearer(PLACEHOLDER).with("x-attache-session", SESSION).with("x-attache-identity", JWT);
    let (peer, source) = (b"spiffe://test/a".as_slice(), b"10.0.0.1:1".as_slice());
    let one = parts(&all, connection(peer, source, Some("inner")));
    for (what, other) in [
        ("peer", connection(b"spiffe://test/b", source, Some("inner"))),
        ("no peer", connection(b"", source, Some("inner"))),
        ("source", connection(peer, b"10.0.0.2:1", Some("inner"))),
        ("the same bytes of another family", connection(peer, b"[a00:1::]:1", Some("inner"))),
        ("no source", connection(peer, b"", Some("inner"))),
        ("listener", connection(peer, source, Some("outer"))),
        ("no listener", connection(peer, source, None)),
    ] {
        assert_ne!(parts(&all, other), one, "{what}");
    }
    assert_eq!(parts(&all, connection(peer, b"10.0.0.1:2", Some("inner"))), one, "the port is another every time");
    let other_header = api().bearer(PLACEHOLDER).with("x-attache-session", SESSION).with("x-my-identity", JWT);
    assert_ne!(parts(&other_header, connection(peer, source, Some("inner"))), one);
    let shown = all.read(&policy).on(connection(peer, source, Some("inner")));
    let digests = identify(&shown, &policy).unwrap().evidence.digests(&shown);
    assert_eq!(digests.word(), "placeholder+session_token+jwt+peer+source+listener");
    let printed = format!("{digests:?}");
    assert!(printed.contains("x-attache-identity") && !printed.contains("eyJ"), "{printed}");
}

#[test]
fn a_token_is_printed_as_what_it_is_without_what_it_says() {
    let printed = |request: &Request| format!("{:?}", request.identify(&compiled(Unmatched::Deny)).unwrap().evidence);
    let plain = printed(&api().bearer(PLACEHOLDER));
    assert!(plain.contains("placeholder: Some(Plain(…))") && !plain.contains("ATTACHE"), "{plain}");
    let decoded = printed(&api().with("authorization", basic(&format!("u:{PLACEHOLDER}"))));
    assert!(decoded.contains("placeholder: Some(Decoded(…))"), "{decoded}");
}

#[test]
fn a_token_is_one_up_to_the_length_of_the_longest_that_was_ever_minted() {
    let of = |length: usize| format!("{SESSION}{}", "x".repeat(length - SESSION.len()));
    let shown = |length| shows(&api().with("x-attache-session", of(length)));
    let whole = Some(Digest::of(of(256).as_bytes()));
    assert_eq!(shown(256), Ok((None, whole, "session_token".into())));
    assert_eq!(shown(257), Err(Reason::PlaceholderUnknown));
}
