//! Destinations: those of the preset, changed or joined by those written beside it.

use super::{Around, Problems};
use crate::config::access::AccessSpec;
use crate::config::caps::narrower;
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::spec::{CredentialSpec, DestinationSpec, UpstreamSpec};
use crate::config::{Credential, Destination, Mesh, Upstream, policy};
use attache_core::access::{Access, AccessError};
use attache_core::companion::{Companion, CompanionError};
use attache_core::matching::host::Host;
use attache_core::policy::{CompanionSpec, StripSpec};
use attache_core::strip::Strip;
use std::collections::{BTreeMap, BTreeSet};

/// Resolves the destinations of one credential.
pub(super) fn resolve_all(
    written: &CredentialSpec,
    preset: &CredentialSpec,
    path: &str,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Vec<Destination> {
    // The preset's own errors would be ours, so they are blamed on the line that names it.
    let of_preset = preset.destinations.iter().map(|destination| (destination.clone(), join(path, "preset")));
    let mut specs: Vec<(DestinationSpec, String)> = of_preset.collect();
    let known = specs.len();
    // Indices are those of the file: reading leaves out what it cannot read.
    let list = join(path, "destinations");
    let kept = (0..).map(|index| format!("{list}[{index}]")).filter(|at| !around.left_out.contains(at));
    for (at, addition) in kept.zip(&written.destinations) {
        match specs.iter_mut().take(known).find(|(base, _)| refines(addition, base)) {
            Some((base, base_at)) => (*base, *base_at) = (merged(base, addition), at),
            None => specs.push((addition.clone(), at)),
        }
    }
    let cap = narrower(written.access_mode.unwrap_or_default(), preset.access_mode.unwrap_or_default());

    let mut destinations: Vec<Destination> = Vec::new();
    let mut earlier = BTreeSet::new();
    for (spec, at) in &specs {
        let spec = completed(spec, written, preset);
        let Some(mut destination) = resolve(&spec, written, (at, path), around, problems) else { continue };
        destination.access_mode = narrower(cap, destination.access_mode);
        destination.mask = spec.mask.or(written.mask).or(preset.mask).unwrap_or(true);
        if !earlier.insert((destination.host.clone(), destination.port)) {
            problems.add(at, Problem::Twice);
        }
        destinations.push(destination);
    }
    if specs.is_empty() && !around.is_incomplete(&list) {
        problems.add(path, if written.preset.is_some() { Problem::NoHost } else { Problem::NoDestination });
    }
    destinations
}

/// Credentials that share a destination share the cluster that leads there.
pub(super) fn check_together(credentials: &[Credential], mesh: Option<Mesh>, problems: &mut Problems) {
    check_clusters(credentials, mesh, problems);
    let mut known: BTreeMap<(&Host, u16), Vec<(&Credential, &Destination)>> = BTreeMap::new();
    for credential in credentials {
        for destination in &credential.destinations {
            let earlier = known.entry((&destination.host, destination.port)).or_default();
            let differs = |(other, there): &&(&Credential, &Destination)| {
                other.name != credential.name && !reached_alike(there, destination)
            };
            if let Some((other, _)) = earlier.iter().find(differs) {
                let path = join("credentials", credential.name.as_str());
                problems.add(path, Problem::ReachedDifferently(other.name.clone()));
            }
            earlier.push((credential, destination));
        }
    }
}

/// A cluster leads to one destination; in a mesh a host is one as well.
fn check_clusters(credentials: &[Credential], mesh: Option<Mesh>, problems: &mut Problems) {
    let mut leading: BTreeMap<String, (&Host, u16)> = BTreeMap::new();
    let mut ports: BTreeMap<&Host, u16> = BTreeMap::new();
    for credential in credentials {
        for destination in &credential.destinations {
            let (host, port) = (&destination.host, destination.port);
            let path = join("credentials", credential.name.as_str());
            if *leading.entry(policy::cluster(destination, mesh)).or_insert((host, port)) != (host, port) {
                problems.add(&path, Problem::ClusterTaken);
            }
            if mesh.is_some() && *ports.entry(host).or_insert(port) != port {
                problems.add(&path, Problem::MeshPort);
            }
        }
    }
}

fn reached_alike(one: &Destination, other: &Destination) -> bool {
    let how = |to: &Destination| (to.plaintext, to.private, to.upstream.clone(), to.spki_sha256.clone());
    how(one) == how(other)
}

fn refines(addition: &DestinationSpec, base: &DestinationSpec) -> bool {
    addition.host == base.host && addition.port.is_none_or(|port| port.get() == port_of(base))
}

fn merged(base: &DestinationSpec, over: &DestinationSpec) -> DestinationSpec {
    let paths = if over.paths.is_empty() { &base.paths } else { &over.paths };
    DestinationSpec {
        host: base.host.clone(),
        port: over.port.or(base.port),
        paths: paths.clone(),
        plaintext: over.plaintext || base.plaintext,
        spki_sha256: over.spki_sha256.clone().or_else(|| base.spki_sha256.clone()),
        upstream: over.upstream.clone().or_else(|| base.upstream.clone()),
        private: over.private || base.private,
        inject: over.inject.clone().or_else(|| base.inject.clone()),
        access: over.access.clone().or_else(|| base.access.clone()),
        with: joined(&[&over.with, &base.with]),
        strip: together([&over.strip, &base.strip]),
        access_mode: over.access_mode.or(base.access_mode),
        mask: over.mask.or(base.mask),
        basic_challenge: over.basic_challenge.or(base.basic_challenge),
        websocket: over.websocket.or(base.websocket),
    }
}

/// A destination, and what its credential says for all that do not say otherwise: the config first.
fn completed(spec: &DestinationSpec, written: &CredentialSpec, preset: &CredentialSpec) -> DestinationSpec {
    let first = preset.destinations.first().and_then(|destination| destination.inject.as_ref());
    let inject = [spec.inject.as_ref(), written.inject.as_ref(), preset.inject.as_ref(), first];
    let access = [spec.access.as_ref(), written.access.as_ref(), preset.access.as_ref()];
    DestinationSpec {
        inject: inject.into_iter().flatten().next().cloned(),
        access: access.into_iter().flatten().next().cloned(),
        with: joined(&[&spec.with, &written.with, &preset.with]),
        strip: together([&spec.strip, &written.strip, &preset.strip]),
        basic_challenge: spec.basic_challenge.or(written.basic_challenge).or(preset.basic_challenge),
        ..spec.clone()
    }
}

/// Of each header, what the first list says.
fn joined(lists: &[&[CompanionSpec]]) -> Vec<CompanionSpec> {
    let mut all: Vec<CompanionSpec> = Vec::new();
    for list in lists {
        let known = all.len();
        let is_new = |one: &&CompanionSpec| {
            !all.iter().take(known).any(|earlier| earlier.header.eq_ignore_ascii_case(&one.header))
        };
        let new: Vec<_> = list.iter().filter(is_new).cloned().collect();
        all.extend(new);
    }
    all
}

/// All places that one of them names.
fn together<'a>(lists: impl IntoIterator<Item = &'a StripSpec>) -> StripSpec {
    let mut all = StripSpec::default();
    lists.into_iter().for_each(|list| all.add(list));
    all
}

fn port_of(spec: &DestinationSpec) -> u16 {
    spec.port.map_or(if spec.plaintext { 80 } else { 443 }, |port| port.get())
}

fn resolve(
    spec: &DestinationSpec,
    written: &CredentialSpec,
    (at, credential): (&str, &str),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Destination> {
    let rules = spec.access.clone().unwrap_or_default();
    let access = rules.resolve().and_then(|access| Access::compile(&access).map(|_| access));
    let access = access.unwrap_or_else(|why| {
        problems.add(blamed(&rules, why, &join(at, "access"), around), why.into());
        Default::default()
    });
    if let Some(why) = spec.with.iter().find_map(|companion| Companion::compile(companion).err()) {
        problems.add(join(at, "with"), why.into());
    }
    match Strip::compile(&spec.strip) {
        Err(why) => problems.add(join(at, "strip"), why.into()),
        Ok(strip) if spec.with.iter().any(|it| strip.takes_header(it.header.to_ascii_lowercase().as_bytes())) => {
            problems.add(join(at, "with"), CompanionError::Credential.into());
        }
        Ok(_) => {}
    }
    let verifies = spec.spki_sha256.is_some() || spec.upstream.as_ref().is_some_and(|u| u.ca_file.is_some());
    if spec.plaintext && verifies {
        problems.add(join(at, "plaintext"), Problem::PlaintextVerified);
    }
    let is_dialled = spec.spki_sha256.is_some()
        || spec.upstream.as_ref().is_some_and(|upstream| upstream.address.is_some() || upstream.ca_file.is_some());
    if is_dialled && spec.upstream.as_ref().is_some_and(|upstream| upstream.cluster.is_some()) {
        problems.add(join(&join(at, "upstream"), "cluster"), Problem::ClusterAlone);
    } else if is_dialled && around.mesh.is_some() {
        problems.add(at, Problem::MeshDials);
    }
    if around.mesh.is_some() && !matches!(spec.host.0, Host::Name(_)) {
        problems.add(join(at, "host"), Problem::MeshAddress);
    }
    let upstream = spec.upstream.as_ref().map(|upstream| resolve_upstream(upstream, at, around, problems));
    let Some(inject) = &spec.inject else {
        if !around.is_incomplete(&join(at, "inject")) && !around.is_incomplete(&join(credential, "inject")) {
            problems.add(at, if written.preset.is_some() { Problem::NoUser } else { Problem::NoInjection });
        }
        return None;
    };
    Some(Destination {
        host: spec.host.0.clone(),
        port: port_of(spec),
        paths: spec.paths.iter().map(|path| path.0.clone()).collect(),
        plaintext: spec.plaintext,
        injection: inject.0.clone(),
        access,
        with: spec.with.clone(),
        strip: spec.strip.clone(),
        access_mode: spec.access_mode.unwrap_or_default(),
        mask: true,
        upstream,
        private: spec.private,
        spki_sha256: spec.spki_sha256.as_ref().map(|pin| pin.0.clone()),
        basic_challenge: spec.basic_challenge.unwrap_or_default(),
        websocket: spec.websocket.unwrap_or_default(),
    })
}

/// Where an exception stands that makes no sense: the rule itself, where nothing hides which it is.
fn blamed(access: &AccessSpec, why: AccessError, at: &str, around: &Around<'_>) -> String {
    let index = match why {
        AccessError::BodyOfAWrite if !around.is_incomplete(at) => access.writes.iter().position(|w| w.body.is_some()),
        _ => None,
    };
    index.map_or_else(|| at.to_owned(), |index| format!("{at}.writes[{index}].body"))
}

fn resolve_upstream(spec: &UpstreamSpec, at: &str, around: &Around<'_>, problems: &mut Problems) -> Upstream {
    let at = join(at, "upstream");
    let is_empty = spec.address.is_none() && spec.ca_file.is_none() && spec.cluster.is_none();
    if is_empty && !around.is_incomplete(&at) {
        problems.add(&at, Problem::EmptyUpstream);
    }
    Upstream {
        address: spec.address.as_ref().map(|address| address.0.clone()),
        ca_file: spec.ca_file.as_deref().map(|file| around.path(file, &join(&at, "ca_file"), problems)),
        cluster: spec.cluster.as_ref().map(|cluster| cluster.0.clone()),
    }
}
