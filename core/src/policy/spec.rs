//! The policy as the broker publishes it: plain data, no secret in it.

use crate::names::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything a filter needs to decide, besides grants. `GET /v1/policy` answers with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Names this policy: changes whenever anything below changes (also the ETag).
    pub version: String,
    /// The instance that published it.
    pub instance: Name,
    /// What happens to hosts that no destination names.
    pub unmatched: Unmatched,
    /// Hosts that no credential is bound to and that are never decrypted: canonical `host:port`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passthrough: Vec<String>,
    /// Whether a forward proxy decrypts traffic to hosts that no destination names (default: no).
    #[serde(default, skip_serializing_if = "is_default")]
    pub intercept_unmatched: bool,
    /// What else counts as evidence, because some session or rule demands it.
    #[serde(default, skip_serializing_if = "EvidenceSpec::is_empty")]
    pub evidence: EvidenceSpec,
    /// All destinations, each reachable under its own authorities and route prefix.
    pub destinations: Vec<DestinationSpec>,
}

/// What a filter reads about who asks, besides placeholders and session tokens. Reading costs a host
/// call or two a request, so it reads only what somebody needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceSpec {
    /// The URI in the verified certificate of the connection's peer.
    pub peer: bool,
    /// The address that the connection comes from.
    pub source: bool,
    /// The listener's name.
    pub listener: bool,
    /// Headers that carry a JWT, by their lower-case names.
    pub identity_headers: Vec<String>,
}

impl EvidenceSpec {
    /// Whether placeholders and session tokens are all there is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to a host that no destination names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Unmatched {
    /// Refused: `host_not_allowed`.
    #[default]
    Deny,
    /// Forwarded untouched, unless it carries a placeholder.
    Pass,
}

/// One place a credential may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationSpec {
    /// `host:port`, canonical: what grants are asked for, and an authority under which a request names it.
    pub id: String,
    /// The others: canonical, `host` or `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
    /// First path segment under which the gateway serves it, with its leading slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_prefix: Option<String>,
    /// The Envoy cluster that leads there, and to nowhere else.
    pub cluster: String,
    /// Whether the config says that this destination is reached without TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub plaintext: bool,
    /// Where it takes a credential besides: what agents write there is taken out.
    #[serde(default, skip_serializing_if = "StripSpec::is_empty")]
    pub strip: StripSpec,
    /// The credentials bound to it.
    pub bindings: Vec<BindingSpec>,
}

impl DestinationSpec {
    /// All authorities under which a request names it. A broker of before writes its id among them, too.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let others = self.authorities.iter().filter(|other| **other != self.id);
        [&self.id].into_iter().chain(others).map(String::as_str)
    }
}

/// Whether it goes without saying. What a hundred thousand destinations do not say, no worker reads.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where a service takes a credential, beside the places that are known of all services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StripSpec {
    /// Headers, by their names in any case.
    pub headers: Vec<String>,
    /// Query parameters, by their names.
    pub query: Vec<String>,
}

impl StripSpec {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These places, and others beside them, each once and in order.
    pub fn add(&mut self, other: &StripSpec) {
        self.headers.extend(other.headers.iter().map(|name| name.to_ascii_lowercase()));
        self.query.extend(other.query.iter().cloned());
        for names in [&mut self.headers, &mut self.query] {
            names.sort();
            names.dedup();
        }
    }
}

/// One credential bound to one destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingSpec {
    /// The credential's name.
    pub credential: Name,
    /// The `service` field of audit records.
    pub service: String,
    /// Path prefixes it is bound to; empty means every path. A prefix ends at a segment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// What a request without a placeholder gets.
    #[serde(default, skip_serializing_if = "is_default")]
    pub missing_placeholder: MissingPlaceholder,
    /// Where the credential stands in a request (default: the header `authorization`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub carrier: Carrier,
    /// Whether a request without identity is answered with a Basic challenge (git needs one).
    #[serde(default, skip_serializing_if = "is_default")]
    pub basic_challenge: bool,
    /// Exceptions to the rules of read-only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: AccessSpec,
    /// Whether the credential may open a WebSocket here (default: no).
    #[serde(default, skip_serializing_if = "is_default")]
    pub websocket: bool,
    /// What the service wants beside the credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<CompanionSpec>,
}

/// A header that a service wants beside the credential. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompanionSpec {
    /// The header's name.
    pub header: String,
    /// Its value.
    pub value: String,
    /// Whether the value joins the list that the agent sends there; otherwise it replaces it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub merge: bool,
}

/// What a request to a managed destination gets when it carries no placeholder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MissingPlaceholder {
    /// Refused: `identity_required`.
    #[default]
    Deny,
    /// Forwarded as it is, without a credential.
    Pass,
    /// Injected all the same, for a session that other required evidence names.
    Inject,
}

/// Where a credential stands in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// A header, by its lower-case name.
    Header(String),
    /// A query parameter, by its name.
    Query(String),
}

impl Default for Carrier {
    fn default() -> Self {
        Self::Header("authorization".into())
    }
}

/// Operations that the methods alone would judge wrongly. (A config has more words for them, which
/// all come down to these.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSpec {
    /// Whether no method reads by itself, GET included: only what is named below (default: GET, HEAD
    /// and OPTIONS do).
    #[serde(default, skip_serializing_if = "is_default")]
    pub only_listed: bool,
    /// Reads in spite of their method (git fetches by `POST …/git-upload-pack`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<OperationSpec>,
    /// Writes in spite of their method (`GET …/info/refs?service=git-receive-pack`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<OperationSpec>,
    /// Where GraphQL is spoken: what a request reads or writes, its document says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphql: Option<GraphqlSpec>,
    /// gRPC methods that read: `package.Service/Method`, or `package.Service/*` for all of a service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc: Vec<String>,
}

/// GraphQL endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GraphqlSpec {
    /// Their paths: `*` stands for one segment, a final `**` for any rest.
    pub paths: Vec<String>,
    /// Whether a subscription is a read, as a query is (default: no).
    #[serde(default, skip_serializing_if = "is_default")]
    pub subscriptions: bool,
}

impl AccessSpec {
    /// These rules, and others beside them.
    pub fn add(&mut self, other: AccessSpec) {
        self.only_listed |= other.only_listed;
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self.grpc.extend(other.grpc);
        self.graphql = match (self.graphql.take(), other.graphql) {
            // One switch for all of them: it takes both to open it.
            (Some(mut ours), Some(theirs)) => {
                ours.subscriptions &= theirs.subscriptions;
                ours.paths.extend(theirs.paths);
                Some(ours)
            }
            (ours, theirs) => ours.or(theirs),
        };
    }

    /// The paths, as patterns, on which a body must be read before it is known whether some request
    /// reads. (A write is refused whatever its body says.)
    pub fn judged_paths(&self) -> impl Iterator<Item = &str> {
        let reads = self.reads.iter().filter(|read| read.body.is_some()).map(|read| read.path.as_str());
        reads.chain(self.graphql.iter().flat_map(|graphql| &graphql.paths).map(String::as_str))
    }
}

/// One operation: method and path, and what else must hold for it to be this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationSpec {
    /// The method, exact.
    pub method: String,
    /// The path: `*` stands for one segment, a final `**` for any rest.
    pub path: String,
    /// Query parameters that must be there with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Whether there may be no other query parameter (default: there may).
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_other_query: bool,
    /// What the body must say. The judge reads it before the gate decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyRule>,
}

/// What a body must say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum BodyRule {
    /// A JSON object whose top-level member has one of these texts (git LFS: `operation`).
    Json {
        /// The member's name.
        member: String,
        /// The texts that make it this operation.
        any_of: Vec<String>,
    },
    /// One JSON-RPC 2.0 message or a list of them, each of which is one of these.
    JsonRpc {
        /// The methods that may be called.
        methods: Vec<String>,
        /// The tools that may be called by `tools/call` (MCP).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tools: Vec<String>,
    },
}

/// What a session may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AccessMode {
    /// Proven reads only.
    ReadOnly,
    /// Whatever the credential itself allows.
    #[default]
    ReadWrite,
}

impl AccessMode {
    /// The word in configs, commands and records.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessMode::ReadOnly => "read-only",
            AccessMode::ReadWrite => "read-write",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{destination, spec, test};

    #[test]
    fn what_is_not_used_is_not_written_and_what_is_written_is_read() {
        let written = |spec: &Spec| serde_json::to_value(spec).unwrap();
        let plain = spec();
        let text = written(&plain);
        assert_eq!(text.get("evidence"), None);
        assert_eq!(text["destinations"][destination::API].get("strip"), None);
        assert_eq!(serde_json::from_value::<Spec>(text).unwrap(), plain);

        let mut full = plain;
        full.evidence.listener = true;
        full.destinations[destination::API].strip.query = vec!["token".into()];
        let text = written(&full);
        assert_eq!(text["evidence"]["listener"], true);
        assert_eq!(text["destinations"][destination::API]["strip"]["query"][0], "token");
        assert_eq!(serde_json::from_value::<Spec>(text).unwrap(), full);
    }

    #[test]
    fn an_id_is_an_authority_however_often_it_is_named() {
        let mut spec = spec();
        let first = &mut spec.destinations[destination::API];
        assert_eq!(first.named().collect::<Vec<_>>(), ["api.github.com:443", "api.github.com"]);
        // As a broker of before wrote it.
        first.authorities.insert(0, first.id.clone());
        assert_eq!(first.named().collect::<Vec<_>>(), ["api.github.com:443", "api.github.com"]);
        assert!(crate::policy::Policy::compile(spec).unwrap().by_authority(b"api.github.com:443").is_some());
    }

    #[test]
    fn places_are_added_each_once_and_in_order() {
        let places = |headers: &[&str], query: &[&str]| {
            let of = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            StripSpec { headers: of(headers), query: of(query) }
        };
        let mut all = places(&["x-key", "x-token"], &["key"]);
        all.add(&places(&["X-Token", "X-Auth", "x-auth"], &["token", "key", "Key"]));
        assert_eq!(all, places(&["x-auth", "x-key", "x-token"], &["Key", "key", "token"]));
    }

    #[test]
    fn a_body_is_read_where_one_may_make_a_request_a_read_and_nowhere_else() {
        let operation = |path: &str, body: Option<BodyRule>| OperationSpec {
            method: "POST".into(),
            path: path.into(),
            query: BTreeMap::new(),
            no_other_query: false,
            body,
        };
        let says = || Some(BodyRule::JsonRpc { methods: vec!["ping".into()], tools: Vec::new() });
        let rules = AccessSpec {
            reads: vec![operation("/a", None), operation("/b/*", says()), operation("/c", says())],
            writes: vec![operation("/d", says())],
            graphql: Some(GraphqlSpec { paths: vec!["/graphql".into(), "/e/**".into()], subscriptions: false }),
            grpc: vec!["a.B/C".into()],
            ..AccessSpec::default()
        };
        assert_eq!(rules.judged_paths().collect::<Vec<_>>(), ["/b/*", "/c", "/graphql", "/e/**"]);
        assert_eq!(AccessSpec::default().judged_paths().next(), None);
    }
}
