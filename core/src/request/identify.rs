//! Which destination a request names, and what it shows about who asks.

use super::{Snapshot, Upgrade};
use crate::evidence::Evidence;
use crate::headers::Span;
use crate::matching::host::{Authority, Host};
use crate::matching::method;
use crate::matching::path::Target;
use crate::policy::{MissingPlaceholder, Policy, Unmatched};
use crate::refusal::Reason;
use crate::wire::Transport;
use std::sync::Arc;

/// A request understood: where it wants to go, and who asks.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where to.
    pub way: Way,
    /// The id of that destination, where one was named.
    pub destination: Option<Arc<str>>,
    /// The path at the destination, without the gateway's route prefix.
    pub path: Span,
    /// The query.
    pub query: Option<Span>,
    /// Who asks.
    pub evidence: Evidence,
}

/// Where a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a destination, if a grant says so.
    Managed(usize),
    /// To a destination whose config lets requests without a placeholder pass as they are.
    Unclaimed(usize),
    /// To a host that no destination names, where the config lets that pass.
    Unmatched,
}

/// Understands a request, or says why it cannot be one that is forwarded.
pub fn identify(snapshot: &Snapshot, policy: &Policy) -> Result<Asked, Reason> {
    snapshot.check()?;
    if snapshot.is_rerouted() {
        return Err(Reason::PathMalformed);
    }
    let bytes = snapshot.bytes();
    let target = Target::parse(bytes, snapshot.target()).map_err(|_| Reason::PathMalformed)?;
    let (found, cut) = match snapshot.connection().transport() {
        Transport::Gateway => {
            policy.locate(snapshot.authority(), target.path.of(bytes)).map_err(|_| Reason::AuthorityMalformed)?
        }
        Transport::Plain => (behind_the_door(snapshot, policy, 80, true)?, 0),
        Transport::Intercepted => (behind_the_door(snapshot, policy, 443, false)?, 0),
    };
    if !method::may_carry(snapshot.method()) {
        return Err(Reason::MethodNotAllowed);
    }
    let path = Span::new(target.path.start() + cut, target.path.end());
    let asked = |way, destination, evidence| Asked { way, destination, path, query: target.query, evidence };
    let Some(index) = found else {
        return match policy.unmatched() {
            Unmatched::Deny => Err(Reason::HostNotAllowed),
            Unmatched::Pass if snapshot.holds_placeholder() => Err(Reason::PlaceholderMisplaced),
            // There the upstream may speak HTTP/2, over which few take it.
            Unmatched::Pass
                if snapshot.upgrade() != Upgrade::Nothing
                    && snapshot.connection().transport() == Transport::Intercepted =>
            {
                Err(Reason::UpgradeRefused)
            }
            Unmatched::Pass => Ok(asked(Way::Unmatched, None, Evidence::default())),
        };
    };
    let destination = policy.destination(index).ok_or(Reason::Internal)?;
    let evidence = Evidence::collect(snapshot, destination)?;
    let id = Some(Arc::clone(&destination.id));
    let bindings = destination.bindings();
    // What the connection shows may name a session, or the door, for a credential that needs no placeholder.
    let may_inject = (snapshot.connection().may_name_a_session() || evidence.inside.is_some())
        && bindings.iter().any(|b| b.missing_placeholder == MissingPlaceholder::Inject);
    if !evidence.is_empty() || may_inject {
        return Ok(asked(Way::Managed(index), id, evidence));
    }
    // One credential that demands a placeholder is enough, and no credential is no permission.
    let may_pass = bindings.iter().all(|b| b.missing_placeholder == MissingPlaceholder::Pass);
    if may_pass && !bindings.is_empty() {
        if snapshot.upgrade() != Upgrade::Nothing && !bindings.iter().all(|b| b.websocket) {
            return Err(Reason::UpgradeRefused);
        }
        Ok(asked(Way::Unclaimed(index), id, evidence))
    } else {
        Err(Reason::IdentityRequired)
    }
}

/// The destination of a request behind the door of a forward proxy: it was let through to one host and
/// port, and goes there alone, by the way it was let through for. In a tunnel, the TLS handshake has
/// named that host, too.
fn behind_the_door(snapshot: &Snapshot, policy: &Policy, port: u16, plaintext: bool) -> Result<Option<usize>, Reason> {
    let authority = Authority::parse(snapshot.authority()).map_err(|_| Reason::AuthorityMalformed)?;
    let connection = snapshot.connection();
    // Without it nobody was let in, whatever brought the request here.
    let inside = connection.inside().ok_or(Reason::Internal)?;
    let id = format!("{}:{}", authority.host, authority.port.unwrap_or(port));
    let is_named = |host: &Host| connection.server_name() == Some(host);
    if inside.id != id || !(plaintext || is_named(&authority.host)) {
        return Err(Reason::DestinationMismatch);
    }
    let found = policy.by_authority(id.as_bytes());
    match found.and_then(|index| policy.destination(index)) {
        Some(destination) if destination.plaintext != plaintext => Err(Reason::TlsRequired),
        _ => Ok(found),
    }
}
