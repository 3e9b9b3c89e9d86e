//! What a request shows about who asks.

use crate::digest::Digest;
use crate::headers::{Line, Span};
use crate::matching::query;
use crate::names::Name;
use crate::placeholder;
use crate::policy::{Carrier, Destination};
use crate::refusal::Reason;
use crate::request::Snapshot;
use crate::wire::{EvidenceDigests, ShownJwt, evidence_word};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use core::{fmt, net::IpAddr};

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
    b"bearer_token",
    b"authorization",
    // Google's APIs take any header from it (https://cloud.google.com/apis/docs/system-parameters).
    b"$httpheaders",
    b"x-amz-security-token",
];

/// The header in which a session token names a session without a credential.
pub const SESSION_HEADER: &[u8] = b"x-attache-session";

/// Longest JWT that is looked at, in bytes.
pub const MOST_JWT: usize = 8 << 10;

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
    /// The session token that was shown at the door of a forward proxy.
    pub inside: Option<Digest>,
    /// The line that holds a JWT. What it says is the broker's to find out.
    pub jwt: Option<Line>,
}

/// A token found in a request. Whoever has it can show it, so no log does.
#[derive(Clone)]
pub enum Token {
    /// As it stands in the snapshot.
    Plain(Span),
    /// Decoded from Basic.
    Decoded(Vec<u8>),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Decoded(_) => "Decoded(…)",
        })
    }
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
        let own = destination.strip.lines(snapshot);
        for mark in snapshot.marks()? {
            let token = snapshot.token_around(*mark);
            if snapshot.jwt_lines().iter().any(|line| line.value.contains(*mark)) {
                return Err(Reason::PlaceholderMisplaced);
            }
            if snapshot.stands_in_session_header(*mark) {
                evidence.show_session(Token::Plain(token), snapshot)?;
            } else if snapshot.stands_in_auth_header(*mark)
                || own.iter().any(|line| line.value.contains(*mark))
                || in_carrier_parameter(snapshot, *mark, destination)
            {
                evidence.show(Token::Plain(token), snapshot)?;
            } else {
                return Err(Reason::PlaceholderMisplaced);
            }
        }
        for line in snapshot.auth_lines().iter().chain(&own) {
            if let Some(decoded) = decode_basic(line.value.of(snapshot.bytes())) {
                for token in placeholder::find(&decoded) {
                    evidence.show(Token::Decoded(token.to_vec()), snapshot)?;
                }
            }
        }
        evidence.jwt = the_jwt(snapshot)?;
        evidence.inside = snapshot.connection().inside().and_then(|inside| inside.session_token);
        if let (Some(inside), Some(token)) = (&evidence.inside, &evidence.session_token)
            && *inside != Digest::of(token.of(snapshot))
        {
            return Err(Reason::EvidenceConflict);
        }
        Ok(evidence)
    }

    fn show(&mut self, token: Token, snapshot: &Snapshot) -> Result<(), Reason> {
        show_in(&mut self.placeholder, token, snapshot)
    }

    fn show_session(&mut self, token: Token, snapshot: &Snapshot) -> Result<(), Reason> {
        show_in(&mut self.session_token, token, snapshot)
    }

    /// Whether the request itself shows nothing; its connection may, and what it came through.
    pub fn is_empty(&self) -> bool {
        self.placeholder.is_none() && self.session_token.is_none() && self.jwt.is_none()
    }

    /// What goes over the wire.
    pub fn digests(&self, snapshot: &Snapshot) -> EvidenceDigests {
        let digest = |token: &Option<Token>| token.as_ref().map(|t| Digest::of(t.of(snapshot)));
        let text = |span: Span| String::from_utf8_lossy(span.of(snapshot.bytes())).into_owned();
        let connection = snapshot.connection();
        EvidenceDigests {
            placeholder: digest(&self.placeholder),
            session_token: digest(&self.session_token).or(self.inside),
            jwt: self.jwt.map(|line| ShownJwt { header: text(line.name), token: text(line.value) }),
            peer: connection.peer().map(str::to_owned),
            source: connection.source(),
            listener: connection.listener().cloned(),
        }
    }

    /// Hands over every part of it, absent ones as nothing, always in this order: with each one's
    /// length before it, no two askers read alike.
    pub fn for_each_part(&self, snapshot: &Snapshot, mut each: impl FnMut(&[u8])) {
        for token in [&self.placeholder, &self.session_token] {
            each(token.as_ref().map(|token| token.of(snapshot)).unwrap_or_default());
        }
        each(self.inside.as_ref().map(|digest| digest.as_bytes().as_slice()).unwrap_or_default());
        let jwt = self.jwt.unwrap_or_default();
        each(jwt.name.of(snapshot.bytes()));
        each(jwt.value.of(snapshot.bytes()));
        let connection = snapshot.connection();
        each(connection.peer().unwrap_or_default().as_bytes());
        match connection.source() {
            None => each(b""),
            Some(IpAddr::V4(address)) => each(&address.octets()),
            Some(IpAddr::V6(address)) => each(&address.octets()),
        }
        each(connection.listener().map(Name::as_str).unwrap_or_default().as_bytes());
    }

    /// The word for audit records.
    pub fn word(&self, snapshot: &Snapshot) -> String {
        let connection = snapshot.connection();
        evidence_word([
            self.placeholder.is_some(),
            self.session_token.is_some() || self.inside.is_some(),
            self.jwt.is_some(),
            connection.peer().is_some(),
            connection.source().is_some(),
            connection.listener().is_some(),
        ])
    }
}

/// The one line with a JWT, if there is one and it has the form of one (RFC 7515, 3.1).
fn the_jwt(snapshot: &Snapshot) -> Result<Option<Line>, Reason> {
    let line = match snapshot.jwt_lines() {
        [] => return Ok(None),
        [line] => line,
        _ => return Err(Reason::EvidenceConflict),
    };
    let value = line.value.of(snapshot.bytes());
    let plain = value.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    // What is no token is treated as a wrong one: what a caller learns is the same.
    if plain && value.len() <= MOST_JWT && value.split(|b| *b == b'.').filter(|part| !part.is_empty()).count() == 3 {
        Ok(Some(*line))
    } else {
        Err(Reason::IdentityRequired)
    }
}

fn show_in(place: &mut Option<Token>, token: Token, snapshot: &Snapshot) -> Result<(), Reason> {
    check_length(token.of(snapshot))?;
    match place {
        Some(known) if known.of(snapshot) != token.of(snapshot) => Err(Reason::EvidenceConflict),
        Some(_) => Ok(()),
        None => {
            *place = Some(token);
            Ok(())
        }
    }
}

/// No token of ours is longer, and what nobody can have been given need not be remembered.
pub(crate) fn check_length(token: &[u8]) -> Result<(), Reason> {
    if token.len() > placeholder::MAX_LEN { Err(Reason::PlaceholderUnknown) } else { Ok(()) }
}

/// The user and password of `Basic …`, if that is what the value holds.
pub(crate) fn decode_basic(value: &[u8]) -> Option<Vec<u8>> {
    let scheme = value.get(..6)?;
    let rest = value.get(6..).filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    BASE64.decode(rest.trim_ascii()).ok()
}

/// Whether a position in the query is the value of a parameter in which this destination takes a credential.
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
        value.contains(mark)
            && (destination.bindings().iter().any(|b| carries(&b.carrier))
                || destination.strip.names_parameter(parameter.name))
    })
}
