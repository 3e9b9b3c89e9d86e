//! The verdict on a request, as it stands in filter state: route guards match how it begins, and Envoy's
//! access log prints all of it.

use crate::audit::escape_into;

/// Filter state that the gate writes, and the door for tunnels; what VMs write Envoy keeps as `wasm.…`.
pub const VERDICT_STATE: &str = "attache";

/// How the verdict of a request to this cluster begins: with its name, the closing quote included, so
/// that `git` is no prefix of `github`.
pub fn verdict_prefix(cluster: &str) -> String {
    let mut out = String::from("{\"cluster\":\"");
    escape_into(&mut out, cluster.as_bytes());
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn a_verdict_begins_with_its_cluster() {
        assert_eq!(verdict_prefix("git"), r#"{"cluster":"git""#);
        assert_eq!(verdict_prefix(r#"a","cluster":"b"#), r#"{"cluster":"a\",\"cluster\":\"b""#);
    }
}
