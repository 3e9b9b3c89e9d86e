//! Which of a host's addresses may be dialled.

use crate::config::Config;
use attache_core::matching::address::special;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Where this instance itself listens, and the Envoy before it. Nobody comes to these through the proxy,
/// whatever the config says.
#[derive(Clone, Debug, Default)]
pub struct OwnListeners(Vec<SocketAddr>);

/// What is public by its number alone.
const NEAR: &str = "this machine's own, or its neighbour's";

/// Why an address is not dialled. If one of a host's addresses is refused, the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not public.
    #[error("{0} is not public: {1}; only `private: true` lets it through")]
    NotPublic(IpAddr, &'static str),
    /// It is nobody's.
    #[error("{0} is no address of a host")]
    Nobodys(IpAddr),
    /// Which are near is not known.
    #[error("this machine's own addresses are not known ({0})")]
    Unknown(Errno),
    /// It is ours.
    #[error("{0} is this instance's own")]
    Own(SocketAddr),
}

impl OwnListeners {
    /// The listeners of an instance; `data_plane` and `health` are where those are really bound.
    pub fn new(config: &Config, [data_plane, health]: [Option<SocketAddr>; 2]) -> Self {
        let (written, health) = (config.listen.data_plane.tcp(), health.or(config.listen.health));
        let all = [Some(config.listen.proxy), config.listen.admin, data_plane.or(written), health];
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
    let around = if may_be_private { Vec::new() } else { around().map_err(Refused::Unknown)? };
    let vetted = |address: &IpAddr| {
        let dialled = SocketAddr::new(*address, port);
        if address.to_canonical().is_unspecified() || address.to_canonical().is_multicast() {
            return Err(Refused::Nobodys(*address));
        }
        if own.are_at(dialled) {
            return Err(Refused::Own(dialled));
        }
        if may_be_private {
            return Ok(dialled);
        }
        let near = || around.iter().any(|network| network.contains(&address.to_canonical())).then_some(NEAR);
        special(*address).or_else(near).map_or(Ok(dialled), |what| Err(Refused::NotPublic(*address, what)))
    };
    addresses.iter().map(vetted).collect()
}

/// What this machine's interfaces are in: itself, and who is reached without a router. Public by its number, and
/// behind the firewall all the same.
fn around() -> Result<Vec<IpNet>, Errno> {
    let ip = |address: &SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let network = |interface: InterfaceAddress| {
        let address = ip(&interface.address?)?;
        let whole = || IpNet::from(address);
        // Who says that everything is near says nothing.
        let net = interface.netmask.as_ref().and_then(ip).and_then(|mask| IpNet::with_netmask(address, mask).ok());
        Some(net.filter(|net| net.prefix_len() > 0).unwrap_or_else(whole))
    };
    Ok(getifaddrs()?.filter_map(network).collect())
}

/// One of them: of those that this machine has a route to, the one whose turn it is.
pub fn choose(vetted: &[SocketAddr], turn: usize) -> Option<SocketAddr> {
    // A few will do: each costs a question to the kernel.
    let routed: Vec<_> = vetted.iter().copied().take(MOST_ASKED).filter(has_route).collect();
    let among = if routed.is_empty() { vetted } else { &routed };
    among.get(turn.checked_rem(among.len())?).copied()
}

/// Of how many addresses of a name it is asked whether there is a route.
const MOST_ASKED: usize = 8;

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
