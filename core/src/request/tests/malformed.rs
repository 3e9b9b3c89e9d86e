//! Headers that no honest request has are refused, and never read past their end.

use crate::fixture::{OWN, PLACEHOLDER, SECRET, accepted, compiled, destination, get, granted, header, test};
use crate::policy::Unmatched;
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
