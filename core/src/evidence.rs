//! What a request shows about who asks.

use crate::digest::Digest;
use crate::headers::Span;
use crate::matching::query;
use crate::placeholder;
use crate::policy::{Carrier, Destination};
use crate::refusal::Reason;
use crate::request::Snapshot;
use crate::wire::{EvidenceDigests, evidence_word};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};

/// Headers that carry a credential at some service. On a managed destination all of them are
/// taken out before one is set; a placeholder may stand in each of them.
pub const AUTH_HEADERS: &[&[u8]] = &[
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    b"x-api-key",
    b"api-key",
    b"x-auth-token",
    b"x-access-token",
    b"x-goog-api-key",
    b"private-token",
    b"job-token",
    b"deploy-token",
    b"x-amz-security-token",
    b"x-vault-token",
    b"x-figma-token",
    b"x-shopify-access-token",
    SESSION_HEADER,
];

/// Query parameters that carry a credential at some service; treated like [`AUTH_HEADERS`].
pub const AUTH_PARAMETERS: &[&[u8]] = &[
    b"access_token",
    b"api_key",
    b"apikey",
    b"api-key",
    b"auth_token",
    b"private_token",
    b"job_token",
    b"oauth_token",
    b"x-amz-security-token",
];

/// The header in which a session token names a session without a credential.
pub const SESSION_HEADER: &[u8] = b"x-attache-session";

/// Clients pad or do not; whatever a server would accept must be looked into.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// All evidence of one request.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The placeholder, if one stands where it belongs.
    pub placeholder: Option<Token>,
    /// The session token.
    pub session_token: Option<Token>,
}

/// A token found in a request.
#[derive(Clone, Debug)]
pub enum Token {
    /// As it stands in the snapshot.
    Plain(Span),
    /// Decoded from Basic.
    Decoded(Vec<u8>),
}

impl Token {
    /// Its bytes.
    pub fn of<'a>(&'a self, snapshot: &'a Snapshot) -> &'a [u8] {
        match self {
            Token::Plain(span) => span.of(snapshot.bytes()),
            Token::Decoded(bytes) => bytes,
        }
    }
}

impl Evidence {
    /// Collects the evidence of a request to a managed destination. A placeholder anywhere but in
    /// an auth-bearing place is misplaced; two different ones conflict.
    pub fn collect(snapshot: &Snapshot, destination: &Destination) -> Result<Self, Reason> {
        if snapshot.hides_placeholder() {
            return Err(Reason::PlaceholderMisplaced);
        }
        let mut evidence = Self::default();
        for mark in snapshot.marks()? {
            let token = snapshot.token_around(*mark);
            if snapshot.stands_in_session_header(*mark) {
                evidence.show_session(Token::Plain(token), snapshot)?;
            } else if snapshot.stands_in_auth_header(*mark) || in_carrier_parameter(snapshot, *mark, destination) {
                evidence.show(Token::Plain(token), snapshot)?;
            } else {
                return Err(Reason::PlaceholderMisplaced);
            }
        }
        for line in snapshot.auth_lines() {
            if let Some(decoded) = decode_basic(line.value.of(snapshot.bytes())) {
                for token in placeholder::find(&decoded) {
                    evidence.show(Token::Decoded(token.to_vec()), snapshot)?;
                }
            }
        }
        Ok(evidence)
    }

    fn show(&mut self, token: Token, snapshot: &Snapshot) -> Result<(), Reason> {
        show_in(&mut self.placeholder, token, snapshot)
    }

    fn show_session(&mut self, token: Token, snapshot: &Snapshot) -> Result<(), Reason> {
        show_in(&mut self.session_token, token, snapshot)
    }

    /// Whether nothing was shown.
    pub fn is_empty(&self) -> bool {
        self.placeholder.is_none() && self.session_token.is_none()
    }

    /// What goes over the wire in its stead.
    pub fn digests(&self, snapshot: &Snapshot) -> EvidenceDigests {
        let digest = |token: &Option<Token>| token.as_ref().map(|t| Digest::of(t.of(snapshot)));
        EvidenceDigests { placeholder: digest(&self.placeholder), session_token: digest(&self.session_token) }
    }

    /// The word for audit records.
    pub fn word(&self) -> &'static str {
        evidence_word(self.placeholder.is_some(), self.session_token.is_some())
    }
}

fn show_in(place: &mut Option<Token>, token: Token, snapshot: &Snapshot) -> Result<(), Reason> {
    // No token of ours is longer, and what nobody can have been given need not be remembered.
    if token.of(snapshot).len() > placeholder::MAX_LEN {
        return Err(Reason::PlaceholderUnknown);
    }
    match place {
        Some(known) if known.of(snapshot) != token.of(snapshot) => Err(Reason::EvidenceConflict),
        Some(_) => Ok(()),
        None => {
            *place = Some(token);
            Ok(())
        }
    }
}

/// The user and password of `Basic …`, if that is what the value holds.
pub(crate) fn decode_basic(value: &[u8]) -> Option<Vec<u8>> {
    let scheme = value.get(..6)?;
    let rest = value.get(6..).filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    BASE64.decode(rest.trim_ascii()).ok()
}

/// Whether a position in the query is the value of a parameter that carries this destination's credential.
fn in_carrier_parameter(snapshot: &Snapshot, mark: usize, destination: &Destination) -> bool {
    let bytes = snapshot.bytes();
    let target = snapshot.target();
    let Some(question) = memchr::memchr(b'?', target.of(bytes)) else { return false };
    let query_start = target.start() + question + 1;
    if !(query_start..target.end()).contains(&mark) {
        return false;
    }
    let mut at = query_start;
    query::parameters(bytes.get(query_start..target.end()).unwrap_or_default()).any(|parameter| {
        let value = Span::new(at + parameter.name.len(), at + parameter.text.len());
        at += parameter.text.len() + 1;
        let carries = |carrier: &Carrier| matches!(carrier, Carrier::Query(name) if name.as_bytes() == parameter.name);
        value.contains(mark) && destination.bindings().iter().any(|b| carries(&b.carrier))
    })
}
