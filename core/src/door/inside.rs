//! What the door tells those behind it, and under which names.

use crate::digest::Digest;
use crate::matching::host::Authority;
use crate::names::Name;
use core::net::IpAddr;
use std::fmt;

/// Filter state (`wasm.…`) that the door writes: whom it let in where to ([`Inside`]).
pub const INSIDE_STATE: &str = "attache_inside";
/// The host that it let them in to.
pub const HOST_STATE: &str = "attache_host";
/// The one address that may be dialled.
pub const ADDRESS_STATE: &str = "attache_address";
/// Filter state in which Envoy hands [`INSIDE_STATE`] on, from connection to connection.
pub const HANDED_ON: &str = "attache.tunnel";

/// What listeners behind the door are told of the client: whose it is, and where it was let through
/// to. Envoy carries it from connection to connection, out of reach of what agents send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The session token that was shown at the door.
    pub session_token: Option<Digest>,
    /// `host:port`, canonical.
    pub id: String,
    /// Where the client's connection came from, where somebody needs to know.
    pub source: Option<IpAddr>,
    /// The URI in the client's certificate, likewise.
    pub peer: Option<String>,
    /// The listener it came in by, likewise.
    pub listener: Option<Name>,
}

/// Stands for what is not there.
const NOTHING: &str = "-";

impl Inside {
    /// Reads what [`fmt::Display`] wrote. `None`: it did not write this.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let mut next = || words.next().map(|word| Some(word).filter(|word| *word != NOTHING));
        let session_token = next()?.map(|digest| Digest::try_from(digest.to_owned())).transpose().ok()?;
        let id = next()??.to_owned();
        let source = next()?.map(str::parse).transpose().ok()?;
        let peer = next()?.map(str::to_owned);
        let listener = next()?.map(Name::parse).transpose().ok()?;
        let authority = Authority::parse(id.as_bytes()).ok()?;
        let whole = words.next().is_none() && authority.port.is_some() && authority.to_string() == id;
        whole.then_some(Self { session_token, id, source, peer, listener })
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session_token, id, source, peer, listener } = self;
        let word = |word: Option<String>| word.unwrap_or_else(|| NOTHING.to_owned());
        let token = word(session_token.as_ref().map(Digest::to_hex));
        let source = word(source.map(|address| address.to_string()));
        // A peer's URI holds no white space (RFC 3986), and was not taken with any.
        let (peer, listener) = (word(peer.clone()), word(listener.as_ref().map(ToString::to_string)));
        write!(f, "{token} {id} {source} {peer} {listener}")
    }
}
