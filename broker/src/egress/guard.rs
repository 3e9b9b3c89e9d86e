//! Which of a host's addresses may be dialled.

use crate::config::{Config, Endpoint};
use attache_core::matching::address::special;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Where this instance itself listens, and the Envoy before it. Nobody comes to these through the proxy,
/// whatever the config says.
#[derive(Clone, Debug, Default)]
pub struct OwnListeners(Vec<SocketAddr>);

/// Why an address is not dialled. If one of a host's addresses is refused, the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not public.
    #[error("{0} is not public: {1}; only `private: true` lets it through")]
    NotPublic(IpAddr, &'static str),
    /// It is nobody's.
    #[error("{0} is no address of a host")]
    Nobodys(IpAddr),
    /// It is ours.
    #[error("{0} is this instance's own")]
    Own(SocketAddr),
}

impl OwnListeners {
    /// The listeners of an instance; `data_plane` is where that is really bound.
    pub fn new(config: &Config, data_plane: Option<SocketAddr>) -> Self {
        let written = match config.listen.data_plane {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        };
        let all = [Some(config.listen.proxy), config.listen.admin, data_plane.or(written)];
        Self(all.into_iter().flatten().collect())
    }

    /// Whether who dials this would reach one of them.
    fn are_at(&self, dialled: SocketAddr) -> bool {
        let ip = dialled.ip().to_canonical();
        let reaches = |listener: &SocketAddr| {
            let there = listener.ip().to_canonical();
            listener.port() == dialled.port() && (there == ip || (there.is_unspecified() && is_of_this_machine(ip)))
        };
        self.0.iter().any(reaches)
    }
}

/// All addresses of a host, if each of them may be dialled.
pub fn vet(
    addresses: &[IpAddr],
    port: u16,
    may_be_private: bool,
    own: &OwnListeners,
) -> Result<Vec<SocketAddr>, Refused> {
    let vetted = |address: &IpAddr| {
        let dialled = SocketAddr::new(*address, port);
        if address.to_canonical().is_unspecified() || address.to_canonical().is_multicast() {
            return Err(Refused::Nobodys(*address));
        }
        if own.are_at(dialled) {
            return Err(Refused::Own(dialled));
        }
        match special(*address) {
            Some(what) if !may_be_private => Err(Refused::NotPublic(*address, what)),
            _ => Ok(dialled),
        }
    };
    addresses.iter().map(vetted).collect()
}

/// One of them: of those that this machine has a route to, the one whose turn it is.
pub fn choose(vetted: &[SocketAddr], turn: usize) -> Option<SocketAddr> {
    let routed: Vec<_> = vetted.iter().copied().filter(has_route).collect();
    let among = if routed.is_empty() { vetted } else { &routed };
    among.get(turn.checked_rem(among.len())?).copied()
}

/// Whether the kernel would know where to send. Connecting a datagram socket sends nothing.
fn has_route(to: &SocketAddr) -> bool {
    UdpSocket::bind(any_port(to.ip())).and_then(|socket| socket.connect(to)).is_ok()
}

/// Whether an address is one of this machine's own: only those can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

fn any_port(kind: IpAddr) -> SocketAddr {
    let any = match kind {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(any, 0)
}
