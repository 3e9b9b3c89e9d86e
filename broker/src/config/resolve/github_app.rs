//! A GitHub App: named once, reached safely, by a key that is nowhere in the config.

use super::{Around, Problems, period};
use crate::config::error::Problem;
use crate::config::github_app::{API, GitHubApp, GitHubAppSpec, GitHubAppToken};
use crate::config::reader::join;
use crate::config::spec::{SourceSpec, Spec};
use crate::config::{SourcesConfig, TokenScope};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const AT: &str = "sources.github_app";

/// The App that all its tokens share, where the config names one.
pub(super) fn resolve(
    spec: &Spec,
    file_dir: &Path,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Arc<GitHubApp>> {
    let written = &spec.sources.github_app;
    let second = Duration::from_secs(1);
    let refresh = period(
        &written.refresh,
        2400 * second,
        10 * second..=3600 * second,
        ("sources.github_app.refresh", "a length of time from 10s to 1h"),
        problems,
    );
    let ca_file = written.ca_file.as_ref().map(|file| around.path(file, &join(AT, "ca_file"), problems));
    if written.client_id.is_some() && written.app_id.is_some() {
        problems.add(AT, Problem::TwoIssuers);
    }
    let number = written.app_id.map(|id| id.to_string());
    let issuer = written.client_id.as_ref().map(|id| id.0.clone()).or(number);
    for (missing, name) in [
        (issuer.is_none(), "client_id: CLIENT_ID"),
        (written.installation_id.is_none(), "installation_id: NUMBER"),
        (written.private_key.is_none(), "private_key: {file: github_app.pem}"),
    ] {
        if is_begun(written) && missing && !around.is_incomplete(AT) {
            problems.add(AT, Problem::Lacks(name));
        }
    }
    Some(Arc::new(GitHubApp {
        issuer: issuer?,
        installation: written.installation_id?.get(),
        key: written.private_key.as_ref()?.at(file_dir),
        api: written.api.as_ref().map_or(API, |api| &api.0).to_owned(),
        ca_file,
        refresh,
    }))
}

/// Whether anything of it is there: what is missing is then told where it stands.
fn is_begun(written: &GitHubAppSpec) -> bool {
    let GitHubAppSpec { app_id, client_id, installation_id, private_key, api, ca_file, refresh } = written;
    let ours = app_id.is_some() || client_id.is_some() || installation_id.is_some() || private_key.is_some();
    ours || api.is_some() || ca_file.is_some() || refresh.is_some()
}

/// What a credential's `source` has of it.
pub(super) fn token(
    source: Option<&SourceSpec>,
    at: &str,
    (spec, sources): (&Spec, &SourcesConfig),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<GitHubAppToken> {
    let scope: &TokenScope = source?.github_app.as_ref()?;
    let Some(app) = sources.github_app.clone() else {
        if !is_begun(&spec.sources.github_app) && !around.is_incomplete(AT) {
            problems.add(join(at, "github_app"), Problem::NoGitHubApp);
        }
        return None;
    };
    Some(GitHubAppToken { app, scope: scope.clone() })
}
