//! From a grant to what exactly is done to the request.

use super::snapshot::VEILS;
use super::{Asked, Snapshot, Upgrade, Way, identify};
use crate::access::{Body, Operation};
use crate::companion::Companion;
use crate::evidence::AUTH_PARAMETERS;
use crate::headers::Sieve;
use crate::matching::query;
use crate::policy::{AccessMode, Binding, Carrier, Destination, Policy};
use crate::refusal::Reason;
use crate::strip::Strip;
use crate::worker::Grant;

/// What is done to a request that may go. Only [`authorise`] makes one.
pub struct Forward {
    remove: Vec<Vec<u8>>,
    target: Option<Vec<u8>>,
    beside: Vec<(String, Vec<u8>)>,
    plain: bool,
}

impl Forward {
    /// Headers to take out, by name: every auth-bearing one that the grant does not set.
    pub fn remove(&self) -> impl Iterator<Item = &[u8]> {
        self.remove.iter().map(Vec::as_slice)
    }

    /// Headers to set that hold no secret: what the service wants beside the credential.
    pub fn beside(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.beside.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The headers by which the answer is asked for as it is and whole, where echoes are masked.
    pub fn set(&self) -> &'static [(&'static [u8], &'static [u8])] {
        if self.plain { &[(b"accept-encoding", b"identity")] } else { &[] }
    }

    /// The new request target, where parameters are taken out or set.
    pub fn target(&self) -> Option<&[u8]> {
        self.target.as_deref()
    }
}

/// Decides on a request for which there is a grant. `body` is called only where a rule needs it.
pub fn authorise<'b>(
    policy: &Policy,
    snapshot: &Snapshot,
    asked: &Asked,
    grant: &Grant,
    body: impl FnOnce() -> Body<'b>,
) -> Result<Forward, Reason> {
    let (destination, binding) = permitted(policy, snapshot, asked, grant, grant.access_mode, body)?;
    let bytes = snapshot.bytes();
    if !grant.sets(&binding.carrier) {
        // The broker answered for another form than the policy describes: one of them is old.
        return Err(Reason::BrokerUnavailable);
    }
    let plain = grant.masker.is_some();
    let veils = if plain && snapshot.is_veiled() { VEILS } else { &[] };
    Ok(Forward {
        remove: snapshot
            .auth_lines()
            .iter()
            .chain(&destination.strip.lines(snapshot))
            .map(|line| line.name.of(bytes))
            .chain(veils.iter().copied())
            .filter(|name| !grant.headers().any(|(set, _)| set.as_bytes() == *name))
            .map(<[u8]>::to_vec)
            .collect(),
        target: rewrite_target(snapshot, asked, grant, &destination.strip),
        beside: beside(binding, snapshot, grant),
        plain,
    })
}

/// Whether a request that this grant let through would be let through as well if it might only
/// read, by the policy it was decided under. What cannot be known any more is no read.
pub fn is_read<'b>(
    policy: &Policy,
    snapshot: &Snapshot,
    asked: &Asked,
    grant: &Grant,
    body: impl FnOnce() -> Body<'b>,
) -> bool {
    permitted(policy, snapshot, asked, grant, AccessMode::ReadOnly, body).is_ok()
}

/// Whether another policy lets a request through that this grant let through. Who asks is not asked
/// again: that is for the broker to take away.
pub fn stands<'b>(
    policy: &Policy,
    snapshot: &Snapshot,
    grant: &Grant,
    body: impl FnOnce() -> Body<'b>,
) -> Result<(), Reason> {
    let again = Snapshot::read(snapshot.bytes().to_vec(), policy).on(snapshot.connection().clone());
    let asked = identify(&again, policy)?;
    if asked.destination.as_deref() != Some(&grant.destination) {
        return Err(Reason::DestinationMismatch);
    }
    permitted(policy, &again, &asked, grant, grant.access_mode, body).map(drop)
}

/// The destination, and the binding by which the request may be made in this mode.
fn permitted<'p, 'b>(
    policy: &'p Policy,
    snapshot: &Snapshot,
    asked: &Asked,
    grant: &Grant,
    mode: AccessMode,
    body: impl FnOnce() -> Body<'b>,
) -> Result<(&'p Destination, &'p Binding), Reason> {
    let Way::Managed(index) = asked.way else { return Err(Reason::Internal) };
    let destination = policy.destination(index).ok_or(Reason::Internal)?;
    let binding = destination.binding(&grant.credential).ok_or(Reason::CredentialNotGranted)?;
    let bytes = snapshot.bytes();
    let path = asked.path.of(bytes);
    if !binding.covers(path) {
        return Err(Reason::CredentialNotGranted);
    }
    match snapshot.upgrade() {
        Upgrade::Nothing => {}
        Upgrade::WebSocket if binding.websocket => {}
        // Before the access mode: a client that falls back to HTTP asks again, and is judged then.
        _ => return Err(Reason::UpgradeRefused),
    }
    let operation = Operation {
        method: snapshot.method(),
        path,
        query: asked.query.map(|q| q.of(bytes)),
        disguised: snapshot.is_disguised(),
        media: snapshot.media(),
        carrier: match &binding.carrier {
            Carrier::Query(name) => Some(name.as_bytes()),
            Carrier::Header(_) => None,
        },
        strip: Some(&destination.strip),
    };
    binding.access.check(mode, operation, body)?;
    Ok((destination, binding))
}

/// What goes beside the credential: never in the place of one.
fn beside(binding: &Binding, snapshot: &Snapshot, grant: &Grant) -> Vec<(String, Vec<u8>)> {
    let free = |companion: &&Companion| !grant.headers().any(|(set, _)| set == companion.header());
    let each = binding.companions.iter().filter(free);
    each.filter_map(|companion| Some((companion.header().to_owned(), companion.beside(snapshot)?))).collect()
}

/// Whether a parameter of this name may be one that carries a credential: most are not by their length.
fn may_be_auth(name: &[u8]) -> bool {
    const KNOWN: Sieve = Sieve::of(&[AUTH_PARAMETERS]);
    // With an escape, or what a server overlooks, it is longer than what it means.
    KNOWN.may_hold(name) || !name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// The target without auth-bearing parameters and with the grant's, if that changes anything.
fn rewrite_target(snapshot: &Snapshot, asked: &Asked, grant: &Grant, strip: &Strip) -> Option<Vec<u8>> {
    let bytes = snapshot.bytes();
    let injected = |name: &[u8]| grant.parameters().any(|(set, _)| query::resembles(name, set.as_bytes()));
    let known = |name: &[u8]| AUTH_PARAMETERS.iter().any(|known| query::resembles(name, known));
    let auth = |name: &[u8]| injected(name) || may_be_auth(name) && known(name) || strip.takes_parameter(name);
    let written = asked.query.map(|q| q.of(bytes));
    let stripped = written.is_some_and(|q| query::loose_parameters(q).any(|p| auth(p.name)));
    if !stripped && grant.parameters().next().is_none() {
        return None;
    }
    let kept = written.into_iter().flat_map(query::parameters).filter(|p| !p.text.is_empty() && !auth(p.name));
    let target = snapshot.target().of(bytes);
    let path_len = memchr::memchr(b'?', target).unwrap_or(target.len());
    let mut out = target.get(..path_len)?.to_vec();
    let mut separator = b'?';
    for parameter in kept {
        // To a server that splits at `;` too, each piece is a parameter.
        for piece in query::pieces(parameter.text).filter(|piece| !auth(piece.name)) {
            out.push(separator);
            out.extend_from_slice(piece.text);
            separator = b';';
        }
        separator = if separator == b'?' { b'?' } else { b'&' };
    }
    for (name, value) in grant.parameters() {
        out.push(separator);
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        // Exposed to become part of the request's target.
        out.extend_from_slice(value.expose().as_bytes());
        separator = b'&';
    }
    Some(out)
}

/// Whether the grant puts its credential where the policy says it stands.
impl Grant {
    fn sets(&self, carrier: &Carrier) -> bool {
        match carrier {
            Carrier::Header(name) => self.headers().any(|(set, _)| set == name),
            Carrier::Query(name) => self.parameters().any(|(set, _)| set == name),
        }
    }
}
