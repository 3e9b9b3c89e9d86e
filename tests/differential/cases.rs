//! Requests that two readers may read in two ways: good pieces put together, and then spoilt. The same
//! seed gives the same requests.

use std::fmt;

/// Authorities that the config names, and the ports they are reached by.
pub const HOSTS: &[&str] =
    &["api.example.com", "api.example.com:8443", "deep.api.example.com", "com", "10.1.2.3:8443", "[fd00::1]:8443"];

const ODD_HOSTS: &[&str] = &[
    "evil.test",
    "api.example.com.evil.test",
    "evilapi.example.com",
    "api.example.com@evil.test",
    "evil.test@api.example.com",
    "user:pass@api.example.com",
    "api.example.com,evil.test",
    "evil.test,api.example.com",
    "api.example.com#evil.test",
    "evil.test#api.example.com",
    "api.example.com/evil.test",
    "api.example.com?evil.test",
    "api.example.com\\evil.test",
    "api%2eexample.com",
    "api.example.com%00.evil.test",
    "api.example.com%2fevil.test",
    "xn--pi-7ja.example.com",
    "\u{e1}pi.example.com",
    "api\u{3002}example.com",
    "api.example\u{ad}.com",
    "10.1.515",
    "0x0a.1.2.3",
    "012.1.2.3",
    "167838211",
    "[fd00:0::1]",
    "[FD00::1]",
    "[fd00::1%25lo]",
    "[::ffff:10.1.2.3]",
    "[fd00::1",
    "fd00::1",
    "localhost",
    "gateway",
    "*",
    "",
];

const PORTS: &[&str] = &[
    "", "", "", ":443", ":443", ":80", ":8443", ":0443", ":", ":0", ":65979", ":443:80", ":+443", ":443 ", ": 443",
    ":\u{664}", ":44 3", ":https", ":-1",
];

const SEGMENTS: &[&str] = &[
    "a",
    "v1",
    "V1",
    "x.y",
    "..x",
    "x..",
    "~u",
    "a:b",
    "a,b",
    "a@b",
    "a=b",
    "a&b",
    "(a)",
    "a!",
    "a*",
    "a'b",
    "a|b",
    "a^b",
    "a`b",
    "a{b}",
    "a\"b",
    "<a>",
    "a[b]",
    ".",
    "..",
    "...",
    "%2e",
    "%2E%2e",
    ".%2e",
    "%2e.",
    "%252e",
    "%2e%2e%2f",
    "..;",
    "..;a=b",
    ".;",
    ";",
    ";a",
    "a;b=c",
    "%3b",
    "a%3Bb",
    "%",
    "%4",
    "%zz",
    "%41",
    "%7e",
    "%7E",
    "%2d",
    "%5f",
    "%20",
    "%21",
    "%23",
    "%3f",
    "%2f",
    "%5c",
    "%00",
    "%0a",
    "%0d",
    "%7f",
    "%80",
    "%ff",
    "%c0%ae",
    "%c3%a9",
    "\u{e9}",
    "\\",
    "..\\",
    "\\..",
    "a\\b",
    "#",
    "a#b",
    "#..",
    " ",
    "a b",
    "\t",
    "+",
    "a+b",
    "*",
    "**",
    "$",
    "_",
    "-",
    "%25",
    "%2",
    "%u002e",
    "\u{2024}\u{2024}",
    "\u{ff0e}\u{ff0e}",
];

const QUERIES: &[&str] = &[
    "",
    "",
    "",
    "",
    "?",
    "?a=b",
    "?a=/../b",
    "?a?b",
    "?/",
    "?//x",
    "?%2f",
    "?%5c",
    "?a#b",
    "?%00",
    "?\\",
    "?a=b;c",
    "??",
    "?a b",
    "?\u{e9}",
    "?%zz",
    "?..",
    "?a=b&c=%2e%2e",
];

const SCHEMES: &[&str] =
    &["http://", "http://", "https://", "HTTP://", "ftp://", "http:", "http:/", "http:///", "//", "ws://", "://"];

const SPOILING: &[u8] = b"\0\x01\t\x0b\r\x1b \"#%'*+,-./09:;<=>?@AZ[\\]^_`az{|}~\x7f\x80\xa0\xad\xc0\xc3\xe2\xff";

/// How a request is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// HTTP/1: the `Host` lines and the target.
    H1 { hosts: Vec<Vec<u8>>, target: Vec<u8> },
    /// HTTP/2: `:authority` and `host` as they are there, and `:path`.
    H2 { authority: Option<Vec<u8>>, hosts: Vec<Vec<u8>>, path: Vec<u8> },
}

impl Written {
    /// What a plain reading of it asks for: an authority and a target. `None` where there is none, or
    /// more than one.
    pub fn meant(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::H1 { hosts, target } if target.starts_with(b"/") => match &hosts[..] {
                [host] => Some((host.trim_ascii(), target)),
                _ => None,
            },
            Self::H1 { target, .. } => {
                let at =
                    memchr::memmem::find(target, b"://").filter(|at| target[..*at].eq_ignore_ascii_case(b"http"))?;
                let rest = &target[at + 3..];
                let slash = memchr::memchr(b'/', rest);
                Some(slash.map_or((rest, &b"/"[..]), |slash| rest.split_at(slash)))
            }
            Self::H2 { authority: Some(authority), path, .. } => Some((authority, path)),
            Self::H2 { authority: None, hosts, path } => match &hosts[..] {
                [host] => Some((host, path)),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, authority, hosts, target) = match self {
            Self::H1 { hosts, target } => ("HTTP/1", None, hosts, target),
            Self::H2 { authority, hosts, path } => ("HTTP/2", authority.as_ref(), hosts, path),
        };
        write!(f, "{version}, \"{}\"", target.escape_ascii())?;
        authority.into_iter().try_for_each(|text| write!(f, ", authority \"{}\"", text.escape_ascii()))?;
        hosts.iter().try_for_each(|text| write!(f, ", host \"{}\"", text.escape_ascii()))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// One request.
    pub fn request(&mut self) -> Written {
        let authority = self.authority();
        let target = self.target();
        if self.one_in(2) {
            return self.h1(authority, target);
        }
        let hosts = if self.one_in(8) { vec![self.authority()] } else { Vec::new() };
        let authority = (hosts.is_empty() || !self.one_in(4)).then_some(authority);
        Written::H2 { authority, hosts, path: target }
    }

    fn h1(&mut self, authority: Vec<u8>, mut target: Vec<u8>) -> Written {
        let mut hosts = vec![authority];
        if self.one_in(12) {
            let other = self.authority();
            hosts.push(other);
        }
        if self.one_in(10) {
            let scheme = self.of(SCHEMES).as_bytes();
            target = [scheme, &self.authority(), &target].concat();
        }
        // A line break ends a line: what follows is another header, and no byte of this one.
        for text in hosts.iter_mut().chain([&mut target]) {
            text.retain(|byte| *byte != b'\n');
        }
        Written::H1 { hosts, target }
    }

    fn authority(&mut self) -> Vec<u8> {
        let host = if self.one_in(5) { self.of(ODD_HOSTS) } else { self.of(HOSTS) };
        let mut text = format!("{host}{}", if self.one_in(2) { self.of(PORTS) } else { "" }).into_bytes();
        if self.one_in(20) {
            let at = memchr::memchr(b':', &text).unwrap_or(text.len());
            text.insert(at, b'.');
        }
        if self.one_in(6) {
            text.iter_mut().for_each(u8::make_ascii_uppercase);
        }
        self.spoil(&mut text, 12);
        text
    }

    fn target(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.one_in(3) {
            // A gateway serves a destination under a prefix, too.
            text.push(b'/');
            text.extend_from_slice(self.of(HOSTS).as_bytes());
            self.spoil(&mut text, 20);
        }
        for _ in 0..self.below(4) + usize::from(text.is_empty()) {
            let separator = match self.below(60) {
                0 => "//",
                1 => "\\",
                2 => "/./",
                3 => "",
                _ => "/",
            };
            text.extend_from_slice(separator.as_bytes());
            // Mostly plain ones: a path with one odd thing in it gets further than one with four.
            let segment = if self.one_in(3) { self.of(SEGMENTS) } else { self.of(&SEGMENTS[..12]) };
            text.extend_from_slice(segment.as_bytes());
        }
        if self.one_in(4) {
            text.push(b'/');
        }
        if self.one_in(3) {
            text.extend_from_slice(self.of(QUERIES).as_bytes());
        }
        self.spoil(&mut text, 10);
        text
    }

    /// One time in so many: a byte more, less, other, twice, in the other case, or escaped.
    fn spoil(&mut self, text: &mut Vec<u8>, one_in: usize) {
        while self.one_in(one_in) {
            let at = self.below(text.len() + 1);
            let byte = SPOILING[self.below(SPOILING.len())];
            let Some(old) = text.get(at).copied() else {
                text.push(byte);
                continue;
            };
            match self.below(6) {
                0 => text.insert(at, byte),
                1 => drop(text.remove(at)),
                2 => text[at] = byte,
                3 => text.insert(at, old),
                4 => text[at] = old ^ if old.is_ascii_alphabetic() { 0x20 } else { 0 },
                _ => drop(text.splice(at..=at, format!("%{old:02x}").into_bytes())),
            }
        }
    }
}
