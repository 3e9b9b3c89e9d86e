//! Hosts that are let through undecrypted. No credential may be bound to one: it could never be injected.

use super::{Around, Problems};
use crate::config::error::Problem;
use crate::config::spec::{Spec, TlsSpec};
use crate::config::{Credential, PassThrough};
use attache_core::matching::host::Host;
use attache_core::names::Name;
use std::collections::{BTreeMap, HashMap};

/// Resolves all of them, in order.
pub(super) fn resolve_all(
    spec: &Spec,
    credentials: &[Credential],
    around: &Around<'_>,
    problems: &mut Problems,
) -> Vec<PassThrough> {
    let of = |credential: &Credential| {
        let name = credential.name.clone();
        let places = credential.destinations.iter().map(|to| (to.host.clone(), to.port));
        places.map(move |place| (place, name.clone())).collect::<Vec<_>>()
    };
    let bound: HashMap<(Host, u16), Name> = credentials.iter().rev().flat_map(of).collect();
    let mut all: BTreeMap<(Host, u16), PassThrough> = BTreeMap::new();
    // Indices are those of the file: reading leaves out what it cannot read.
    let kept = (0..).map(|index| format!("hosts[{index}]")).filter(|at| !around.left_out.contains(at));
    for (at, written) in kept.zip(&spec.hosts) {
        let TlsSpec::Passthrough = written.tls;
        let port = written.port.map_or(443, |port| port.get());
        let host = PassThrough { host: written.host.0.clone(), port, private: written.private };
        if !matches!(host.host, Host::Name(_)) {
            problems.add(format!("{at}.host"), Problem::PassedAddress);
        }
        let place = (host.host.clone(), host.port);
        if let Some(credential) = bound.get(&place) {
            problems.add(&at, Problem::BoundAndPassed(credential.clone()));
        }
        if all.insert(place, host).is_some() {
            problems.add(at, Problem::Twice);
        }
    }
    all.into_values().collect()
}
