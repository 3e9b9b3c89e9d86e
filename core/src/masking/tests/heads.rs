//! What the head of an answer says.

use crate::fixture::test;
use crate::headers::serialize;
use crate::masking::read_head;

#[test]
fn a_status_is_three_digits() {
    let status = |value: &str| read_head(&serialize([(":status", value.as_bytes())]), false).status;
    for number in [100, 101, 200, 204, 349, 599, 999] {
        assert_eq!(status(&number.to_string()), Some(number));
    }
    for other in ["", "2", "20", "2000", "99999", "20x", "2 0", "-20", "+20", " 200"] {
        assert_eq!(status(other), None, "{other:?}");
    }
    assert_eq!(read_head(&serialize([("x", b"200".as_slice())]), false).status, None);
}

#[test]
fn an_upstream_that_claims_a_reason_of_ours_is_found_out() {
    let claims = |names: &[&'static str]| {
        let lines: Vec<_> = names.iter().map(|name| (*name, b"x".as_slice())).collect();
        read_head(&serialize(lines), false).claims_a_reason
    };
    for names in [&["x-attache-reason"][..], &["x", "x-attache-reason"], &["x-attache-reason", "x"]] {
        assert!(claims(names), "{names:?}");
    }
    for names in [&[][..], &[":status"], &["x-attache", "x-attache-reasons"], &["content-type", "x"]] {
        assert!(!claims(names), "{names:?}");
    }
}
