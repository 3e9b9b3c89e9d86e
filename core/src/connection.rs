//! What a connection shows about who asks. Envoy says it, and no agent can write it into a request.

use crate::door::Inside;
use crate::matching::host::Host;
use crate::names::Name;
use crate::policy::EvidenceSpec;
use crate::wire::Transport;
use core::net::{IpAddr, SocketAddr};

/// Longest URI of a peer, in bytes (SPIFFE ID, 2.3).
const MOST_PEER: usize = 2048;

/// Something of the connection that the proxy can be asked for. Each is one host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Whether the peer's certificate was verified; one that merely was presented proves nothing.
    PeerVerified,
    /// The first URI among the subject alternative names of the peer's certificate.
    Peer,
    /// Address and port of the peer: the connection's own, as long as Envoy has
    /// `use_remote_address` (`attache doctor` looks).
    Source,
    /// What the door of a forward proxy found ([`Inside`]).
    Inside,
    /// The host that the TLS handshake names.
    ServerName,
}

impl Property {
    /// What must be asked for to learn this evidence; verification before the name.
    pub fn needed(evidence: &EvidenceSpec) -> Vec<Self> {
        let peer = evidence.peer.then_some([Self::PeerVerified, Self::Peer]);
        peer.into_iter().flatten().chain(evidence.source.then_some(Self::Source)).collect()
    }

    /// What must be asked for behind the door of a forward proxy, to know where a request may go: the
    /// connection is the proxy's own there, and what the client's showed comes with it. `None`: there is
    /// no door.
    pub fn behind_the_door(transport: Transport) -> Option<&'static [Self]> {
        Some(match transport {
            Transport::Gateway => return None,
            Transport::Plain => &[Self::Inside],
            Transport::Intercepted => &[Self::Inside, Self::ServerName],
        })
    }

    /// Its path at the proxy, segments separated by zero bytes (Envoy's attributes).
    pub fn path(self) -> &'static str {
        match self {
            Self::PeerVerified => "connection\0peer_certificate_valid",
            Self::Peer => "connection\0uri_san_peer_certificate",
            Self::Source => "source\0address",
            Self::Inside => "filter_state\0attache.tunnel",
            Self::ServerName => "connection\0requested_server_name",
        }
    }
}

/// What is known of one connection. What nobody needs is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    verified: bool,
    peer: Option<String>,
    source: Option<IpAddr>,
    listener: Option<Name>,
    transport: Transport,
    inside: Option<Inside>,
    server_name: Option<Host>,
}

impl Connection {
    /// A connection of this listener, of which nothing else is known.
    pub fn of(listener: Option<Name>) -> Self {
        Self { listener, ..Self::default() }
    }

    /// The same, of this transport.
    pub fn by(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Takes what the proxy says. What cannot be understood stays unknown, and a session that is
    /// bound to it is refused.
    pub fn learn(&mut self, property: Property, said: &[u8]) {
        match property {
            // A bool of CEL is one byte.
            Property::PeerVerified => self.verified = said == [1],
            Property::Peer => self.peer = uri(said),
            Property::Source => self.source = address(said),
            Property::Inside => self.enter(Inside::parse(said)),
            Property::ServerName => self.server_name = Host::parse(said).ok(),
        }
    }

    /// The URI of the peer, if its certificate was verified.
    pub fn peer(&self) -> Option<&str> {
        self.peer.as_deref().filter(|_| self.verified)
    }

    /// Where it comes from; an IPv4 address is one, however it is written.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The listener it came in by.
    pub fn listener(&self) -> Option<&Name> {
        self.listener.as_ref()
    }

    /// What the client's connection showed stands in the place of the proxy's own.
    fn enter(&mut self, inside: Option<Inside>) {
        let shown = inside.as_ref();
        self.source = shown.and_then(|inside| inside.source);
        self.peer = shown.and_then(|inside| inside.peer.clone());
        self.listener = shown.and_then(|inside| inside.listener.clone());
        self.verified = shown.is_some();
        self.inside = inside;
    }

    /// How requests come by it.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// What the door of a forward proxy found.
    pub fn inside(&self) -> Option<&Inside> {
        self.inside.as_ref()
    }

    /// The host that the TLS handshake names.
    pub fn server_name(&self) -> Option<&Host> {
        self.server_name.as_ref()
    }

    /// Whether it can name a session by itself. An address cannot: many share one.
    pub fn may_name_a_session(&self) -> bool {
        self.peer().is_some() || self.listener.is_some()
    }
}

fn uri(said: &[u8]) -> Option<String> {
    let plain = !said.is_empty() && said.len() <= MOST_PEER && said.iter().all(u8::is_ascii_graphic);
    plain.then(|| String::from_utf8_lossy(said).into_owned())
}

fn address(said: &[u8]) -> Option<IpAddr> {
    let address: SocketAddr = std::str::from_utf8(said).ok()?.parse().ok()?;
    Some(address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn learnt(said: &[(Property, &[u8])]) -> Connection {
        let mut connection = Connection::default();
        said.iter().for_each(|(property, said)| connection.learn(*property, said));
        connection
    }

    #[test]
    fn only_what_somebody_needs_is_asked_for() {
        let needed = |peer, source| {
            Property::needed(&EvidenceSpec { peer, source, listener: true, identity_headers: vec!["x".into()] })
        };
        assert_eq!(needed(false, false), [], "a listener and a header cost no host call");
        assert_eq!(needed(true, false), [Property::PeerVerified, Property::Peer]);
        assert_eq!(needed(false, true), [Property::Source]);
    }

    #[test]
    fn what_the_door_found_is_read_where_it_is_handed_on() {
        assert_eq!(Property::Inside.path(), format!("filter_state\0{}", crate::door::HANDED_ON));
    }

    #[test]
    fn behind_the_door_it_is_asked_what_the_door_found_and_in_a_tunnel_whom_the_handshake_names() {
        assert_eq!(Property::behind_the_door(Transport::Gateway), None);
        assert_eq!(Property::behind_the_door(Transport::Plain), Some(&[Property::Inside][..]));
        let tunnel = [Property::Inside, Property::ServerName];
        assert_eq!(Property::behind_the_door(Transport::Intercepted), Some(&tunnel[..]));
    }

    #[test]
    fn what_the_client_showed_at_the_door_stands_in_the_place_of_what_the_proxys_own_connection_shows() {
        let entered = |found: &[u8]| {
            let mut connection = Connection::of(Name::parse("own").ok());
            for (property, said) in [
                (Property::PeerVerified, &[1][..]),
                (Property::Peer, b"spiffe://test/own"),
                (Property::Source, b"10.0.0.1:1"),
                (Property::Inside, found),
            ] {
                connection.learn(property, said);
            }
            let listener = connection.listener().map(ToString::to_string);
            let source = connection.source().map(|source| source.to_string());
            let id = connection.inside().map(|inside| inside.id.clone());
            (connection.peer().map(str::to_owned), source, listener, id, connection.may_name_a_session())
        };
        let (id, text) = (Some("a.example:443".to_owned()), |text: &str| Some(text.to_owned()));
        let all = entered(b"- a.example:443 127.0.0.1 spiffe://test/client outer");
        assert_eq!(all, (text("spiffe://test/client"), text("127.0.0.1"), text("outer"), id.clone(), true));
        // One that showed nothing gets nothing of the proxy's.
        assert_eq!(entered(b"- a.example:443 - - -"), (None, None, None, id, false));
        assert_eq!(entered(b"unreadable"), (None, None, None, None, false));
    }

    #[test]
    fn each_is_asked_for_by_the_name_that_envoy_has_for_it() {
        for (property, path) in [
            (Property::PeerVerified, "connection\0peer_certificate_valid"),
            (Property::Peer, "connection\0uri_san_peer_certificate"),
            (Property::Source, "source\0address"),
            (Property::ServerName, "connection\0requested_server_name"),
        ] {
            assert_eq!(property.path(), path);
        }
    }

    #[test]
    fn a_certificate_that_was_only_presented_names_nobody() {
        let peer = b"spiffe://test/agent".as_slice();
        let shown = |said: &[(Property, &[u8])]| learnt(said).peer().map(str::to_owned);
        assert_eq!(
            shown(&[(Property::PeerVerified, &[1]), (Property::Peer, peer)]).as_deref(),
            Some("spiffe://test/agent")
        );
        for said in [&[0][..], &[], &[1, 0], b"1", b"true"] {
            let said = [(Property::PeerVerified, said), (Property::Peer, peer)];
            assert_eq!(shown(&said), None, "{said:?}");
            assert!(!learnt(&said).may_name_a_session());
        }
        assert_eq!(shown(&[(Property::Peer, peer)]), None, "nobody has said that it was verified");
    }

    #[test]
    fn what_cannot_be_understood_stays_unknown() {
        for said in [&b""[..], b"spiffe://a b", b"spiffe://\xff", &[b'a'; MOST_PEER + 1]] {
            assert_eq!(learnt(&[(Property::PeerVerified, &[1]), (Property::Peer, said)]).peer(), None);
        }
        let source = |said: &str| learnt(&[(Property::Source, said.as_bytes())]).source().map(|ip| ip.to_string());
        assert_eq!(source("10.1.2.3:40000").as_deref(), Some("10.1.2.3"));
        assert_eq!(source("[2001:db8::1]:40000").as_deref(), Some("2001:db8::1"));
        assert_eq!(source("[::ffff:10.1.2.3]:40000").as_deref(), Some("10.1.2.3"));
        for said in ["", "10.1.2.3", "/run/envoy.sock", "@internal", "10.1.2.3:x", "10.1.2.3:1,10.0.0.1:1"] {
            assert_eq!(source(said), None, "{said}");
        }
    }
}
