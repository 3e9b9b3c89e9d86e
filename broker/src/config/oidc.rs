//! Providers of identities (OpenID Connect): whose JWTs name a session. Written, and resolved.

use super::values::{ClaimPattern, IdentityHeader, Issuer};
use attache_core::names::Name;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A provider of identities, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// What logs call it.
    pub name: Name,
    /// The `iss` of its tokens, exactly.
    pub issuer: Issuer,
    /// The `aud` that its tokens must hold, exactly.
    pub audience: Issuer,
    /// Its public keys: an `https://` URL, or a file read from this file's directory.
    pub jwks: String,
    /// `true` fetches the keys by `http://`, from a loopback address only.
    #[serde(default)]
    pub plaintext: bool,
    /// PEM file of authorities to trust beside the system's when fetching keys, read from this file's directory.
    pub ca_file: Option<String>,
    /// The signatures it may use; nothing else is accepted, whatever a token says.
    pub algorithms: Vec<Algorithm>,
    /// The header in which agents show its tokens (default `x-attache-identity`).
    #[serde(default)]
    pub header: IdentityHeader,
    /// Which token names which session: the first rule that fits.
    pub rules: Vec<RuleSpec>,
}

/// A rule: tokens with these claims name this session.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Claims that must all fit. `*` stands for any run of characters. A name that begins with `/` is
    /// a JSON pointer into the claims (RFC 6901).
    pub claims: BTreeMap<String, ClaimPattern>,
    /// The session, one that this file declares.
    pub session: Name,
}

/// A signature that a provider may use (RFC 7518, 3.1; RFC 8037). Shared secrets are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the names are those of the RFCs")]
pub enum Algorithm {
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

/// A provider of identities, ready to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// What logs call it.
    pub name: Name,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` that its tokens must hold.
    pub audience: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// The signatures it may use; never empty.
    pub algorithms: Vec<Algorithm>,
    /// The header in which agents show its tokens, lower-case.
    pub header: String,
    /// Which token names which session; never empty.
    pub rules: Vec<Rule>,
}

/// Where a provider's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An `https://` URL, or one on loopback.
    Url {
        /// The URL.
        url: String,
        /// Authorities to trust beside the system's, PEM, absolute.
        ca_file: Option<PathBuf>,
    },
    /// A file, absolute.
    File(PathBuf),
}

/// Tokens with these claims name this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Claims that must all fit; never empty.
    pub claims: BTreeMap<String, ClaimPattern>,
    /// The session.
    pub session: Name,
}
