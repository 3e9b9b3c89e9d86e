//! Infisical: reached safely, by somebody, for secrets that are somewhere.

use super::{Around, Problems, period};
use crate::config::SourcesConfig;
use crate::config::error::Problem;
use crate::config::infisical::{CLOUD, Infisical, InfisicalAuthSpec, InfisicalSecret, InfisicalSpec};
use crate::config::reader::join;
use crate::config::spec::{SourceSpec, Spec};
use crate::config::values::Word;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const AT: &str = "sources.infisical";

/// The Infisical that all its secrets share, where the config names one.
pub(super) fn resolve(
    spec: &Spec,
    file_dir: &Path,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Arc<Infisical>> {
    let written = &spec.sources.infisical;
    let second = Duration::from_secs(1);
    let refresh = period(
        &written.refresh,
        60 * second,
        second..=86_400 * second,
        ("sources.infisical.refresh", "a length of time from 1s to 24h"),
        problems,
    );
    let ca_file = written.ca_file.as_ref().map(|file| around.path(file, &join(AT, "ca_file"), problems));
    if is_named(spec) && written.auth.is_none() && !around.is_incomplete(AT) {
        problems.add(AT, Problem::NoInfisicalAuth);
    }
    let InfisicalAuthSpec::Universal(auth) = written.auth.as_ref()?;
    Some(Arc::new(Infisical {
        address: written.address.as_ref().map_or_else(|| CLOUD.to_owned(), |address| address.0.clone()),
        ca_file,
        client_id: auth.client_id.0.clone(),
        client_secret: auth.client_secret.at(file_dir),
        refresh,
    }))
}

/// Whether the config says anything of it.
fn is_named(spec: &Spec) -> bool {
    spec.sources.infisical != InfisicalSpec::default()
}

/// What a credential's `source` names in it.
pub(super) fn secret(
    source: Option<&SourceSpec>,
    at: &str,
    (spec, sources): (&Spec, &SourcesConfig),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<InfisicalSecret> {
    let secret = source?.infisical.as_ref()?;
    let (at, shared) = (join(at, "infisical"), &spec.sources.infisical);
    let Some(server) = sources.infisical.clone() else {
        // Half of one is told where it stands.
        if !is_named(spec) && !around.is_incomplete(AT) {
            problems.add(at, Problem::NoInfisical);
        }
        return None;
    };
    let mut named = |own: &Option<Word>, others: &Option<Word>, what| {
        let found = own.as_ref().or(others.as_ref()).map(|word| word.0.clone());
        if found.is_none() && !around.is_incomplete(AT) {
            problems.add(at.clone(), Problem::NowhereInInfisical(what));
        }
        found
    };
    let project = named(&secret.project, &shared.project, "project");
    let environment = named(&secret.environment, &shared.environment, "environment");
    let path = secret.path.as_ref().or(shared.path.as_ref());
    Some(InfisicalSecret {
        server,
        project: project?,
        environment: environment?,
        path: path.map_or_else(|| "/".to_owned(), |path| path.0.clone()),
        name: secret.name.0.clone(),
        version: secret.version.map(std::num::NonZeroU32::get),
    })
}
