//! The door of a forward proxy: which host a client asks for, how its traffic will travel, and who asks.
//!
//! Behind it, requests are decided one by one at the gate; nothing that the door lets in carries a
//! credential. What it settles is what a request inside cannot say for itself: the session of the
//! client, and the one vetted address that the host leads to.

mod inside;

pub use inside::{ADDRESS_STATE, HANDED_ON, HOST_STATE, INSIDE_STATE, Inside};

use crate::digest::Digest;
use crate::evidence::{SESSION_HEADER, check_length, decode_basic};
use crate::matching::host::{Authority, Host};
use crate::placeholder;
use crate::policy::{Policy, Unmatched};
use crate::refusal::Reason;
use crate::request::Snapshot;
use crate::wire::EvidenceDigests;

/// The header in which clients of a proxy say who they are (RFC 9110, 11.7.1).
pub const PROXY_AUTHORIZATION: &[u8] = b"proxy-authorization";

/// No way is entered for longer without being asked for anew, whatever the broker says: names move.
pub const LONGEST_TTL_MS: u64 = 60_000;

/// How traffic travels behind the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passage {
    /// Through a tunnel that ends at the proxy: requests in it are decided one by one.
    Intercepted,
    /// Through a tunnel that nobody looks into.
    Opaque,
    /// As plain HTTP.
    Plain,
}

impl Passage {
    /// How traffic to this host travels, by the policy; `connects`: by `CONNECT`, rather than as `http://`.
    /// Filter and broker ask here, so that they cannot differ.
    pub fn of(policy: &Policy, host: &Host, port: u16, connects: bool) -> Result<Self, Reason> {
        let id = format!("{host}:{port}");
        let known = policy.by_authority(id.as_bytes()).and_then(|index| policy.destination(index));
        // An address is never what is passed unasked: only a name can be resolved and vetted.
        let passes = policy.unmatched() == Unmatched::Pass && matches!(host, Host::Name(_));
        match (connects, known) {
            (true, Some(destination)) if !destination.plaintext => Ok(Self::Intercepted),
            (true, None) if policy.passes_through(&id) => Ok(Self::Opaque),
            (true, None) if passes && port == 443 && policy.intercepts_unmatched() => Ok(Self::Intercepted),
            (true, None) if passes && port == 443 => Ok(Self::Opaque),
            (false, Some(destination)) if destination.plaintext => Ok(Self::Plain),
            (false, Some(_)) => Err(Reason::TlsRequired),
            (false, None) if policy.by_authority(format!("{host}:443").as_bytes()).is_some() => {
                Err(Reason::TlsRequired)
            }
            (false, None) if passes && port == 80 => Ok(Self::Plain),
            _ => Err(Reason::HostNotAllowed),
        }
    }

    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intercepted => "intercept",
            Self::Opaque => "tunnel",
            Self::Plain => "plain",
        }
    }

    /// The cluster that leads on.
    pub fn cluster(self) -> &'static str {
        match self {
            Self::Intercepted => INTERCEPT_CLUSTER,
            Self::Opaque => TUNNEL_CLUSTER,
            Self::Plain => "",
        }
    }
}

/// Leads to the listener that decrypts.
pub const INTERCEPT_CLUSTER: &str = "attache_intercept";
/// Leads to the listener that does not.
pub const TUNNEL_CLUSTER: &str = "attache_tunnel";
/// Leads to hosts that no destination names, over TLS.
pub const UNMATCHED_TLS_CLUSTER: &str = "attache_unmatched";
/// The same without.
pub const UNMATCHED_PLAIN_CLUSTER: &str = "attache_unmatched_plain";

/// What a client asks of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// How its traffic travels.
    pub passage: Passage,
}

impl Call {
    /// Understands a request to the proxy itself: `CONNECT host:port`, or one for `http://`.
    pub fn read(snapshot: &Snapshot, policy: &Policy) -> Result<Self, Reason> {
        snapshot.check()?;
        let authority = Authority::parse(snapshot.authority()).map_err(|_| Reason::AuthorityMalformed)?;
        let connects = snapshot.method() == b"CONNECT";
        let port = match authority.port {
            Some(port) => port,
            // Without a port, nobody is told where to connect to (RFC 9110, 9.3.6).
            None if connects => return Err(Reason::AuthorityMalformed),
            None => 80,
        };
        let host = authority.host;
        // `https://` without a tunnel would end at the next hop without TLS.
        if !connects && asks_for_tls(snapshot) {
            return Err(Reason::TlsRequired);
        }
        let passage = Passage::of(policy, &host, port, connects)?;
        Ok(Self { host, port, passage })
    }

    /// `host:port`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Whether a request names `https` as its scheme.
fn asks_for_tls(snapshot: &Snapshot) -> bool {
    let bytes = snapshot.bytes();
    let scheme = snapshot.lines().find(|line| line.name.of(bytes) == b":scheme");
    scheme.is_some_and(|line| line.value.of(bytes).eq_ignore_ascii_case(b"https"))
}

/// Who asks, at the door: a session token in `Proxy-Authorization` (the password of `Basic`, or
/// `Bearer`) or in the session's own header, and what the connection shows.
pub fn evidence(snapshot: &Snapshot) -> Result<EvidenceDigests, Reason> {
    let bytes = snapshot.bytes();
    let mut shown: Option<Digest> = None;
    let mut show = |token: &[u8]| {
        check_length(token)?;
        let digest = Digest::of(token);
        match shown {
            Some(known) if known != digest => Err(Reason::EvidenceConflict),
            _ => {
                shown = Some(digest);
                Ok(())
            }
        }
    };
    for line in snapshot.auth_lines() {
        let (name, value) = (line.name.of(bytes), line.value.of(bytes));
        if is_at_home(name) {
            let decoded = decode_basic(value);
            placeholder::find(decoded.as_deref().unwrap_or(value)).try_for_each(&mut show)?;
        }
    }
    // A placeholder anywhere else is on its way to whoever is behind the proxy.
    let ours = |at: &usize| {
        snapshot.auth_lines().iter().any(|line| line.value.contains(*at) && is_at_home(line.name.of(bytes)))
    };
    let in_authority = |at: &usize| snapshot.stands_in_authority(*at);
    let marks = snapshot.marks()?;
    // Nor is one part of a name that somebody would be asked to resolve.
    if (snapshot.method() == b"CONNECT" && !marks.iter().all(ours)) || marks.iter().any(in_authority) {
        return Err(Reason::PlaceholderMisplaced);
    }
    let connection = snapshot.connection();
    Ok(EvidenceDigests {
        session_token: shown,
        peer: connection.peer().map(str::to_owned),
        source: connection.source(),
        listener: connection.listener().cloned(),
        ..EvidenceDigests::default()
    })
}

/// Whether a token belongs in the header of this name.
fn is_at_home(name: &[u8]) -> bool {
    name == PROXY_AUTHORIZATION || name == SESSION_HEADER
}

/// Whether evidence can name a session at the door.
pub fn names_a_session(evidence: &EvidenceDigests) -> bool {
    evidence.session_token.is_some() || evidence.peer.is_some() || evidence.listener.is_some()
}

#[cfg(test)]
mod tests;
