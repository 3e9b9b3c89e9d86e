//! What is kept of a request's headers: the buffer they came in, and where the telling parts stand.

use crate::connection::Connection;
use crate::evidence::{AUTH_HEADERS, SESSION_HEADER};
use crate::headers::{self, Line, Sieve, Span};
use crate::matching::query;
use crate::placeholder;
use crate::policy::Policy;
use crate::refusal::Reason;
use arrayvec::ArrayVec;
use memchr::memmem::Finder;

/// More auth-bearing headers, or more placeholders, than this is no honest request.
const MOST: usize = 8;

/// Headers that ask for another method than `:method`. Some frameworks look for the same names in
/// the query.
pub const METHOD_HEADERS: &[&[u8]] = &[
    b"x-http-method-override",
    b"x-http-method",
    b"x-method-override",
    b"x-original-http-method",
    b"x-tunneled-method",
];

/// Headers that ask for another protocol.
const UPGRADES: &[&[u8]] = &[b"upgrade", b":protocol"];

/// Headers by which some servers take another path than `:path`.
const REROUTES: &[&[u8]] = &[b"x-original-url", b"x-rewrite-url"];

/// Headers that every request has, or that say something of its body.
const COMMON: &[&[u8]] = &[
    b":method",
    b":path",
    b":authority",
    b"x-request-id",
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"transfer-encoding",
];

/// All of these lists. Most headers are in none, nor are they named by a policy, which adds those that are.
pub(crate) const TELLING: Sieve = Sieve::of(&[COMMON, METHOD_HEADERS, UPGRADES, VEILS, REROUTES, AUTH_HEADERS]);

/// What the types of forms have in their names. Frameworks read more than `multipart/form-data` as one.
const FORMS: [&[u8]; 3] = [b"x-www-form-urlencoded", b"form-data", b"multipart/"];

/// How a type says that its text is UTF-8.
const UTF8: [&[u8]; 2] = [b"charset=utf-8", b"charset=\"utf-8\""];
/// Headers that ask for an answer in which an echo could not be seen: a part of it, or compressed, or in
/// another character set.
pub const VEILS: &[&[u8]] = &[
    b"range",
    b"if-range",
    // https://learn.microsoft.com/rest/api/storageservices/specifying-the-range-header-for-blob-service-operations
    b"x-ms-range",
    b"request-range",
    // RFC 3229: a part, a difference or a compressed answer, as `226 IM Used`.
    b"a-im",
    b"grpc-accept-encoding",
    b"connect-accept-encoding",
    b"accept-charset",
    b"sec-websocket-extensions",
];

/// What a request asks to speak after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// HTTP, as before.
    #[default]
    Nothing,
    /// WebSocket (RFC 6455), by GET and by that word alone. Over HTTP/2 Envoy makes the same of it.
    WebSocket,
    /// Something else, or several things.
    Other,
}

/// What kind of body a request announces, as far as that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// Nothing is said of a body that may be there: some servers take it for a form.
    #[default]
    Unsaid,
    /// There is none, and nothing is said of it.
    Nothing,
    /// JSON (RFC 8259) in UTF-8, plain or as GraphQL has it.
    Json,
    /// Another type that is built on JSON (RFC 6839, 3.1).
    OnJson,
    /// A GraphQL document in UTF-8.
    Graphql,
    /// gRPC over HTTP/2, whatever its messages are written in.
    Grpc,
    /// A form, in which some servers look for a method.
    Form,
    /// Anything else, or two things at once.
    Other,
}

impl Media {
    fn of(value: &[u8]) -> Self {
        let value = value.to_ascii_lowercase();
        // Frameworks differ in where they cut the value: it is a form's wherever a form is named.
        if FORMS.iter().any(|form| memchr::memmem::find(&value, form).is_some()) {
            return Media::Form;
        }
        let mut parts = value.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let media = match parts.next().unwrap_or_default() {
            // To some servers an empty type is none.
            b"" => return Media::Form,
            b"application/json" | b"application/graphql+json" => Media::Json,
            b"application/graphql" => Media::Graphql,
            b"application/grpc" => Media::Grpc,
            grpc if grpc.starts_with(b"application/grpc+") => Media::Grpc,
            other if other.starts_with(b"application/") && other.ends_with(b"+json") => Media::OnJson,
            _ => Media::Other,
        };
        // A server that decodes as it is told reads another text than we do.
        let decodes_otherwise = |part: &[u8]| memchr::memmem::find(part, b"charset").is_some() && !UTF8.contains(&part);
        if parts.any(decodes_otherwise) { Media::Other } else { media }
    }

    /// What two headers say together: a form stays one, and one that differs makes it uncertain.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Media::Form, _) | (_, Media::Form) => Media::Form,
            (Media::Unsaid, other) => other,
            _ => Media::Other,
        }
    }
}

/// Headers between agents and us. Upstreams hear none of them, whoever made them up.
const OURS: &[u8] = b"x-attache-";

/// A request's headers, read once. Envoy forgets them at the verdict; this does not.
#[derive(Clone, Default)]
pub struct Snapshot {
    bytes: Vec<u8>,
    method: Span,
    authority: Span,
    target: Span,
    request_id: Span,
    auth: ArrayVec<Line, MOST>,
    jwts: ArrayVec<Line, 2>,
    connection: Connection,
    marks: ArrayVec<usize, MOST>,
    hidden: bool,
    disguised: bool,
    upgrade: Upgrade,
    rerouted: bool,
    veiled: bool,
    media: Media,
    encoded: bool,
    bodiless: Option<bool>,
    overflow: bool,
    whole: bool,
}

impl Snapshot {
    /// Reads a serialised header map. Never fails: what is wrong with it is refused later, with
    /// everything that could be read in the record.
    pub fn read(bytes: Vec<u8>, policy: &Policy) -> Self {
        let mut snapshot = Self::default();
        let mut lines = headers::lines(&bytes);
        // No placeholder stands in the lengths before them.
        let first = lines.at();
        for at in policy.marker().find_iter(bytes.get(first..).unwrap_or_default()) {
            snapshot.overflow |= snapshot.marks.try_push(first + at).is_err();
        }
        for line in lines.by_ref() {
            match line.name.of(&bytes) {
                name if !policy.may_tell(name) && !is_ours(name) => {}
                b":method" => snapshot.method = line.value,
                b":path" => snapshot.target = line.value,
                b":authority" => snapshot.authority = line.value,
                b"x-request-id" => snapshot.request_id = line.value,
                b"content-type" => snapshot.media = snapshot.media.and(Media::of(line.value.of(&bytes))),
                b"content-encoding" => snapshot.encoded = true,
                b"content-length" => {
                    let empty = line.value.of(&bytes) == b"0";
                    snapshot.bodiless = Some(empty && snapshot.bodiless != Some(false));
                }
                b"transfer-encoding" => snapshot.bodiless = Some(false),
                name if METHOD_HEADERS.contains(&name) => snapshot.disguised = true,
                name if UPGRADES.contains(&name) => {
                    let is_first = snapshot.upgrade == Upgrade::Nothing;
                    let is_websocket = name == b"upgrade" && line.value.of(&bytes).eq_ignore_ascii_case(b"websocket");
                    snapshot.upgrade = if is_first && is_websocket { Upgrade::WebSocket } else { Upgrade::Other };
                }
                name if VEILS.contains(&name) => snapshot.veiled = true,
                name if REROUTES.contains(&name) => snapshot.rerouted = true,
                name if policy.identity_headers().any(|header| header == name) => {
                    snapshot.overflow |= snapshot.jwts.try_push(line).is_err();
                    snapshot.overflow |= snapshot.auth.try_push(line).is_err();
                }
                name if AUTH_HEADERS.contains(&name) || policy.is_carrier(name) || is_ours(name) => {
                    snapshot.overflow |= snapshot.auth.try_push(line).is_err();
                }
                name => snapshot.overflow |= is_respelled(name, policy),
            }
        }
        snapshot.whole = lines.was_whole();
        snapshot.hidden = hides_placeholder(snapshot.target.of(&bytes), policy.marker());
        snapshot.bytes = bytes;
        snapshot
    }

    /// The same request, with what is known of the connection it came by.
    pub fn on(self, connection: Connection) -> Self {
        Self { connection, ..self }
    }

    /// What is known of its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The lines that carry a JWT: more than one is one too many.
    pub fn jwt_lines(&self) -> &[Line] {
        &self.jwts
    }

    /// The buffer that every [`Span`] of this request points into.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All header lines, in order.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        headers::lines(&self.bytes)
    }

    /// The buffer, to be read again under another policy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// `:method`.
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    /// `:authority`, or `Host`.
    pub fn authority(&self) -> &[u8] {
        self.authority.of(&self.bytes)
    }

    /// `:path`, which includes the query.
    pub fn target(&self) -> Span {
        self.target
    }

    /// Envoy's `x-request-id`.
    pub fn request_id(&self) -> &[u8] {
        self.request_id.of(&self.bytes)
    }

    /// Whether a header asks for another method than `:method`, or for another protocol.
    pub fn is_disguised(&self) -> bool {
        self.disguised || self.upgrade != Upgrade::Nothing
    }

    /// What it asks to speak after it.
    pub fn upgrade(&self) -> Upgrade {
        match self.upgrade {
            Upgrade::WebSocket if self.method() != b"GET" => Upgrade::Other,
            asked => asked,
        }
    }

    /// Whether a header asks for another path than `:path`.
    pub fn is_rerouted(&self) -> bool {
        self.rerouted
    }

    /// Whether a header asks for a part of the answer, or for a compressed one.
    pub fn is_veiled(&self) -> bool {
        self.veiled
    }

    /// What kind of body it announces.
    pub fn media(&self) -> Media {
        match self.media {
            // Encoded, it is not what it says.
            Media::Json | Media::OnJson | Media::Graphql if self.encoded => Media::Other,
            // Envoy sees to it that a body is as long as is said.
            Media::Unsaid if self.bodiless == Some(true) => Media::Nothing,
            media => media,
        }
    }

    /// Refuses a header map that contradicts itself or holds more than an honest request does.
    pub fn check(&self) -> Result<(), Reason> {
        if self.whole && !self.overflow { Ok(()) } else { Err(Reason::HeadersMalformed) }
    }

    /// All auth-bearing headers, in order.
    pub fn auth_lines(&self) -> &[Line] {
        &self.auth
    }

    /// Where placeholders stand in the clear.
    pub fn marks(&self) -> Result<&[usize], Reason> {
        self.check().map(|()| &*self.marks)
    }

    /// Whether a placeholder is written in percent-encoding. No client needs to: it is made of
    /// characters that stand for themselves.
    pub fn hides_placeholder(&self) -> bool {
        self.hidden
    }

    /// Whether a placeholder stands anywhere, in percent-encoding and Basic credentials included.
    pub fn holds_placeholder(&self) -> bool {
        let in_basic = |line: &Line| {
            crate::evidence::decode_basic(line.value.of(&self.bytes))
                .is_some_and(|decoded| placeholder::find(&decoded).next().is_some())
        };
        self.overflow || self.hidden || !self.marks.is_empty() || self.auth.iter().any(in_basic)
    }

    /// Whether a position lies in an auth-bearing header's value.
    pub fn stands_in_auth_header(&self, at: usize) -> bool {
        self.auth.iter().any(|line| line.value.contains(at))
    }

    /// Whether a position lies in the authority.
    pub fn stands_in_authority(&self, at: usize) -> bool {
        self.authority.contains(at)
    }

    /// Whether a position lies in the value of a header that names a session; there may be several.
    pub fn stands_in_session_header(&self, at: usize) -> bool {
        self.auth.iter().any(|line| line.value.contains(at) && line.name.of(&self.bytes) == SESSION_HEADER)
    }

    /// The whole token around a marker.
    pub fn token_around(&self, mark: usize) -> Span {
        placeholder::token_around(&self.bytes, mark)
    }
}

/// Whether some server takes a header of this name for one that tells something here: what makes variables of headers
/// takes all but letters and digits for the same (RFC 3875, 4.1.18, and what servers make of it).
fn is_respelled(name: &[u8], policy: &Policy) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':');
    if name.iter().all(is_plain) {
        return false;
    }
    let mut lists = [METHOD_HEADERS, UPGRADES, VEILS, REROUTES, AUTH_HEADERS].into_iter().flatten().copied();
    lists.any(|known| headers::is_same_variable(name, known)) || policy.is_carrier_respelled(name)
}

fn is_ours(name: &[u8]) -> bool {
    // Most names end here, before anything is called.
    name.first_chunk() == Some(b"x-at") && name.starts_with(OURS)
}

fn hides_placeholder(target: &[u8], marker: &Finder<'_>) -> bool {
    if memchr::memchr(b'%', target).is_none() {
        return false;
    }
    let decoded: Vec<u8> = query::decode(target).collect();
    marker.find_iter(&decoded).count() > marker.find_iter(target).count()
}
