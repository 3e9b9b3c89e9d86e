//! The secrets of a test and every form in which one could show.
//!
//! One search answers "does this stream carry a secret?": plain, base64 (both alphabets, all
//! three alignments, so Basic needs no decoding), percent-encoded, hex, JSON-escaped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;

/// Below this a base64 fragment of a secret would match by chance.
const SHORTEST: usize = 8;

/// Shared, growing set of named secrets; a name may have several versions (rotation).
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Vec<Needle>>>);

/// One place where a secret shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The secret's name: the credential's.
    pub name: String,
    /// How it was written.
    pub form: &'static str,
    /// Byte offset in what was searched.
    pub offset: usize,
}

#[derive(Clone)]
struct Needle {
    name: String,
    form: &'static str,
    finder: Arc<memmem::Finder<'static>>,
}

impl Secrets {
    /// A set of (credential name, secret bytes).
    #[must_use]
    pub fn new<N: AsRef<str>, S: AsRef<[u8]>>(named: impl IntoIterator<Item = (N, S)>) -> Self {
        let set = Self::default();
        for (name, secret) in named {
            set.add(name, secret);
        }
        set
    }

    /// Adds a secret, or one more version of a secret.
    ///
    /// # Panics
    /// When the secret is too short to be told from chance.
    pub fn add(&self, name: impl AsRef<str>, secret: impl AsRef<[u8]>) {
        let (name, secret) = (name.as_ref(), secret.as_ref());
        assert!(secret.len() >= SHORTEST, "the secret of {name} needs at least {SHORTEST} bytes");
        let mut seen = BTreeSet::new();
        let mut needles = self.0.write().expect("no panic while adding");
        for (form, bytes) in forms(secret) {
            if seen.insert(bytes.clone()) {
                let finder = Arc::new(memmem::Finder::new(&bytes).into_owned());
                needles.push(Needle { name: name.to_owned(), form, finder });
            }
        }
    }

    /// Every secret that shows in `haystack`: the first place of each (name, form).
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Vec<Finding> {
        let needles = self.0.read().expect("no panic while adding");
        let found = needles.iter().filter_map(|needle| {
            let offset = needle.finder.find(haystack)?;
            Some(Finding { name: needle.name.clone(), form: needle.form, offset })
        });
        found.collect()
    }

    fn longest(&self) -> usize {
        let needles = self.0.read().expect("no panic while adding");
        needles.iter().map(|needle| needle.finder.needle().len()).max().unwrap_or(0)
    }
}

/// Searches a stream that arrives in pieces; a secret split over two pieces is found.
pub struct Scanner {
    secrets: Secrets,
    tail: Vec<u8>,
}

impl Scanner {
    /// A scanner at the beginning of a stream.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        Self { secrets: secrets.clone(), tail: Vec::new() }
    }

    /// The secrets that became visible with this piece.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Finding> {
        self.tail.extend_from_slice(piece);
        let found = self.secrets.find(&self.tail);
        let keep = self.secrets.longest().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
        found
    }
}

/// What a text says to those who take its escapes for what they stand for (`%41`, `\u0041`, `\/`), in
/// any mixture, and to whom a line of base64 is not its end; `None` if it holds none of these.
#[must_use]
pub fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr3(b'%', b'\\', b'\n', text)?;
    let digits =
        |at: usize| std::str::from_utf8(text.get(at..at + 2)?).ok().and_then(|two| u8::from_str_radix(two, 16).ok());
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let next = text.get(at + 1).copied().unwrap_or_default();
        let (said, size) = match (byte, next) {
            (b'%', _) if digits(at + 1).is_some() => (digits(at + 1), 3),
            (b'\\', b'u') if text[at..].starts_with(b"\\u00") && digits(at + 4).is_some() => (digits(at + 4), 6),
            (b'\\', b'r' | b'n') => (None, 2),
            (b'\\', b'/' | b'\\' | b'"' | b'\'') => (Some(next), 2),
            (b'\r' | b'\n', _) => (None, 1),
            _ => (Some(*byte), 1),
        };
        out.extend(said.filter(|byte| !b"\r\n".contains(byte)));
        at += size;
    }
    Some(out)
}

fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![("plain", secret.to_vec())];
    for shift in 0..3 {
        let standard = base64_core(secret, shift, |padded| STANDARD.encode(padded));
        let url_safe = base64_core(secret, shift, |padded| URL_SAFE.encode(padded));
        forms.push(("base64", standard));
        forms.push(("base64url", url_safe));
    }
    let hex = hex(secret, "");
    forms.push(("HEX", hex.to_ascii_uppercase().into_bytes()));
    forms.push(("hex", hex.into_bytes()));
    let unreserved = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    for keep in [&unreserved as &dyn Fn(&u8) -> bool, &|_| false] {
        let (lower, upper) = percent(secret, keep);
        forms.push(("percent-encoded", lower));
        forms.push(("percent-encoded", upper));
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        let quoted = serde_json::to_string(text).expect("a string is JSON");
        forms.push(("JSON-escaped", quoted.trim_matches('"').as_bytes().to_vec()));
    }
    forms
}

/// The part of the base64 text that is the same whatever stands before and after the secret,
/// when the secret begins `shift` bytes into a group of three.
fn base64_core(secret: &[u8], shift: usize, encode: impl Fn(&[u8]) -> String) -> Vec<u8> {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(secret);
    let first = (shift * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    encode(&padded).as_bytes()[first..end].to_vec()
}

fn hex(bytes: &[u8], before_each: &str) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{before_each}{byte:02x}").expect("a string accepts writes");
        out
    })
}

fn percent(secret: &[u8], keep: &dyn Fn(&u8) -> bool) -> (Vec<u8>, Vec<u8>) {
    let encode = |upper: bool| {
        let each = secret.iter().flat_map(|byte| match keep(byte) {
            true => vec![*byte],
            false if upper => format!("%{byte:02X}").into_bytes(),
            false => format!("%{byte:02x}").into_bytes(),
        });
        each.collect()
    };
    (encode(false), encode(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t/+value?with=specials";

    fn forms_found(haystack: &[u8]) -> Vec<&'static str> {
        let secrets = Secrets::new([("k", SECRET)]);
        secrets.find(haystack).into_iter().map(|finding| finding.form).collect()
    }

    #[test]
    fn finds_base64_in_every_alignment() {
        for before in ["", "x", "xy", "xyz", "x-access-token:"] {
            for after in ["", "a", "ab", "abc"] {
                let text = format!("{before}{SECRET}{after}");
                assert_eq!(forms_found(STANDARD.encode(&text).as_bytes()), ["base64"], "{text}");
                let url = URL_SAFE.encode(&text);
                assert!(!forms_found(url.as_bytes()).is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn finds_hex_and_percent_forms_and_nothing_else() {
        assert_eq!(forms_found(hex(SECRET.as_bytes(), "").as_bytes()), ["hex"]);
        let partly = SECRET.replace('/', "%2F").replace('+', "%2B").replace('?', "%3F").replace('=', "%3D");
        assert_eq!(forms_found(partly.as_bytes()), ["percent-encoded"]);
        assert_eq!(forms_found(hex(SECRET.as_bytes(), "%").as_bytes()), ["percent-encoded"]);
        assert!(forms_found(SECRET.replace('c', "*").as_bytes()).is_empty());
    }

    #[test]
    fn finds_any_mixture_of_escapes_and_base64_in_lines() {
        let secrets = Secrets::new([("k", SECRET)]);
        let mixed: String = SECRET
            .bytes()
            .enumerate()
            .map(|(at, byte)| match at % 4 {
                0 => format!("%{byte:02X}"),
                1 => format!("\\u{byte:04x}"),
                2 if byte == b'/' => "\\/".to_owned(),
                _ => char::from(byte).to_string(),
            })
            .collect();
        let base64 = STANDARD.encode(format!("user:{SECRET}"));
        let lines = |line_break: &str| format!("{}{line_break}{}", &base64[..20], &base64[20..]);
        for text in [mixed, lines("\r\n"), lines("\\n"), lines("%0D%0A"), base64.replace('=', "%3D")] {
            let found = secrets.find(&unescaped(text.as_bytes()).expect("it has escapes"));
            assert_eq!(found.len(), 1, "{text}");
        }
        assert_eq!(unescaped(b"nothing to see"), None);
    }

    #[test]
    fn a_scanner_finds_a_secret_split_anywhere() {
        let secrets = Secrets::new([("k", SECRET)]);
        let stream = format!("before {SECRET} after");
        for size in 1..stream.len() {
            let mut scanner = Scanner::new(&secrets);
            let found = stream.as_bytes().chunks(size).any(|piece| !scanner.feed(piece).is_empty());
            assert!(found, "in pieces of {size}");
        }
    }
}
