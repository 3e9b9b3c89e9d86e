//! Addresses: nothing that somebody keeps for himself is public, in whatever form it is written.

use super::config;
use crate::matching::address::is_public;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

/// What the standard library knows of IPv4, by its own tables.
fn is_known_special(a: Ipv4Addr) -> bool {
    a.is_private()
        || a.is_loopback()
        || a.is_link_local()
        || a.is_unspecified()
        || a.is_broadcast()
        || a.is_documentation()
        || a.is_multicast()
}

/// Forms in which IPv6 carries an IPv4 address.
fn carriers(a: Ipv4Addr) -> [Ipv6Addr; 5] {
    let bits = u128::from(a.to_bits());
    let with = |prefix: u128, shift: u32| Ipv6Addr::from_bits(prefix | bits << shift);
    [
        a.to_ipv6_mapped(),
        a.to_ipv6_compatible(),
        with(0x2002 << 112, 80),
        with(0x2001_0000 << 96, 0),
        with(0x64_ff9b_0001 << 80, 0),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_the_standard_library_calls_special_is_not_public(bits in any::<u32>(), low in any::<u8>()) {
        for first in [0, 10, 127, 169, 172, 192, 198, 203, 224, 255] {
            let address = Ipv4Addr::from_bits(bits & 0x00ff_ffff | first << 24);
            prop_assert!(!(is_known_special(address) && is_public(address.into())), "{}", address);
        }
        for net in [Ipv4Addr::new(169, 254, 169, low), Ipv4Addr::new(192, 168, low, 1), Ipv4Addr::new(172, 16, low, 1)] {
            prop_assert!(!is_public(net.into()), "{}", net);
        }
    }

    #[test]
    fn no_form_of_ipv6_hides_an_ipv4_address(bits in any::<u32>()) {
        let inner = Ipv4Addr::from_bits(bits);
        for carrier in carriers(inner) {
            prop_assert!(!is_public(IpAddr::V6(carrier)), "{}", carrier);
        }
        let translated = Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(bits));
        prop_assert_eq!(is_public(translated.into()), is_public(inner.into()), "{}", translated);
    }

    #[test]
    fn what_is_public_is_global_unicast(bits in any::<u128>()) {
        let address = Ipv6Addr::from_bits(bits);
        if is_public(address.into()) {
            prop_assert!(bits >> 125 == 1 || bits >> 32 == 0x64_ff9b << 64, "{}", address);
        }
        for other in [0_u128, 2, 3, 4, 5, 6, 7] {
            let moved = Ipv6Addr::from_bits(bits & (u128::MAX >> 3) | other << 125);
            prop_assert!(other == 0 || !is_public(moved.into()), "{}", moved);
        }
    }
}
