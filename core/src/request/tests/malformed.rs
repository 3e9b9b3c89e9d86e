//! Headers that no honest request has are refused, and never read past their end.

use crate::fixture::{OWN, PLACEHOLDER, SECRET, accepted, compiled, destination, get, granted, header, spec, test};
use crate::policy::{EvidenceSpec, Policy, Spec, Unmatched};
use crate::refusal::Reason;
use crate::request::{Snapshot, identify};

fn verdict(bytes: Vec<u8>) -> Result<(), Reason> {
    let policy = compiled(Unmatched::Pass);
    identify(&Snapshot::read(bytes, &policy), &policy).map(|_| ())
}

#[test]
fn more_than_eight_credentials_are_no_honest_request() {
    let with = |n: usize| (0..n).fold(get("api.github.com", "/"), |r, _| r.with("x-api-key", OWN));
    let policy = compiled(Unmatched::Deny);
    let grant = accepted(&policy, destination::API, granted("github", header("authorization", SECRET)));
    let sent = with(7).bearer(PLACEHOLDER).upstream(&policy, &grant).unwrap();
    assert!(sent.all("x-api-key").is_empty());
    assert_eq!(with(8).bearer(PLACEHOLDER).identify(&policy).err(), Some(Reason::HeadersMalformed));
    assert_eq!(with(9).identify(&compiled(Unmatched::Pass)).err(), Some(Reason::HeadersMalformed));
}

#[test]
fn more_than_eight_placeholders_are_no_honest_request() {
    let with = |n: usize| get("api.github.com", "/").with("cookie", vec![format!("a={PLACEHOLDER}"); n].join("; "));
    let policy = compiled(Unmatched::Deny);
    assert!(with(8).identify(&policy).is_ok());
    assert_eq!(with(9).identify(&policy).err(), Some(Reason::HeadersMalformed));
}

#[test]
fn a_buffer_that_is_cut_off_is_refused() {
    let bytes = get("api.github.com", "/user").bearer(PLACEHOLDER).bytes();
    assert_eq!(verdict(bytes.clone()), Ok(()));
    for cut in 0..bytes.len() {
        assert!(verdict(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
    }
    assert_eq!(verdict([bytes, vec![0]].concat()), Err(Reason::HeadersMalformed), "something follows");
}

#[test]
fn a_buffer_that_lies_about_a_length_is_refused() {
    let bytes = get("api.github.com", "/user").bearer(PLACEHOLDER).bytes();
    let words = 1 + 2 * usize::from(bytes[0]);
    for at in (0..words).map(|word| word * 4) {
        let told = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        for lie in [0, told.wrapping_sub(1), told + 1, told + 8, 1 << 16, i32::MAX as u32, u32::MAX - 8, u32::MAX] {
            if lie != told {
                let mut bytes = bytes.clone();
                bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                assert_eq!(verdict(bytes), Err(Reason::HeadersMalformed), "{lie} at {at}");
            }
        }
    }
}

#[test]
fn a_request_without_its_parts_is_refused() {
    assert_eq!(verdict(Vec::new()), Err(Reason::PathMalformed));
    for missing in [":method", ":authority", ":path"] {
        let mut request = get("unknown.example", "/");
        request.0.retain(|(name, _)| name != missing);
        assert!(verdict(request.bytes()).is_err(), "{missing}");
    }
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let bytes: Vec<u8> = (0..=255).collect();
    let odd = get("api.github.com", "/").bearer(PLACEHOLDER).with("x-odd", &bytes).with("x-empty", "");
    assert_eq!(verdict(odd.bytes()), Ok(()));
    for (method, authority, target) in
        [(&bytes[..], &b"a"[..], &b"/"[..]), (b"GET", &bytes, b"/"), (b"GET", b"a", &bytes)]
    {
        let request = get(authority, target);
        let request = crate::fixture::Request(
            request.0.into_iter().map(|(n, v)| if n == ":method" { (n, method.to_vec()) } else { (n, v) }).collect(),
        );
        assert!(verdict(request.bytes()).is_err());
    }
}

#[test]
fn a_header_that_some_server_takes_for_one_that_tells_something_is_no_honest_header() {
    let with = |name: &str| get("api.github.com", "/").bearer(PLACEHOLDER).with(name, OWN);
    for name in [
        "x_api_key",
        "x.api.key",
        "proxy_authorization",
        "x_attache_session",
        "x_http_method_override",
        "x_original_url",
        "if_range",
        // Carries a credential of some destination of this policy.
        "x_unifi_key",
    ] {
        assert_eq!(verdict(with(name).bytes()), Err(Reason::HeadersMalformed), "{name}");
        assert_eq!(verdict(with(name).with("change", "1").bytes()), Err(Reason::HeadersMalformed), "{name}, not last");
    }
    for name in ["user_agent", "content_type", "x_custom", "change", "x-apikey"] {
        assert_eq!(verdict(with(name).bytes()), Ok(()), "{name}");
    }
}

#[test]
fn what_is_too_much_stays_too_much_whatever_follows() {
    let identity_headers = vec!["x-my-identity".into()];
    let evidence = EvidenceSpec { identity_headers, ..EvidenceSpec::default() };
    let policy = Policy::compile(Spec { evidence, ..spec() }).unwrap();
    let with = |name: &'static str, n: usize| (0..n).map(move |_| name);
    let verdict = |names: &mut dyn Iterator<Item = &'static str>| {
        let request = names.fold(get("api.github.com", "/").bearer(PLACEHOLDER), |request, name| {
            request.with(name, if name == "x-my-identity" { "a.b.c" } else { OWN })
        });
        request.identify(&policy).map(drop)
    };
    let (key, jwt) = ("x-api-key", "x-my-identity");
    assert_eq!(verdict(&mut with(key, 6).chain([jwt, "change"])), Ok(()));
    for follows in [None, Some("change"), Some("x-custom"), Some(key), Some(jwt)] {
        for (what, names) in [
            ("eight and a placeholder", with(key, 8).chain(with(jwt, 0))),
            ("seven, a JWT and a placeholder", with(key, 7).chain(with(jwt, 1))),
            ("three JWTs", with(key, 0).chain(with(jwt, 3))),
        ] {
            assert_eq!(verdict(&mut names.chain(follows)), Err(Reason::HeadersMalformed), "{what}, {follows:?}");
        }
    }
}

#[test]
fn names_that_only_begin_like_ours_are_the_agents_and_count_for_nothing() {
    let many = |name: &str| {
        let request = (0..12).fold(get("api.github.com", "/").bearer(PLACEHOLDER), |request, n| {
            request.with(&format!("{name}{n}"), "1")
        });
        verdict(request.bytes())
    };
    for name in ["x-at", "x-attic-", "x-attach-", "y-attache-"] {
        assert_eq!(many(name), Ok(()), "{name}");
    }
    assert_eq!(many("x-attache-"), Err(Reason::HeadersMalformed));
}
