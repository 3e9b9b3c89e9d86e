//! Answers of Envoy's own that stand for a reason. The bootstrap gives each the reason's status and body; the
//! filter knows them by that and by what Envoy says of them.

use super::Reason;

/// How Envoy's details begin where the assertion behind the gate lets nothing pass.
pub const DENIED: &str = "rbac_access_denied";
/// How Envoy's word for a failed transport begins where it is TLS that did not come about.
pub const TLS_ERROR: &str = "TLS_error";
/// Envoy's details where a route answers by itself, as one does that is shut.
const SHUT: &[u8] = b"direct_response";
/// What stands before Envoy's word for a failed transport in its details.
const NOT_CONNECTED: &str = "upstream_reset_before_response_started{remote_connection_failure|";

impl Reason {
    /// Why nothing was sent, where Envoy says so rather than an upstream, by the status of the answer and
    /// Envoy's details; those are asked for where the status is one of a reason.
    pub fn of_local_reply(status: u16, details: impl FnOnce() -> Vec<u8>) -> Option<Self> {
        let reasons = [Self::DestinationMismatch, Self::UpstreamTls];
        let reason = reasons.into_iter().find(|reason| reason.status() == status)?;
        let details = details();
        let is_so = match reason {
            Self::UpstreamTls => {
                details.strip_prefix(NOT_CONNECTED.as_bytes()).is_some_and(|why| why.starts_with(TLS_ERROR.as_bytes()))
            }
            _ => details == SHUT || details.starts_with(DENIED.as_bytes()),
        };
        is_so.then_some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn envoys_own_answers_are_told_from_an_upstreams() {
        let no_tls = "upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435581}";
        let refused = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_111}";
        for (status, details, expected) in [
            (421, "direct_response", Some(Reason::DestinationMismatch)),
            (421, "rbac_access_denied_matched_policy[none]", Some(Reason::DestinationMismatch)),
            (421, "via_upstream", None),
            (421, "direct_response_of_another", None),
            (421, no_tls, None),
            (502, no_tls, Some(Reason::UpstreamTls)),
            (502, refused, None),
            (502, "TLS_error", None),
            (502, "via_upstream", None),
            (502, "direct_response", None),
            (503, no_tls, None),
            (200, "direct_response", None),
            (403, "rbac_access_denied_matched_policy[none]", None),
        ] {
            let reason = Reason::of_local_reply(status, || details.into());
            assert_eq!(reason, expected, "{status} {details}");
        }
    }

    #[test]
    fn other_statuses_ask_for_no_details() {
        assert_eq!(Reason::of_local_reply(200, || unreachable!("not asked for")), None);
    }
}
