//! Sources: what all secrets of a kind share, and where one secret is looked for.

use super::{Around, Problems, github_app, infisical, kubernetes, onepassword, openbao};
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::spec::{SourceSpec, Spec};
use crate::config::{KINDS, Lookup, OpenBaoSecret, SourceKind, SourcesConfig};
use attache_core::names::Name;
use std::path::Path;

/// What all secrets of a kind share.
pub(super) fn resolve(spec: &Spec, state_dir: &Path, around: &Around<'_>, problems: &mut Problems) -> SourcesConfig {
    let order = spec.sources.order.clone().unwrap_or_else(|| KINDS.iter().map(|kind| kind.kind).collect());
    for (index, kind) in order.iter().enumerate() {
        if order.iter().take(index).any(|earlier| earlier == kind) && !around.is_incomplete("sources.order") {
            problems.add(format!("sources.order[{index}]"), Problem::Twice);
        }
    }
    let file_dir = state_dir.join(spec.sources.file.dir.as_deref().unwrap_or("secrets"));
    let openbao = openbao::resolve(spec, &file_dir, around, problems);
    let onepassword = onepassword::resolve(spec, &file_dir, around, problems);
    let infisical = infisical::resolve(spec, &file_dir, around, problems);
    let github_app = github_app::resolve(spec, &file_dir, around, problems);
    let kubernetes = kubernetes::resolve(spec, around, problems);
    SourcesConfig { order, file_dir, onepassword, openbao, infisical, github_app, kubernetes }
}

/// The places to look for a secret, in the order the config gives to kinds of sources.
pub(super) fn lookup(
    source: Option<&SourceSpec>,
    (name, path): (&Name, &str),
    (spec, sources): (&Spec, &SourcesConfig),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Vec<Lookup> {
    let at = join(path, "source");
    let is_bundle = spec.credentials.get(name).is_some_and(|credential| credential.bundle.is_some());
    let env = source.and_then(|source| source.env.as_ref()).map(|variable| Lookup::Env(variable.0.clone()));
    let file = source.and_then(|source| source.file.as_ref());
    let file = file.map(|file| Lookup::File(sources.file_dir.join(&file.0)));
    let found = [
        env,
        onepassword::secret(source, (name, &at), (spec, sources), around, problems),
        openbao::secret(source, &at, (spec, sources), around, problems)
            .map(|secret| Lookup::OpenBao(OpenBaoSecret { document: is_bundle, ..secret })),
        infisical::secret(source, &at, (spec, sources), around, problems).map(Lookup::Infisical),
        github_app::token(source, &at, (spec, sources), around, problems).map(Lookup::GitHubApp),
        kubernetes::mounted(source, &at, around, problems).map(Lookup::Mounted),
        kubernetes::secret(source, (spec, sources)).map(Lookup::Kubernetes),
        file,
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    if found.is_empty() {
        // What is written there, and wrong, is told already.
        let told = source.is_some_and(|source| *source != SourceSpec::default());
        if !told && !around.is_incomplete(&at) && !around.is_incomplete("sources.onepassword") {
            problems.add(if source.is_some() { at } else { path.to_owned() }, Problem::NoSource);
        }
        return Vec::new();
    }
    if found.len() > 1 && found.iter().any(|lookup| lookup.scope().is_some()) {
        problems.add(join(&at, "github_app"), Problem::NotAlone);
    }
    let of_kind = |kind: &SourceKind| found.iter().find(|lookup| lookup.kind() == *kind).cloned();
    let lookup: Vec<_> = sources.order.iter().filter_map(of_kind).collect();
    if lookup.is_empty() && !around.is_incomplete("sources.order") {
        problems.add(at, Problem::SourceNotInOrder);
    }
    lookup
}
