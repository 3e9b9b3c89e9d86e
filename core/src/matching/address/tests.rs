use super::*;
use crate::fixture::test;

fn public(text: &str) -> bool {
    is_public(text.parse().unwrap_or_else(|_| panic!("{text} is no address")))
}

/// First and last address of each block, and the neighbours that are in none.
const ROWS: &[(&str, &str, &[&str])] = &[
    // iana-ipv4-special-registry
    ("0.0.0.0", "0.255.255.255", &["1.0.0.0"]),
    ("10.0.0.0", "10.255.255.255", &["9.255.255.255", "11.0.0.0"]),
    ("100.64.0.0", "100.127.255.255", &["100.63.255.255", "100.128.0.0"]),
    ("127.0.0.0", "127.255.255.255", &["126.255.255.255", "128.0.0.0"]),
    ("169.254.0.0", "169.254.255.255", &["169.253.255.255", "169.255.0.0"]),
    ("172.16.0.0", "172.31.255.255", &["172.15.255.255", "172.32.0.0"]),
    ("192.0.0.0", "192.0.0.255", &["191.255.255.255", "192.0.1.0"]),
    ("192.0.2.0", "192.0.2.255", &["192.0.1.255", "192.0.3.0"]),
    ("192.88.99.0", "192.88.99.255", &["192.88.98.255", "192.88.100.0"]),
    ("192.168.0.0", "192.168.255.255", &["192.167.255.255", "192.169.0.0"]),
    ("198.18.0.0", "198.19.255.255", &["198.17.255.255", "198.20.0.0"]),
    ("198.51.100.0", "198.51.100.255", &["198.51.99.255", "198.51.101.0"]),
    ("203.0.113.0", "203.0.113.255", &["203.0.112.255", "203.0.114.0"]),
    // iana multicast-addresses; the rest of the space to its end
    ("224.0.0.0", "239.255.255.255", &["223.255.255.255"]),
    ("240.0.0.0", "255.255.255.255", &[]),
    // learn.microsoft.com, "What is IP address 168.63.129.16?"
    ("168.63.129.16", "168.63.129.16", &["168.63.129.15", "168.63.129.17"]),
    // iana-ipv6-special-registry, and RFC 4291 for what is no global unicast
    ("::", "::", &[]),
    ("::1", "::1", &[]),
    ("::ffff:0.0.0.0", "::ffff:255.255.255.255", &[]),
    ("::ffff:0:0.0.0.0", "::ffff:0:255.255.255.255", &[]),
    ("::0.0.0.2", "::255.255.255.255", &[]),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", &[]),
    ("100::", "100::ffff:ffff:ffff:ffff", &[]),
    ("100:0:0:1::", "100::1:ffff:ffff:ffff:ffff", &[]),
    ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", &["2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", &["2001:200::"]),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", &["2001:db7:ffff::", "2001:db9::"]),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["2001:ffff::", "2003::"]),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", &["3ffe:ffff::", "3fff:1000::"]),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
];

#[test]
fn each_block_is_refused_from_its_first_address_to_its_last() {
    assert_eq!(ROWS.len(), V4.len() + V6.len(), "each block has a row");
    for ((first, last, neighbours), expected) in ROWS.iter().zip(V4.iter().map(|b| b.2).chain(V6.iter().map(|b| b.2))) {
        for text in [first, last] {
            let address = text.parse().unwrap();
            assert!(!is_public(address), "{text}");
            // A block within a wider one is named by itself.
            let named = special(address).unwrap();
            assert!(named == expected || *first == "2001::", "{text}: {named}, not {expected}");
        }
        assert!(neighbours.iter().all(|text| public(text)), "{neighbours:?} are public");
    }
}

#[test]
fn what_clouds_tell_their_machines_is_refused() {
    for text in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
    ] {
        assert!(!public(text), "{text}");
    }
}

#[test]
fn a_translated_address_is_as_public_as_the_one_in_it() {
    for (text, expected) in [
        ("64:ff9b::8.8.8.8", true),
        ("64:ff9b::127.0.0.1", false),
        ("64:ff9b::10.0.0.1", false),
        ("64:ff9b::169.254.169.254", false),
        ("64:ff9b::0.0.0.0", false),
        // Next to the prefix, and so not it.
        ("64:ff9b::1:8.8.8.8", false),
        ("64:ff9a::8.8.8.8", false),
    ] {
        assert_eq!(public(text), expected, "{text}");
    }
}

#[test]
fn nothing_is_public_that_iana_has_not_given_out() {
    for text in ["::2:0:0:0", "1::", "1fff:ffff::", "4000::", "6000::1", "a000::", "fbff::", "fe00::1", "200::"] {
        assert!(!public(text), "{text}");
    }
    for text in ["1.1.1.1", "8.8.8.8", "140.82.121.4", "2606:4700::1111", "2a00:1450::1", "2620:4f:8000::", "3000::"] {
        assert!(public(text), "{text}");
    }
}
