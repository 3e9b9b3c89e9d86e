//! Which addresses lie in the public internet: what IANA keeps for special purposes does not.
//!
//! Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates), the
//! IPv4 and IPv6 multicast registries (RFC 5771, RFC 4291), and what clouds answer on for the machine
//! itself. A block counts by its "globally reachable"; of IPv6 nothing outside of global unicast does.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 that is not public: network, length of its prefix, what it is.
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network (RFC 791)"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private (RFC 1918)"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a carrier's customers (RFC 6598)"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback (RFC 1122)"),
    // Metadata of clouds: 169.254.169.254 and its neighbours.
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local (RFC 3927)"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private (RFC 1918)"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "for protocols (RFC 6890)"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation (RFC 5737)"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "relays of 6to4 (RFC 7526)"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private (RFC 1918)"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks (RFC 2544)"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation (RFC 5737)"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation (RFC 5737)"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast (RFC 5771)"),
    // The broadcast address is its last.
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved (RFC 1112)"),
    // Public by its number, and yet it is the platform that answers a virtual machine.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud's own, for its machines (Azure)"),
];

/// IPv6 that is not public, likewise. The first that holds an address names it.
const V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified (RFC 4291)"),
    (Ipv6Addr::LOCALHOST, 128, "loopback (RFC 4291)"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0]), 96, "IPv4 in IPv6 (RFC 4291)"),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0]), 96, "IPv4 in IPv6 (RFC 2765)"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0]), 96, "IPv4 in IPv6 (RFC 4291)"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0]), 48, "translated to IPv4 on site (RFC 8215)"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0]), 64, "discarded (RFC 6666)"),
    (v6([0x100, 0, 0, 1, 0, 0, 0, 0]), 64, "a dummy (RFC 9780)"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 32, "Teredo (RFC 4380)"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 23, "for protocols (RFC 2928)"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]), 32, "for documentation (RFC 3849)"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0]), 16, "6to4 (RFC 3056)"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0]), 20, "for documentation (RFC 9637)"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0]), 16, "segments of routes (RFC 9602)"),
    // Metadata of clouds, too: fd00:ec2::254, fd20:ce::254.
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7, "unique local (RFC 4193)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10, "link-local (RFC 4291)"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0]), 10, "site-local (RFC 3879)"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8, "multicast (RFC 4291)"),
];

/// All that IANA has given out for global unicast.
const GLOBAL: (Ipv6Addr, u32) = (v6([0x2000, 0, 0, 0, 0, 0, 0, 0]), 3);

/// Where translators put IPv4 for everybody (RFC 6052): such an address is as public as the one in it.
const TRANSLATED: (Ipv6Addr, u32) = (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0]), 96);

/// Whether an address lies in the public internet.
pub fn is_public(address: IpAddr) -> bool {
    special(address).is_none()
}

/// What an address is that does not lie in the public internet.
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) if within_v6(address, TRANSLATED) => {
            let [.., a, b, c, d] = address.octets();
            special_v4(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V6(address) => {
            let named = V6.iter().find(|(network, length, _)| within_v6(address, (*network, *length)));
            let other = (!within_v6(address, GLOBAL)).then_some("not given out (RFC 4291)");
            named.map(|(_, _, what)| *what).or(other)
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |network: Ipv4Addr, length| (address.to_bits() ^ network.to_bits()).leading_zeros() >= length;
    V4.iter().find(|(network, length, _)| within(*network, *length)).map(|(_, _, what)| *what)
}

fn within_v6(address: Ipv6Addr, (network, length): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, e, f, g, h)
}

#[cfg(test)]
mod tests;
