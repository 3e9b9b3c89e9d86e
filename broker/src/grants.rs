//! Grants: the broker's answer to (evidence, destination).
//!
//! A grant exists only for an authorised session, and leaves only after its issue record is on
//! disk. Refusals are typed; the last arm of everything here denies.

use crate::audit::{AuditLog, Kind, Record};
use crate::changes::Feed;
use crate::clock::Now;
use crate::config::{Caps, PeerId};
use crate::leases::{Holder, Issued, LeaseError, Leases};
use crate::meters::GrantMeters;
use crate::oidc::{Identities, Named};
use crate::outstanding::Outstanding;
use crate::sessions::{Identified, Session, Sessions, Sight};
use crate::traces::{SESSION, Span, Traces};
use attache_core::names::Name;
use attache_core::policy::{DestinationSpec, MissingPlaceholder, Spec};
use attache_core::refusal::Reason;
use attache_core::trace::TraceParent;
use attache_core::wire::{Denied, EvidenceDigests, GrantAnswer, GrantRequest, Granted, Intent, IntentAnswer};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a grant is begun anew because its session has changed meanwhile, or had nothing of its own yet. An attempt
/// is one write to disk at most; changes are an operator's, and rare.
const MOST_ATTEMPTS: usize = 4;

/// Everything a grant is made from.
pub struct Grants {
    /// What may be granted where: the policy's destinations, by id.
    pub destinations: HashMap<String, DestinationSpec>,
    /// What credentials and destinations allow at most.
    pub caps: Caps,
    /// Credentials each use of which is announced: its intent is on record before it begins.
    pub strict: HashSet<Name>,
    /// How many uses a worker may make before their records have arrived.
    pub max_unacked_uses: u32,
    /// Who may use what.
    pub sessions: Arc<Sessions>,
    /// Whom JWTs name.
    pub identities: Arc<Identities>,
    /// The secrets, rendered.
    pub leases: Arc<Leases>,
    /// What has changed.
    pub feed: Arc<Feed>,
    /// Where a grant is recorded before it leaves.
    pub audit: Arc<AuditLog>,
    /// What has left and may be in use.
    pub outstanding: Arc<Outstanding>,
    /// What is counted here.
    pub meters: GrantMeters,
    /// Where spans begin.
    pub traces: Traces,
}

/// What is asked for, and in which trace.
#[derive(Clone, Copy)]
struct Asked<'a> {
    worker: &'a str,
    destination: &'a str,
    evidence: &'a EvidenceDigests,
    asker: &'a Asker,
    span: &'a Span,
}

/// Who asks for a grant or a way: an Envoy, as the door has let it in.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Which sessions it may hear of.
    pub sight: Sight,
    /// Who its certificate says it is; `None`: it showed the token.
    pub peer: Option<PeerId>,
}

/// What an attempt has come to.
enum Grant {
    /// A grant.
    Made(Box<Granted>),
    /// The session changed while its grant was being recorded.
    Changed,
    /// What the session has of its own of this credential has not been asked for.
    Missing(Arc<Session>, Name),
}

/// A policy's destinations, by id.
pub fn by_id(policy: Spec) -> HashMap<String, DestinationSpec> {
    policy.destinations.into_iter().map(|spec| (spec.id.clone(), spec)).collect()
}

impl Grants {
    /// Answers a request for a grant, which may be part of a trace.
    pub async fn answer(&self, request: GrantRequest, asker: &Asker, trace: Option<TraceParent>) -> GrantAnswer {
        let GrantRequest { nonce, worker, destination, evidence } = request;
        let began = Instant::now();
        let span = self.traces.serve("grant", trace);
        let asked = Asked { worker: &worker, destination: &destination, evidence: &evidence, asker, span: &span };
        let settled = self.settled(&asked).await;
        self.meters.answered(settled.as_ref().err().copied(), began.elapsed());
        span.says("attache.worker", &worker);
        tell(&span, settled.as_ref());
        match settled {
            Ok(granted) => GrantAnswer { nonce, granted: Some(granted), denied: None },
            Err(reason) => {
                tracing::info!(%worker, %destination, reason = reason.as_str(), "no grant");
                GrantAnswer { nonce, granted: None, denied: Some(Denied { reason }) }
            }
        }
    }

    /// Answers when a request that is about to go out is on disk, or cannot be.
    pub async fn announce(&self, intent: Intent, asker: &Asker) -> IntentAnswer {
        let nonce = intent.nonce.clone();
        if !self.sessions.may_tell_of(&asker.sight, Some(&intent.session_id), Some(&intent.session)) {
            tracing::warn!(worker = intent.worker, "an intent of a session that its peer may not ask for");
            return IntentAnswer { nonce, recorded: false };
        }
        let intent = Record { asked_by: asker.peer.as_ref().map(PeerId::to_string), ..Record::of_intent(intent) };
        // Before it can go out: what is outstanding is never fewer uses than there are.
        self.outstanding.announced(&intent);
        let recorded = self.audit.append(intent.clone()).await.is_ok();
        if !recorded {
            self.outstanding.not_announced(&intent);
        }
        IntentAnswer { nonce, recorded }
    }

    /// A grant for the session as it is when the answer leaves.
    async fn settled(&self, asked: &Asked<'_>) -> Result<Granted, Reason> {
        let Asked { evidence, asker, span, .. } = asked;
        let named = match &evidence.jwt {
            Some(jwt) => {
                let _identity = span.child("identity");
                Some(self.identities.identify(jwt, Now::read()).await?)
            }
            None => None,
        };
        for _ in 0..MOST_ATTEMPTS {
            match self.grant(asked, named.as_ref()).await {
                Ok(Grant::Made(granted)) => return Ok(*granted),
                Ok(Grant::Changed) => {}
                // Whatever comes of it, the next attempt finds it.
                Ok(Grant::Missing(session, credential)) => {
                    let source = span.child("source");
                    source.says("attache.credential", &credential);
                    self.leases.prepare(&credential, holder(&session)).await;
                }
                Err(Reason::PlaceholderUnknown) => return Err(self.sessions.unknown(evidence, &asker.sight).await),
                Err(reason) => return Err(reason),
            }
        }
        Err(Reason::BrokerUnavailable)
    }

    async fn grant(&self, asked: &Asked<'_>, named: Option<&Named>) -> Result<Grant, Reason> {
        let Asked { worker, destination, evidence, asker, span } = *asked;
        let spec = self.destinations.get(destination).ok_or(Reason::HostNotAllowed)?;
        span.says("attache.destination", destination);
        for binding in &spec.bindings {
            let source = span.child("source");
            source.says("attache.credential", &binding.credential);
            self.leases.refresh_if_due(&binding.credential).await;
        }
        // From here to the lease there is no await: what changes meanwhile has a later cursor.
        let as_of = self.feed.cursor();
        let now = Now::read();
        let by_jwt = named.map(|named| &named.session);
        let identified = self.sessions.identify(evidence, by_jwt, &asker.sight, now)?;
        let Identified { session, credential, by_rule } = identified;
        span.says(SESSION, &session.name);
        let credential = match credential {
            Some(shown) => bound(spec, &session, shown)?,
            // Nobody is known by less than what a session demands or a provider signs.
            None if session.bind.is_empty() && !by_rule => return Err(Reason::IdentityRequired),
            None => injected_unasked(spec, &session)?,
        };
        span.says("attache.credential", &credential);
        let mode = session.mode(now);
        let access_mode = self.caps.narrow(mode, &credential, destination);
        // No lease outlives what the session may do now, nor the JWT that it was given on.
        let steady = session.steady(now);
        let steady = named.map_or(steady, |jwt| steady.min(now.until(jwt.expires)));
        if steady.is_zero() {
            return Err(Reason::IdentityRequired);
        }
        let lease = span.child("lease");
        let issued = self.leases.issue(&credential, destination, holder(&session), steady).map_err(|error| {
            tracing::warn!(%credential, session = %session.name, %error, "no lease");
            match *error {
                LeaseError::Narrowed => Reason::CredentialNotGranted,
                _ => Reason::SourceUnavailable,
            }
        })?;
        drop(lease);
        let Some(Issued { lease, injections, mask }) = issued else { return Ok(Grant::Missing(session, credential)) };

        let strict = self.strict.contains(&credential);
        let issued = Box::new(Record {
            session_id: Some(session.id.clone()),
            service: service(spec, &credential),
            session: Some(session.name.clone()),
            destination: Some(destination.to_owned()),
            access_mode: Some(access_mode),
            credential: Some(credential.clone()),
            lease_id: Some(lease.id.clone()),
            fingerprint: Some(lease.fingerprint.clone()),
            evidence: Some(evidence.word()),
            issued_to: Some(worker.to_owned()),
            asked_by: asker.peer.as_ref().map(PeerId::to_string),
            ttl_ms: Some(lease.ttl_ms),
            // Of what is announced one by one, the log knows by itself.
            count: Some(if strict { 0 } else { self.max_unacked_uses.into() }),
            ..Record::new(Kind::Issue, now.wall_ms)
        });
        // Before it can be used: what is outstanding is never fewer leases than there are.
        self.outstanding.issued(&issued, Duration::from_millis(lease.ttl_ms));
        let audit = span.child("audit");
        let written = self.audit.append(issued).await;
        drop(audit);
        // Writing took its time. What was taken from the session meanwhile does not leave. (A session that has begun
        // meanwhile, and that its connection would name as well, voids this grant by the feed.)
        let now = Now::read();
        let is_same = self.sessions.is_unchanged(&session) && session.is_live(now) && session.mode(now) == mode;
        if written.is_err() || !is_same {
            // What is announced one by one was not entered.
            if !strict {
                self.outstanding.withdrawn(&lease.id);
            }
            return written.map(|()| Grant::Changed).map_err(|_| Reason::BrokerUnavailable);
        }

        Ok(Grant::Made(Box::new(Granted {
            as_of,
            session_id: session.id.clone(),
            session: session.name.clone(),
            credential,
            access_mode,
            lease,
            max_unacked_uses: self.max_unacked_uses,
            strict,
            injections,
            mask,
        })))
    }
}

/// How it was answered.
fn tell(span: &Span, settled: Result<&Granted, &Reason>) {
    match settled {
        Ok(granted) => {
            span.says("attache.outcome", "granted");
            span.says("attache.access_mode", granted.access_mode.as_str());
        }
        Err(reason) => {
            span.says("attache.outcome", "denied");
            span.says("attache.reason", reason.as_str());
            // Others are the answer that the request should get.
            if reason.status() >= 500 {
                span.failed(reason.as_str());
            }
        }
    }
}

/// Whose lease a session's is.
fn holder(session: &Session) -> Holder<'_> {
    Holder { id: &session.id, name: &session.name, scopes: &session.scopes }
}

/// The credential whose placeholder was shown, if it belongs here and the session may use it.
fn bound(spec: &DestinationSpec, session: &Session, shown: Name) -> Result<Name, Reason> {
    if !spec.bindings.iter().any(|binding| binding.credential == shown) {
        return Err(Reason::PlaceholderMisplaced);
    }
    if session.credentials.contains(&shown) { Ok(shown) } else { Err(Reason::CredentialNotGranted) }
}

/// The one credential that goes to this destination without being asked for by a placeholder.
fn injected_unasked(spec: &DestinationSpec, session: &Session) -> Result<Name, Reason> {
    let injects = |missing| missing == MissingPlaceholder::Inject;
    let mut candidates: Vec<_> =
        spec.bindings.iter().filter(|b| injects(b.missing_placeholder)).map(|b| &b.credential).collect();
    candidates.dedup();
    if candidates.is_empty() {
        return Err(Reason::IdentityRequired);
    }
    candidates.retain(|credential| session.credentials.contains(credential));
    match candidates.as_slice() {
        [] => Err(Reason::CredentialNotGranted),
        [one] => Ok((*one).clone()),
        // Only a placeholder can say which.
        _ => Err(Reason::IdentityRequired),
    }
}

fn service(spec: &DestinationSpec, credential: &Name) -> Option<String> {
    spec.bindings.iter().find(|binding| binding.credential == *credential).map(|binding| binding.service.clone())
}

#[cfg(test)]
mod tests;
