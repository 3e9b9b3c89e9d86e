//! Sessions: what each names must exist, and an agent's environment must not be ambiguous.

use super::{Around, Problems};
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::spec::{SessionSpec, Spec};
use crate::config::{AgentValue, Credential, DeclaredSession};
use attache_core::names::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Resolves all sessions.
pub(super) fn resolve_all(
    spec: &Spec,
    credentials: &[Credential],
    around: &Around<'_>,
    problems: &mut Problems,
) -> Vec<DeclaredSession> {
    let mut sessions: Vec<DeclaredSession> = Vec::new();
    let mut names = BTreeSet::new();
    let by_name: BTreeMap<_, _> = credentials.iter().map(|credential| (&credential.name, credential)).collect();
    // Indices are those of the file: reading leaves out what it cannot read.
    let kept = (0..).map(|index| format!("sessions[{index}]")).filter(|at| !around.left_out.contains(at));
    for (at, written) in kept.zip(&spec.sessions) {
        if !names.insert(&written.name) {
            problems.add(join(&at, "name"), Problem::Twice);
        }
        check_credentials(written, spec, &at, around, problems);
        check_variables(written, &by_name, &at, problems);
        check_scopes(written, &by_name, &at, around, problems);
        let ttl = written.ttl.as_ref().map(|period| period.0);
        if ttl.is_some_and(|ttl| !(Duration::from_secs(1)..=365 * DAY).contains(&ttl)) {
            problems.add(join(&at, "ttl"), Problem::OutOfBounds("a length of time from 1s to 365d"));
        }
        sessions.push(DeclaredSession {
            name: written.name.clone(),
            credentials: written.credentials.clone(),
            access_mode: written.access_mode,
            ttl,
            bind: written.bind.clone(),
            scopes: written.scopes.clone(),
        });
    }
    sessions
}

fn check_credentials(written: &SessionSpec, spec: &Spec, at: &str, around: &Around<'_>, problems: &mut Problems) {
    let list = join(at, "credentials");
    let kept = (0..).map(|index| format!("{list}[{index}]")).filter(|at| !around.left_out.contains(at));
    let mut earlier = BTreeSet::new();
    for (at, name) in kept.zip(&written.credentials) {
        let is_known =
            spec.credentials.contains_key(name) || around.left_out.contains(&join("credentials", name.as_str()));
        if !is_known && !around.left_out.contains("credentials") {
            problems.add(&at, Problem::UnknownCredential);
        }
        if !earlier.insert(name) {
            problems.add(&at, Problem::Twice);
        }
    }
}

/// A scope narrows what its credential may give, and nothing else.
fn check_scopes(
    written: &SessionSpec,
    by_name: &BTreeMap<&Name, &Credential>,
    at: &str,
    around: &Around<'_>,
    problems: &mut Problems,
) {
    for (name, scope) in &written.scopes {
        let of_session = at;
        let at = join(&join(of_session, "scopes"), name.as_str());
        if !written.credentials.contains(name) && !around.is_incomplete(&join(of_session, "credentials")) {
            problems.add(at, Problem::ScopeUnused);
            continue;
        }
        // One that could not be read is told of where it stands.
        let Some(credential) = by_name.get(name) else { continue };
        match credential.scope() {
            None if credential.lookup.is_empty() => {}
            None => problems.add(at, Problem::NotScopable),
            Some(most) => {
                if let Err(why) = most.narrowed(scope) {
                    problems.add(at, why.into());
                }
            }
        }
    }
}

/// Two credentials of one session that fill one variable: the agent would have either.
fn check_variables(written: &SessionSpec, by_name: &BTreeMap<&Name, &Credential>, at: &str, problems: &mut Problems) {
    let names: BTreeSet<_> = written.credentials.iter().collect();
    let mut earlier: BTreeMap<_, Vec<(&Name, &AgentValue)>> = BTreeMap::new();
    for credential in names.into_iter().filter_map(|name| by_name.get(name)) {
        for variable in &credential.agent_env {
            let others = earlier.entry(&variable.name).or_default();
            // One URL for both is none too many.
            let clashes = |(_, theirs): &&(&Name, &AgentValue)| {
                !matches!(theirs, AgentValue::GatewayUrl { .. }) || **theirs != variable.value
            };
            if let Some((other, _)) = others.iter().find(clashes) {
                let (one, two) = ((*other).clone(), credential.name.clone());
                problems.add(join(at, "credentials"), Problem::VariableTwice(one, two, variable.name.clone()));
            }
            others.push((&credential.name, &variable.value));
        }
    }
}
