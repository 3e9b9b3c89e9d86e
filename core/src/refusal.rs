//! Every reason for which a request is refused: one word, one status, one hint.

mod form;
mod reply;

pub use form::Form;
pub use reply::{DENIED, TLS_ERROR};

use serde::{Deserialize, Serialize};

/// The header in which the word for the reason stands. It is ours: what an upstream says in it is taken out.
pub const REASON_HEADER: &str = "x-attache-reason";

/// Defines [`Reason`] from one visible table: variant, word, status, hint.
macro_rules! reasons {
    ($($variant:ident $word:literal $status:literal $hint:literal)*) => {
        /// Why a request was refused. The same word stands in the answer, in
        /// `x-attache-reason` and in the audit record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason { $(
            #[doc = $hint]
            #[serde(rename = $word)]
            $variant,
        )* }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Reason] = &[$(Reason::$variant),*];

            /// The word for machines and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $word),* }
            }

            /// The HTTP status of the answer.
            pub fn status(self) -> u16 {
                match self { $(Reason::$variant => $status),* }
            }

            /// What the caller can do next.
            pub fn hint(self) -> &'static str {
                match self { $(Reason::$variant => $hint),* }
            }
        }
    };
}

#[rustfmt::skip]
reasons! {
    AuthorityMalformed    "authority_malformed"    400 "Send one plain host name (and port) as Host or :authority."
    PathMalformed         "path_malformed"         400 "Send a path that reads in one way: no escapes of escapes, of control bytes or of overlong characters, no segments of dots, no x-original-url or x-rewrite-url."
    HeadersMalformed      "headers_malformed"      400 "Send printable header names and values."
    HostNotAllowed        "host_not_allowed"       403 "No credential names this destination. Ask the operator to add it to the config."
    CredentialNotGranted  "credential_not_granted" 403 "This session may not use a credential here. Ask the operator to grant it."
    ReadOnly              "read_only"              403 "This session may only read. Ask the operator for `attache session set-access-mode NAME read-write`."
    PlaceholderMisplaced  "placeholder_misplaced"  403 "A placeholder stands where it does not belong. Send it only to its own destination, in its own header."
    EvidenceConflict      "evidence_conflict"      403 "What the request shows does not agree on one session, or the session demands another way. Send one session's placeholder and token, as it demands."
    AddressNotAllowed     "address_not_allowed"    403 "The host leads to an address that is not public. Ask the operator for `private: true` there."
    TlsRequired           "tls_required"           403 "This credential travels over TLS only. Ask for https://, by the proxy's CONNECT."
    PlaceholderUnknown    "placeholder_unknown"    401 "Nobody knows this placeholder. Export it again: `attache session env NAME`."
    SessionExpired        "session_expired"        401 "The session has ended. Ask the operator for a new one."
    IdentityRequired      "identity_required"      401 "Send the placeholder of your session, to a proxy the session's token as the password of its URL, and what else it demands: `attache session env NAME` prints what there is."
    DestinationMismatch   "destination_mismatch"   421 "The request names another host than its tunnel or route. Behind a proxy open one tunnel for each host; else the operator's Envoy config is wrong: `attache doctor`."
    MethodNotAllowed      "method_not_allowed"     405 "Use a standard upper-case method; TRACE and CONNECT never carry a credential."
    BodyUnreadable        "body_unreadable"        403 "The body must be read before a decision and could not be understood: docs/read-only.md tells what can be."
    ResponseUnreadable    "response_unreadable"    502 "The answer is compressed although it was asked for as it is, or speaks another protocol than was asked for: echoes of the credential in it could not be masked. Ask the operator for `mask: false` there."
    UpgradeRefused        "upgrade_refused"        426 "Nothing but HTTP is spoken here: fall back to it. For WebSocket, ask the operator for `websocket: true` there."
    BodyTooLarge          "body_too_large"         413 "The body must be read before a decision and is too large for that. Send less at once, or ask the operator for a larger `limits.body_limit`."
    HostUnresolved        "host_unresolved"        502 "Nobody knows an address of this host. Try again, or ask the operator for the resolver (`dns:`)."
    UpstreamTls           "upstream_tls"           502 "The server could not prove that it is the one that was asked for, or speaks no TLS: nothing was sent to it. Tell the operator, who may name its authority (`ca_file`) or pin its key (`spki_sha256`)."
    RateLimited           "rate_limited"           429 "Too many requests; wait and try again."
    BrokerUnavailable     "broker_unavailable"     503 "The broker did not answer. Try again; the operator sees why in `attache doctor`."
    SourceUnavailable     "source_unavailable"     503 "The source of the secret, or of a provider's keys, did not answer. The operator sees why in `attache credential list` or the broker's log."
    PolicyMissing         "policy_missing"         503 "The filter has no policy yet, or waits for a newer one. Try again in a moment."
    Stale                 "stale"                  503 "The filter lost touch with the broker. Try again in a moment."
    AuditBacklog          "audit_backlog"          503 "Too many uses await their audit record. Try again in a moment."
    Internal              "internal"               503 "Envoy refused a call that the filter needs. The operator sees it in Envoy's log."
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn a_reason_has_one_word_and_a_status_of_a_refusal() {
        for reason in Reason::ALL {
            assert!((400..=599).contains(&reason.status()));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
