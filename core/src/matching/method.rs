//! Request methods (RFC 9110, 9). Exact and case-sensitive: HTTP/2 carries `get` and `FOO` alike.

/// A method is at most this long; HTTP/2 would let 5 KB through.
const MAX_LEN: usize = 24;

/// Whether a credential may ever travel with this method: upper-case letters and `-`, and neither
/// TRACE (which echoes it) nor CONNECT (which is no request).
pub fn may_carry(method: &[u8]) -> bool {
    let standard = |b: &u8| b.is_ascii_uppercase() || *b == b'-';
    (1..=MAX_LEN).contains(&method.len()) && method.iter().all(standard) && !matches!(method, b"TRACE" | b"CONNECT")
}

/// Whether the method alone says that nothing is changed.
pub fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn methods_are_exact() {
        for method in ["GET", "POST", "PROPFIND", "VERSION-CONTROL", "QUERY"] {
            assert!(may_carry(method.as_bytes()), "{method}");
        }
        for method in ["", "get", "Get", "TRACE", "CONNECT", "GE T", "GET\0", &"A".repeat(25)] {
            assert!(!may_carry(method.as_bytes()), "{method}");
        }
        assert!(is_safe(b"OPTIONS") && !is_safe(b"QUERY") && !is_safe(b"get"));
    }
}
