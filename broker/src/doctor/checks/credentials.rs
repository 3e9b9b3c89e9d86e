//! What a credential looks like in a configuration: the headers that carry one, the keys that name
//! one, the shapes values have. Placeholders carry a public marker and are no secrets.

use attache_core::evidence::{AUTH_HEADERS, AUTH_PARAMETERS};
use attache_core::placeholder::MARKER;

/// Headers beyond those the filter strips that carry a credential: an answer's, and a proxy's.
const MORE_HEADERS: [&str; 2] = ["set-cookie", "dd-api-key"];

/// Parameters beyond those the filter strips: too plain to strip everywhere, yet some services take
/// a credential in them.
const MORE_PARAMETERS: [&str; 3] = ["key", "token", "sig"];

/// The last word or words of a key whose value is a secret.
const SECRET_KEYS: [&str; 10] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authorization",
    "apikey",
    "api_key",
    "private_key",
    "access_key",
];

/// How known tokens begin.
const SHAPES: [&str; 27] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "sk-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "glsa_",
    "npm_",
    "dckr_pat_",
    "hvs.",
    "sntrys_",
    "sntryu_",
    "-----BEGIN",
    "Bearer ",
    "Basic ",
];

/// Tokens are longer than the words that happen to begin alike.
const SHORTEST_TOKEN: usize = 12;

pub(super) fn is_credential_header(name: &str) -> bool {
    is_in(name, AUTH_HEADERS, &MORE_HEADERS)
}

pub(super) fn is_credential_parameter(name: &str) -> bool {
    is_in(name, AUTH_PARAMETERS, &MORE_PARAMETERS)
}

fn is_in(name: &str, stripped: &[&[u8]], more: &[&str]) -> bool {
    stripped.iter().any(|known| known.eq_ignore_ascii_case(name.as_bytes()))
        || more.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a key announces a secret: `github_token`, `clientSecret`; not `token_file`.
pub(super) fn names_secret(key: &str) -> bool {
    let mut words = String::new();
    for c in key.chars() {
        match c {
            'A'..='Z' => {
                words.push('_');
                words.push(c.to_ascii_lowercase());
            }
            '-' | '.' | ' ' => words.push('_'),
            _ => words.push(c),
        }
    }
    // All capitals is one word a letter by the rule above: environment variables.
    let plain = key.to_ascii_lowercase();
    let ends_in =
        |name: &str, secret: &str| name == secret || name.strip_suffix(secret).is_some_and(|rest| rest.ends_with('_'));
    SECRET_KEYS.iter().any(|secret| ends_in(&words, secret) || ends_in(&plain, secret))
}

/// Whether a value has the shape of a known token, alone or after white space or a quote.
pub(super) fn looks_secret(value: &str) -> bool {
    !is_placeholder(value)
        && SHAPES.iter().any(|shape| {
            value.match_indices(shape).any(|(at, _)| {
                let (before, from) = value.split_at(at);
                let starts =
                    before.chars().next_back().is_none_or(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'));
                starts && from.len() >= SHORTEST_TOKEN
            })
        })
}

pub(super) fn is_placeholder(value: &str) -> bool {
    value.contains(MARKER)
}
