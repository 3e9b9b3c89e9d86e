//! Hosts and authorities (RFC 3986, 3.2; RFC 1123, 2.1).
//!
//! There is one spelling of a host here: lower-case ASCII labels, or an address in its canonical
//! form. Everything a resolver might read differently (`0177.0.0.1`, a trailing dot, userinfo,
//! percent-encoding, a bare number) is not a host.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;

/// A host in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name, lower-case, without a trailing dot.
    Name(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
}

/// Why a text is not an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// A byte that no host name holds (userinfo, percent, non-ASCII, white space …).
    #[error("a host is made of letters, digits, '-', '_' and '.'")]
    BadCharacter,
    /// An empty, too long or badly bounded label; a trailing dot; over 253 characters.
    #[error("a host has labels of 1 to 63 characters that neither begin nor end with '-', and no trailing dot")]
    BadLabel,
    /// A number that some resolvers read as an address, not in canonical dotted form.
    #[error("an address is written in its canonical form (127.0.0.1, [::1])")]
    OddAddress,
    /// Not a decimal number from 1 to 65535 without leading zeros.
    #[error("a port is a number from 1 to 65535")]
    BadPort,
}

impl Host {
    /// Parses one host, in any case.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inner) = text.strip_prefix(b"[").and_then(|t| t.strip_suffix(b"]")) {
            let address: Ipv6Addr = ascii(inner)?.parse().map_err(|_| HostError::OddAddress)?;
            let canonical = address.to_string().as_bytes().eq_ignore_ascii_case(inner);
            return if canonical { Ok(Host::V6(address)) } else { Err(HostError::OddAddress) };
        }
        let name = ascii(text)?;
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(HostError::BadCharacter);
        }
        let bad = |label: &str| label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-');
        if name.len() > 253 || name.split('.').any(bad) {
            return Err(HostError::BadLabel);
        }
        // WHATWG URL, "ends in a number": resolvers read such names as addresses, in many bases.
        let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        if last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex) {
            // Ipv4Addr's parser takes the canonical form alone: four decimals without leading zeros.
            return name.parse().map(Host::V4).map_err(|_| HostError::OddAddress);
        }
        Ok(Host::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::V4(address) => address.fmt(f),
            Host::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// A host and, where one was given, a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, if the text named one.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `host` or `host:port`; userinfo is not part of it.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        let after_bracket = text.iter().position(|b| *b == b']').map_or(0, |at| at + 1);
        let colon = text.iter().skip(after_bracket).position(|b| *b == b':').map(|at| at + after_bracket);
        let Some(colon) = colon else { return Ok(Self { host: Host::parse(text)?, port: None }) };
        let (host, port) = text.split_at_checked(colon).ok_or(HostError::Empty)?;
        let port = port.get(1..).ok_or(HostError::BadPort).and_then(parse_port)?;
        Ok(Self { host: Host::parse(host)?, port: Some(port) })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

fn parse_port(digits: &[u8]) -> Result<u16, HostError> {
    let plain = digits.first().is_some_and(|d| (b'1'..=b'9').contains(d)) && digits.iter().all(u8::is_ascii_digit);
    if !plain {
        return Err(HostError::BadPort);
    }
    ascii(digits)?.parse().map_err(|_| HostError::BadPort)
}

fn ascii(bytes: &[u8]) -> Result<&str, HostError> {
    std::str::from_utf8(bytes).ok().filter(|t| t.is_ascii()).ok_or(HostError::BadCharacter)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn one_spelling_for_each_authority() {
        for (text, canonical) in [
            ("api.github.com", "api.github.com"),
            ("API.GitHub.com:443", "api.github.com:443"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("my_host", "my_host"),
            ("127.0.0.1:3030", "127.0.0.1:3030"),
            ("[::1]:8080", "[::1]:8080"),
            ("1e100.net", "1e100.net"),
            ("node1", "node1"),
            ("printer.lan2", "printer.lan2"),
            ("a.0xy", "a.0xy"),
        ] {
            let parsed = Authority::parse(text.as_bytes()).map(|a| a.to_string());
            assert_eq!(parsed.as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn a_name_and_its_labels_are_as_long_as_dns_takes_them_and_no_longer() {
        let label = |length: usize| "a".repeat(length);
        let name = |last: usize| [label(63), label(63), label(63), label(last)].join(".");
        for (text, is_name) in [
            (label(63), true),
            (label(64), false),
            (format!("{}.example", label(64)), false),
            (name(61), true),
            (name(62), false),
            (name(63), false),
            ("a-.example".into(), false),
            ("example.-a".into(), false),
            ("a-b.example".into(), true),
        ] {
            let expected = if is_name { Ok(Host::Name(text.clone())) } else { Err(HostError::BadLabel) };
            assert_eq!(Host::parse(text.as_bytes()), expected, "{} bytes: {text}", text.len());
        }
    }

    #[test]
    fn what_readers_disagree_about_is_no_authority() {
        use HostError::*;
        for (text, why) in [
            ("", Empty),
            (":443", Empty),
            ("api.github.com.", BadLabel),
            ("a..b", BadLabel),
            ("-a.com", BadLabel),
            ("api.github.com@evil.com", BadCharacter),
            ("api.github.com,evil.com", BadCharacter),
            ("api%2egithub.com", BadCharacter),
            ("api.github.com evil", BadCharacter),
            ("bücher.example", BadCharacter),
            ("api.github.com:443:80", BadPort),
            ("api.github.com:", BadPort),
            ("api.github.com:0443", BadPort),
            ("api.github.com:65536", BadPort),
            ("0177.0.0.1", OddAddress),
            ("2130706433", OddAddress),
            ("0x7f.1", OddAddress),
            ("127.1", OddAddress),
            ("0x7f000001", OddAddress),
            ("a.0x", OddAddress),
            ("[::ffff:0:0:0:0:1]", OddAddress),
            ("[0:0:0:0:0:0:0:1]", OddAddress),
            ("[fe80::1%25eth0]", OddAddress),
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Err(why), "{text:?}");
        }
        assert_eq!(Authority::parse(b"\xff\xfe"), Err(BadCharacter));
    }
}
