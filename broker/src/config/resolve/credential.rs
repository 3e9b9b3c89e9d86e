//! Credentials: a preset where one is named, changed by what the config writes beside it.

use super::{Around, Problems, agent_env, bundle, destination, rotation, sources};
use crate::config::error::Problem;
use crate::config::presets;
use crate::config::reader::join;
use crate::config::spec::{CredentialSpec, Spec};
use crate::config::{Credential, SourcesConfig};
use attache_core::names::Name;
use attache_core::placeholder::Shape;
use attache_core::policy::MissingPlaceholder;

/// Characters of a placeholder for which nobody gave a shape.
const DEFAULT_LENGTH: usize = 40;

/// Resolves all credentials, and checks them against each other.
pub(super) fn resolve_all(
    spec: &Spec,
    shared: &SourcesConfig,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Vec<Credential> {
    let mut credentials = Vec::new();
    for (name, written) in &spec.credentials {
        let path = join("credentials", name.as_str());
        credentials.extend(resolve((name, written, &path), spec, shared, around, problems));
    }
    destination::check_together(&credentials, spec.mesh, problems);
    rotation::check_together(&credentials, problems);
    bundle::check_together(&credentials, around, problems);
    agent_env::resolve_all(spec, &mut credentials, problems);
    credentials
}

fn resolve(
    (name, written, path): (&Name, &CredentialSpec, &str),
    spec: &Spec,
    shared: &SourcesConfig,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Credential> {
    let bare = CredentialSpec::default();
    let preset = match &written.preset {
        None => &bare,
        Some(preset) => presets::find(preset).or_else(|| {
            let why = presets::not_yet(preset).map_or(Problem::UnknownPreset, Problem::PresetNotYet);
            problems.add(join(path, "preset"), why);
            None
        })?,
    };
    if written.preset.is_some() && written.inject.is_some() {
        problems.add(join(path, "inject"), Problem::InjectionBesidePreset);
    }
    let placeholder = written.placeholder.clone().or_else(|| preset.placeholder.clone());
    let placeholder = placeholder.unwrap_or_else(|| Shape::new("", DEFAULT_LENGTH));
    if let Err(why) = placeholder.check() {
        problems.add(join(path, "placeholder"), why.into());
    }
    let missing_placeholder = written.missing_placeholder.or(preset.missing_placeholder).unwrap_or_default();
    if missing_placeholder == MissingPlaceholder::Inject && !is_named_otherwise(name, spec, around) {
        problems.add(join(path, "missing_placeholder"), Problem::InjectWithoutEvidence);
    }
    let service = written.service.as_ref().or(preset.service.as_ref());
    let lookup = sources::lookup(
        written.source.as_ref().or(preset.source.as_ref()),
        (name, path),
        (spec, shared),
        around,
        problems,
    );
    let kept = (path, shared.file_dir.as_path());
    let rotation = rotation::resolve(written.rotation.as_ref(), kept, &lookup, around, problems);
    let bundle = bundle::resolve(written, path, spec, problems);
    if written.rotation.is_some() && written.bundle.is_some() {
        problems.add(join(path, "rotation"), Problem::RotatedBundle);
    }
    let stripped = bundle::stripped(written, bundle.as_ref());
    Some(Credential {
        name: name.clone(),
        service: service.map_or_else(|| name.as_str().to_owned(), |service| service.0.clone()),
        lookup,
        destinations: destination::resolve_all(&stripped, preset, path, around, problems),
        bundle,
        audit: written.audit.or(preset.audit).unwrap_or_default(),
        placeholder,
        missing_placeholder,
        agent_env: Vec::new(),
        rotation,
    })
}

/// Whether some session that may use the credential requires evidence by which it is known without a
/// placeholder. A session that does not, needs its placeholder as everywhere.
fn is_named_otherwise(credential: &Name, spec: &Spec, around: &Around<'_>) -> bool {
    let by_rule = |name: &Name| {
        let tokens = spec.oidc.iter().flat_map(|provider| &provider.rules).map(|rule| &rule.session);
        tokens.chain(spec.peers.iter().map(|rule| &rule.session)).any(|session| session == name)
    };
    let may_use = spec.sessions.iter().filter(|session| session.credentials.contains(credential));
    // What could not be read is reported already, and may have been the one.
    around.is_incomplete("sessions")
        || around.is_incomplete("oidc")
        || around.is_incomplete("peers")
        || may_use.into_iter().any(|session| session.bind.identifies() || by_rule(&session.name))
}
