//! 1Password: by whom it is asked, and which references name something.

use super::{Around, Problems, period};
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::spec::{SourceSpec, Spec};
use crate::config::{Connect, Lookup, OnePassword, OnePasswordConfig, SourcesConfig};
use attache_core::names::Name;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const AT: &str = "sources.onepassword";

/// How 1Password is asked, where that is enabled.
pub(super) fn resolve(
    spec: &Spec,
    file_dir: &Path,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<OnePasswordConfig> {
    let written = &spec.sources.onepassword;
    for name in written.references.keys() {
        let is_known = spec.credentials.contains_key(name) || around.is_incomplete(&join("credentials", name.as_str()));
        if !is_known && !around.left_out.contains("credentials") {
            problems.add(join(&join(AT, "references"), name.as_str()), Problem::UnknownCredential);
        }
    }
    let second = Duration::from_secs(1);
    // A Connect server is ours, and counts nothing; what `op` asks is counted by the hour and by the day.
    let (default, least, bounds) = match &written.connect {
        Some(_) => (60 * second, second, "a length of time from 1s to 24h"),
        None => (600 * second, 30 * second, "a length of time from 30s to 24h"),
    };
    let at = "sources.onepassword.refresh";
    let refresh = period(&written.refresh, default, least..=86_400 * second, (at, bounds), problems);
    let op = written.op_path.as_deref().unwrap_or("op");
    let op = if op.contains('/') { around.path(op, &join(AT, "op_path"), problems) } else { PathBuf::from(op) };
    let connect = written.connect.as_ref().map(|connect| {
        let ca_file = connect.ca_file.as_ref();
        Arc::new(Connect {
            address: connect.address.0.clone(),
            token: connect.token.at(file_dir),
            ca_file: ca_file.map(|file| around.path(file, &join(AT, "connect.ca_file"), problems)),
        })
    });
    let enabled = written.enabled.unwrap_or(connect.is_some());
    enabled.then_some(OnePasswordConfig { op, connect, refresh })
}

/// What the credential, or `references`, names in 1Password.
pub(super) fn secret(
    source: Option<&SourceSpec>,
    (name, at): (&Name, &str),
    (spec, sources): (&Spec, &SourcesConfig),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Lookup> {
    let own = source.and_then(|source| source.onepassword.as_ref());
    let others = spec.sources.onepassword.references.get(name);
    let at = join(at, "onepassword");
    if own.is_some() && others.is_some() {
        problems.add(&at, Problem::ReferredTwice);
    }
    if own.is_some() && sources.onepassword.is_none() && !around.is_incomplete(AT) {
        problems.add(&at, Problem::NoOnePassword);
    }
    let OnePasswordConfig { op, connect, refresh } = sources.onepassword.clone()?;
    let reference = own.or(others)?.0.clone();
    if connect.is_some() && reference.contains('?') {
        let at = if own.is_some() { at } else { join(&join(AT, "references"), name.as_str()) };
        problems.add(at, Problem::NoAttributes);
    }
    Some(Lookup::OnePassword(OnePassword { reference, op, connect, refresh }))
}
