//! What a session demands besides its placeholder. One form for configs, commands, API and store: a
//! binding that cannot be read in full is refused everywhere, never taken for less than it says.

use super::values::ValueError;
use attache_core::names::Name;
use attache_core::policy::EvidenceSpec;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What a session demands besides its placeholder: where a demand is not met, a placeholder is worth
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bind {
    /// The SPIFFE ID in the peer's certificate, verified by Envoy: exactly this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = r"^spiffe://(?!\.{1,2}(?:/|$))[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*$", max_length = 2048)]
    pub peer: Option<PeerId>,
    /// The network that the connection comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "cidr")]
    pub source: Option<Network>,
    /// The Envoy listener that it came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Name>,
    /// `required`: each request shows the session token, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Required>,
}

/// The one thing that can be said of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Required {
    /// It must be shown.
    Required,
}

impl Bind {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether one connection may show the peer and the listener that both demand.
    pub fn may_meet(&self, other: &Self) -> bool {
        let differ = |one: Option<&str>, other: Option<&str>| one.zip(other).is_some_and(|(one, other)| one != other);
        let peers = [self, other].map(|bind| bind.peer.as_ref().map(PeerId::as_str));
        let listeners = [self, other].map(|bind| bind.listener.as_ref().map(Name::as_str));
        !differ(peers[0], peers[1]) && !differ(listeners[0], listeners[1])
    }

    /// Whether what it demands names the session without a placeholder. An address does not: many
    /// share one.
    pub fn identifies(&self) -> bool {
        self.peer.is_some() || self.listener.is_some() || self.session_token.is_some()
    }

    /// Has filters read what is demanded.
    pub fn demand(&self, evidence: &mut EvidenceSpec) {
        evidence.peer |= self.peer.is_some();
        evidence.source |= self.source.is_some();
        evidence.listener |= self.listener.is_some();
    }
}

impl fmt::Display for Bind {
    /// What is demanded, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, source, listener, session_token } = self;
        let demands = [
            peer.as_ref().map(|peer| format!("peer {peer}")),
            source.map(|network| format!("source {network}")),
            listener.as_ref().map(|listener| format!("listener {listener}")),
            session_token.map(|_| "session token".to_owned()),
        ];
        let demands: Vec<_> = demands.into_iter().flatten().collect();
        if demands.is_empty() { f.write_str("nothing else") } else { f.write_str(&demands.join(", ")) }
    }
}

/// A SPIFFE ID: `spiffe://TRUST-DOMAIN/PATH` (SPIFFE ID, 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PeerId(String);

impl PeerId {
    /// As it stands in a certificate.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let segment = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let mut parts =
            text.strip_prefix("spiffe://").filter(|_| text.len() <= 2048).ok_or(ValueError::PeerId)?.split('/');
        let domain = parts.next().is_some_and(|domain| segment(domain) && domain.to_ascii_lowercase() == domain);
        if domain && parts.all(segment) { Ok(Self(text.to_owned())) } else { Err(ValueError::PeerId) }
    }
}

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether an address, in its canonical form, belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let network: IpNet = text.parse().map_err(|_| ValueError::Network)?;
        // An IPv4 peer is known by its IPv4 address; the mapped form would match nobody.
        let mapped = matches!(network, IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some());
        if network == network.trunc() && !mapped { Ok(Self(network)) } else { Err(ValueError::Network) }
    }
}

/// Both are written as texts.
macro_rules! text {
    ($($name:ident)*) => { $(
        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}

text!(PeerId Network);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> bool {
        text.parse::<PeerId>().is_ok()
    }

    fn network(text: &str) -> bool {
        text.parse::<Network>().is_ok()
    }

    #[test]
    fn a_peer_is_one_spiffe_id_and_no_pattern() {
        assert!(peer("spiffe://example.org/ns/agents/sa/reviewer") && peer("spiffe://example.org"));
        for bad in [
            "",
            "spiffe://",
            "https://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/*",
            "spiffe://example.org:1/a",
            "spiffe://u@example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "SPIFFE://example.org/a",
        ] {
            assert!(!peer(bad), "{bad}");
        }
    }

    #[test]
    fn a_network_is_written_in_one_way() {
        assert!(network("10.0.0.0/8") && network("127.0.0.1/32") && network("2001:db8::/32") && network("::1/128"));
        for bad in ["", "10.0.0.1", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8,11.0.0.0/8", "::ffff:10.0.0.0/104"] {
            assert!(!network(bad), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_read_in_full_is_refused() {
        let read = serde_json::from_str::<Bind>;
        let all = r#"{"peer":"spiffe://a/b","source":"10.0.0.0/8","listener":"inner","session_token":"required"}"#;
        assert_eq!(serde_json::to_string(&read(all).unwrap()).unwrap(), all, "what is stored reads back");
        assert_eq!(serde_json::to_string(&Bind::default()).unwrap(), "{}");
        for bad in
            [r#"{"pear":"x"}"#, r#"{"session_token":"optional"}"#, r#"{"session_token":true}"#, r#"{"peer":"x"}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
