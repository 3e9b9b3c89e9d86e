//! The policy that runs: parsed once, looked up without allocating.

use super::spec::{
    AccessMode, BindingSpec, Carrier, DestinationSpec, EvidenceSpec, MissingPlaceholder, Spec, Unmatched,
};
use crate::access::{Access, AccessError};
use crate::companion::{Companion, CompanionError};
use crate::connection::Property;
use crate::evidence::AUTH_HEADERS;
use crate::hashing::Table;
use crate::headers::{Sieve, is_same_variable};
use crate::matching::host::{Authority, HostError};
use crate::matching::path::{Ambiguous, check_path, is_under};
use crate::names::Name;
use crate::placeholder::MARKER;
use crate::request::TELLING;
use crate::strip::{Strip, StripError};
use memchr::memmem::Finder;
use std::collections::HashSet;
use std::sync::Arc;

/// Everything a filter decides by, besides grants. Immutable; swapped whole.
#[derive(Debug)]
pub struct Policy {
    version: String,
    instance: Name,
    unmatched: Unmatched,
    passthrough: HashSet<String>,
    intercept_unmatched: bool,
    destinations: Vec<Destination>,
    by_authority: Table<usize>,
    by_prefix: Table<usize>,
    carriers: Vec<Vec<u8>>,
    properties: Vec<Property>,
    evidence: EvidenceSpec,
    marker: Finder<'static>,
    telling: Sieve,
}

/// One place a credential may go.
#[derive(Debug)]
pub struct Destination {
    /// `host:port`. Shared with requests, whose records name it when this policy may be gone.
    pub id: Arc<str>,
    /// The only cluster a request for it may take.
    pub cluster: String,
    /// Whether it is reached without TLS.
    pub plaintext: bool,
    /// Whether a request without identity is answered with a Basic challenge.
    pub basic_challenge: bool,
    /// Where it takes a credential besides.
    pub strip: Strip,
    bindings: Vec<Binding>,
}

/// One credential bound to one destination.
#[derive(Debug)]
pub struct Binding {
    /// The credential.
    pub credential: Name,
    /// The `service` of audit records.
    pub service: String,
    /// What a request without a placeholder gets.
    pub missing_placeholder: MissingPlaceholder,
    /// Where the credential stands.
    pub carrier: Carrier,
    /// Exceptions to read-only.
    pub access: Access,
    /// What stands beside the credential.
    pub companions: Vec<Companion>,
    /// Whether the credential may open a WebSocket.
    pub websocket: bool,
    paths: Vec<String>,
}

/// What is wrong with a policy. The broker checks before it publishes; the filter refuses to run one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An authority is not one, or not canonical.
    #[error("{destination}: {why}")]
    Authority {
        /// The destination's id.
        destination: String,
        /// What is wrong.
        why: HostError,
    },
    /// Two destinations answer to one authority or route prefix.
    #[error("{destination}: another destination is reached in the same way")]
    Taken {
        /// The destination's id.
        destination: String,
    },
    /// A path prefix or route prefix can be read in two ways.
    #[error("{destination}: {why}")]
    Path {
        /// The destination's id.
        destination: String,
        /// What is wrong.
        why: Ambiguous,
    },
    /// A header beside the credential that may not be one.
    #[error("{destination}: {why}")]
    Companion {
        /// The destination's id.
        destination: String,
        /// What is wrong.
        why: CompanionError,
    },
    /// A place of a credential that may not be one.
    #[error("{destination}: {why}")]
    Strip {
        /// The destination's id.
        destination: String,
        /// What is wrong.
        why: StripError,
    },
    /// An exception to read-only makes no sense.
    #[error("{destination}: {why}")]
    Access {
        /// The destination's id.
        destination: String,
        /// What is wrong.
        why: AccessError,
    },
}

impl Policy {
    /// Compiles a policy, or names the first thing wrong with it.
    pub fn compile(spec: Spec) -> Result<Self, PolicyError> {
        let mut policy = Self {
            version: spec.version,
            unmatched: spec.unmatched,
            passthrough: spec.passthrough.into_iter().collect(),
            intercept_unmatched: spec.intercept_unmatched,
            properties: Property::needed(&spec.evidence),
            evidence: spec.evidence,
            ..Self::empty(spec.instance)
        };
        for destination in spec.destinations {
            policy.add(destination)?;
        }
        let named = policy.carriers.iter().map(Vec::as_slice).chain(policy.identity_headers());
        policy.telling = named.fold(TELLING, Sieve::and);
        Ok(policy)
    }

    fn add(&mut self, spec: DestinationSpec) -> Result<(), PolicyError> {
        let index = self.destinations.len();
        let id = &spec.id;
        for text in spec.named() {
            let canonical = Authority::parse(text.as_bytes())
                .and_then(|a| if a.to_string() == text { Ok(()) } else { Err(HostError::BadCharacter) });
            canonical.map_err(|why| PolicyError::Authority { destination: id.clone(), why })?;
            if self.by_authority.insert(text.into(), index).is_some() {
                return Err(PolicyError::Taken { destination: id.clone() });
            }
        }
        if let Some(prefix) = &spec.route_prefix {
            check_path(prefix.as_bytes()).map_err(|why| PolicyError::Path { destination: id.clone(), why })?;
            if self.by_prefix.insert(prefix.clone().into_bytes(), index).is_some() {
                return Err(PolicyError::Taken { destination: id.clone() });
            }
        }
        let strip = Strip::compile(&spec.strip).map_err(|why| PolicyError::Strip { destination: id.clone(), why })?;
        let bindings: Vec<_> = spec.bindings.into_iter().map(|b| Binding::compile(id, b)).collect::<Result<_, _>>()?;
        for (binding, _) in &bindings {
            // What an agent writes there would join it again.
            if binding.companions.iter().any(|companion| strip.takes_header(companion.header().as_bytes())) {
                let why = CompanionError::Credential;
                return Err(PolicyError::Companion { destination: id.clone(), why });
            }
            if let Carrier::Header(name) = &binding.carrier
                && !AUTH_HEADERS.contains(&name.as_bytes())
                && !self.carriers.iter().any(|known| known == name.as_bytes())
            {
                self.carriers.push(name.clone().into_bytes());
            }
        }
        self.destinations.push(Destination {
            basic_challenge: bindings.iter().any(|(_, challenge)| *challenge),
            bindings: bindings.into_iter().map(|(binding, _)| binding).collect(),
            cluster: spec.cluster,
            plaintext: spec.plaintext,
            strip,
            id: spec.id.into(),
        });
        Ok(())
    }

    /// A policy that names no destination and lets nothing pass: what a worker starts with.
    pub fn empty(instance: Name) -> Self {
        Self {
            version: String::new(),
            instance,
            unmatched: Unmatched::Deny,
            passthrough: HashSet::new(),
            intercept_unmatched: false,
            destinations: Vec::new(),
            by_authority: Table::default(),
            by_prefix: Table::default(),
            carriers: Vec::new(),
            properties: Vec::new(),
            evidence: EvidenceSpec::default(),
            marker: Finder::new(MARKER).into_owned(),
            telling: TELLING,
        }
    }

    /// Finds the marker of placeholders.
    pub fn marker(&self) -> &Finder<'static> {
        &self.marker
    }

    /// The version, which is the ETag.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The instance that published it.
    pub fn instance(&self) -> &Name {
        &self.instance
    }

    /// What happens to hosts that no destination names.
    pub fn unmatched(&self) -> Unmatched {
        self.unmatched
    }

    /// Whether a host (`host:port`) is let through a forward proxy undecrypted.
    pub fn passes_through(&self, id: &str) -> bool {
        self.passthrough.contains(id)
    }

    /// Whether a forward proxy decrypts traffic to hosts that no destination names.
    pub fn intercepts_unmatched(&self) -> bool {
        self.intercept_unmatched
    }

    /// What of a connection somebody needs: each is a host call, and none is made besides.
    pub fn properties(&self) -> &[Property] {
        &self.properties
    }

    /// Whether somebody needs to know the listener.
    pub fn needs_listener(&self) -> bool {
        self.evidence.listener
    }

    /// Headers that carry a JWT.
    pub fn identity_headers(&self) -> impl Iterator<Item = &[u8]> {
        self.evidence.identity_headers.iter().map(String::as_bytes)
    }

    /// A destination by its index.
    pub fn destination(&self, index: usize) -> Option<&Destination> {
        self.destinations.get(index)
    }

    /// The destination that a canonical authority names.
    pub fn by_authority(&self, canonical: &[u8]) -> Option<usize> {
        self.by_authority.get(canonical).copied()
    }

    /// The destination under whose route prefix a path lies, and the prefix's length.
    pub fn by_prefix(&self, path: &[u8]) -> Option<(usize, usize)> {
        let end = 1 + memchr::memchr(b'/', path.get(1..)?)?;
        self.by_prefix.get(path.get(..end)?).map(|index| (*index, end))
    }

    /// The destination that a request names, by its authority or else by the gateway's route
    /// prefix, and how much of the path is that prefix. An authority that is none is an error.
    pub fn locate(&self, authority: &[u8], path: &[u8]) -> Result<(Option<usize>, usize), HostError> {
        // Canonical spellings are in the table as they are; anything else is parsed first.
        if let Some(index) = self.by_authority(authority) {
            return Ok((Some(index), 0));
        }
        let canonical = Authority::parse(authority)?;
        if let Some(index) = self.by_authority(canonical.to_string().as_bytes()) {
            return Ok((Some(index), 0));
        }
        Ok(self.by_prefix(path).map_or((None, 0), |(index, cut)| (Some(index), cut)))
    }

    /// Whether a request without identity to this place is answered with a Basic challenge.
    pub fn wants_challenge(&self, authority: &[u8], target: &[u8]) -> bool {
        let path = target.split(|b| *b == b'?').next().unwrap_or_default();
        let found = self.locate(authority, path).ok().and_then(|(index, _)| self.destination(index?));
        found.is_some_and(|destination| destination.basic_challenge)
    }

    /// Whether a request's header may say something: everywhere, or as it carries a credential or a JWT by what the config
    /// says.
    #[inline(always)]
    pub fn may_tell(&self, header: &[u8]) -> bool {
        self.telling.may_hold(header)
    }

    /// Whether some binding of some destination puts its credential into this header.
    pub fn is_carrier(&self, header: &[u8]) -> bool {
        self.carriers.iter().any(|known| known == header)
    }

    /// Whether some server takes this for such a header, though it has another name.
    pub fn is_carrier_respelled(&self, header: &[u8]) -> bool {
        self.carriers.iter().any(|known| is_same_variable(header, known))
    }
}

impl Destination {
    /// The binding of a credential.
    pub fn binding(&self, credential: &Name) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.credential == *credential)
    }

    /// All bindings.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}

impl Binding {
    fn compile(destination: &str, spec: BindingSpec) -> Result<(Self, bool), PolicyError> {
        let fail = || destination.to_owned();
        for path in &spec.paths {
            check_path(path.as_bytes()).map_err(|why| PolicyError::Path { destination: fail(), why })?;
        }
        let access = Access::compile(&spec.access).map_err(|why| PolicyError::Access { destination: fail(), why })?;
        let companions = spec.with.iter().map(Companion::compile).collect::<Result<_, _>>();
        let companions = companions.map_err(|why| PolicyError::Companion { destination: fail(), why })?;
        let binding = Self {
            companions,
            credential: spec.credential,
            service: spec.service,
            missing_placeholder: spec.missing_placeholder,
            carrier: spec.carrier,
            access,
            websocket: spec.websocket,
            paths: spec.paths,
        };
        Ok((binding, spec.basic_challenge))
    }

    /// Whether the credential is bound to this path.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|prefix| is_under(path, prefix))
    }

    /// Whether the session's mode can only be judged with the body at hand.
    pub fn needs_body(&self, mode: AccessMode) -> bool {
        mode == AccessMode::ReadOnly && self.access.needs_body()
    }
}
