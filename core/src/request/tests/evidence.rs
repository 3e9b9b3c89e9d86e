//! Who asks: a placeholder is recognised wherever it belongs, and refused wherever it does not.

use crate::digest::Digest;
use crate::fixture::{ANOTHER, PLACEHOLDER, Request, SESSION, bind, compiled, destination, get, spec, test};
use crate::policy::{BindingSpec, Carrier, Policy, Unmatched};
use crate::refusal::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// The evidence, as it goes over the wire: (placeholder, session token), and its word.
fn shows(request: &Request) -> Result<(Option<Digest>, Option<Digest>, &'static str), Reason> {
    let policy = compiled(Unmatched::Deny);
    let snapshot = request.read(&policy);
    let asked = crate::request::identify(&snapshot, &policy)?;
    let digests = asked.evidence.digests(&snapshot);
    assert_eq!(digests.word(), asked.evidence.word(), "the broker's records say the same");
    Ok((digests.placeholder, digests.session_token, asked.evidence.word()))
}

fn placeholder(token: &str) -> Result<(Option<Digest>, Option<Digest>, &'static str), Reason> {
    Ok((Some(Digest::of(token.as_bytes())), None, "placeholder"))
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
    let word = |target: &str| get("maps.example", target).identify(&policy).map(|asked| asked.evidence.word());
    assert_eq!(word(&format!("/x?key={PLACEHOLDER}")), Ok("placeholder"));
    assert_eq!(word(&format!("/x?subscription-key={PLACEHOLDER}")), Ok("placeholder"));
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
    assert_eq!(shows(&alone), Ok((None, session, "session_token")));
    let both = alone.clone().bearer(PLACEHOLDER);
    let shown = Some(Digest::of(PLACEHOLDER.as_bytes()));
    assert_eq!(shows(&both), Ok((shown, session, "placeholder+session_token")));
    assert_eq!(shows(&both.bearer(ANOTHER)), Err(Reason::EvidenceConflict));
    assert_eq!(shows(&alone.with("x-attache-session", SESSION)), Ok((None, session, "session_token")), "twice");
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
