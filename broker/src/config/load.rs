//! From a file, or from nothing, to a [`Config`].

use super::error::{ConfigError, ConfigErrors, Problem};
use super::spec::{CredentialSpec, SessionSpec, Spec};
use super::{Bind, Config, presets, reader, resolve, tree, written};
use attache_core::names::Name;
use attache_core::policy::{AccessMode, Policy};
use attache_core::wire::MOST_POLICY_BYTES;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// No config is longer, in bytes: 10,000 credentials, each with its destination, take 4 MB.
const MAX_LEN: u64 = 16 << 20;

/// What a policy grows by while the broker runs, at most, in bytes: by the evidence that new sessions demand.
const ROOM: usize = 1 << 10;

/// What the command line says in place of the config.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The instance.
    pub instance: Option<Name>,
    /// The directory that holds one sub-directory per instance; relative to where the command runs.
    pub state_dir: Option<PathBuf>,
}

impl Config {
    /// Reads the config at `path`, else the first of [`Config::fallback_paths`] that exists, else
    /// makes one of the presets whose secrets are at hand, with one session `default`.
    ///
    /// Relative paths in a file are read from its directory, those of the embedded default from
    /// the working directory. Reports all errors at once.
    pub fn load(
        path: Option<&Path>,
        overrides: &Overrides,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let file =
            path.map(Path::to_owned).or_else(|| Self::fallback_paths(env).into_iter().find(|path| path.exists()));
        match file {
            Some(file) => from_file(&file, overrides, env),
            None => embedded(overrides, env),
        }
    }

    /// Where a config is looked for when none is named. Never the working directory: whoever can
    /// write there could send credentials anywhere.
    pub fn fallback_paths(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let home = env("HOME").map(|home| Path::new(&home).join(".attache/attache.yaml"));
        home.into_iter().chain([PathBuf::from("/etc/attache/attache.yaml")]).collect()
    }
}

fn from_file(file: &Path, overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    let alone = |place, problem| {
        ConfigErrors(vec![ConfigError { file: Some(file.to_owned()), place, path: String::new(), problem }])
    };
    let text = read_text(file).map_err(|problem| alone(None, problem))?;
    let root = tree::parse(&text).map_err(|error| alone(error.place, Problem::Syntax(error.message)))?;

    let reading = reader::read::<Spec>(&root);
    let error = |path, place, problem| ConfigError { file: Some(file.to_owned()), place: Some(place), path, problem };
    let faults = reading.faults.into_iter();
    let mut errors: Vec<_> =
        faults.map(|fault| error(fault.path, fault.place, Problem::Field(fault.message))).collect();
    let mut config = None;
    if let Some(spec) = &reading.value {
        let left_out = &reading.left_out;
        let around = resolve::Around { dir: &directory_of(file), env, overrides, mesh: spec.mesh, left_out };
        let (resolved, found) = resolve::resolve(spec, &around);
        errors.extend(found.into_iter().map(|(path, problem)| {
            let place = root.place_of(&path);
            error(path, place, problem)
        }));
        config = Some(resolved);
    }
    match config {
        Some(config) if errors.is_empty() => runnable(config).map_err(|problem| alone(None, problem)),
        _ => {
            errors.sort_by_key(|error| error.place.map(|place| (place.line, place.column)));
            Err(ConfigErrors(errors))
        }
    }
}

/// What filters will do with the policy is done with it before it is published: they refuse one that
/// does not compile, or is too long, and everything else until they have another.
fn runnable(config: Config) -> Result<Config, Problem> {
    let policy = config.policy();
    let length = written(&policy).len();
    if length + ROOM > MOST_POLICY_BYTES {
        return Err(Problem::PolicyTooLong(length));
    }
    Policy::compile(policy)?;
    Ok(config)
}

fn read_text(file: &Path) -> Result<String, Problem> {
    let opened = std::fs::File::open(file).map_err(Problem::Unreadable)?;
    let meta = opened.metadata().map_err(Problem::Unreadable)?;
    if meta.is_file() && meta.permissions().mode() & 0o002 != 0 {
        return Err(Problem::WritableByAll);
    }
    let mut text = String::new();
    opened.take(MAX_LEN + 1).read_to_string(&mut text).map_err(Problem::Unreadable)?;
    if text.len() as u64 > MAX_LEN { Err(Problem::TooLarge) } else { Ok(text) }
}

fn directory_of(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or_default()
}

/// The presets whose secret is at hand, and one session that may use them all.
fn embedded(overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    let around = resolve::Around { dir: Path::new("."), env, overrides, mesh: None, left_out: &BTreeSet::new() };
    let resolved = |spec: &Spec| match resolve::resolve(spec, &around) {
        (config, problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(ConfigErrors(
            problems
                .into_iter()
                .map(|(path, problem)| ConfigError { file: None, place: None, path, problem })
                .collect(),
        )),
    };
    let mut spec = Spec::default();
    let secrets = resolved(&spec)?.sources.file_dir;
    // Where everybody has the service elsewhere, nobody has said where it is.
    let is_somewhere = |preset: &&&str| presets::find(preset).is_some_and(|preset| !preset.destinations.is_empty());
    let known = presets::NAMES.iter().filter(is_somewhere);
    for (preset, name) in known.filter_map(|preset| Some((preset, Name::parse(preset).ok()?))) {
        let source = presets::find(preset).and_then(|preset| preset.source.as_ref());
        let in_env = source.and_then(|source| env(&source.env.as_ref()?.0)).is_some_and(|secret| !secret.is_empty());
        let in_file = source.and_then(|source| source.file.as_ref()).is_some_and(|file| secrets.join(&file.0).exists());
        if in_env || in_file {
            let credential = CredentialSpec { preset: Some((*preset).to_owned()), ..CredentialSpec::default() };
            spec.credentials.insert(name, credential);
        }
    }
    if let Ok(name) = Name::parse("default") {
        let credentials = spec.credentials.keys().cloned().collect();
        spec.sessions.push(SessionSpec {
            name,
            credentials,
            access_mode: AccessMode::default(),
            ttl: None,
            bind: Bind::default(),
            scopes: BTreeMap::new(),
        });
    }
    resolved(&spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::policy::EvidenceSpec;

    #[test]
    fn a_policy_that_no_filter_takes_is_never_published() {
        let env = |name: &str| (name == "OPENAI_API_KEY").then(|| "x".to_owned());
        let overrides = Overrides { state_dir: Some("/s".into()), ..Overrides::default() };
        let good = embedded(&overrides, &env).unwrap();
        assert!(runnable(good.clone()).is_ok());
        let mut bad = good;
        bad.credentials[0].destinations[0].paths = vec!["/v1/../".into()];
        let problem = runnable(bad).unwrap_err().to_string();
        assert!(problem.contains("no filter can run") && problem.contains("api.openai.com"), "{problem}");
    }

    #[test]
    fn a_policy_that_no_filter_reads_is_never_published() {
        let env = |name: &str| (name == "OPENAI_API_KEY").then(|| "x".to_owned());
        let overrides = Overrides { state_dir: Some("/s".into()), ..Overrides::default() };
        let of = |path: usize| {
            let mut config = embedded(&overrides, &env).unwrap();
            config.credentials[0].destinations[0].paths = vec![format!("/{}", "x".repeat(path))];
            config
        };
        let most = MOST_POLICY_BYTES - ROOM - (written(&of(1).policy()).len() - 1);
        assert!(runnable(of(most)).is_ok());
        let problem = runnable(of(most + 1)).unwrap_err().to_string();
        let length = MOST_POLICY_BYTES - ROOM + 1;
        assert!(problem.contains(&format!("has {length} bytes")) && problem.contains("33554432"), "{problem}");
    }

    #[test]
    fn there_is_room_for_all_evidence_that_sessions_may_demand() {
        let all = EvidenceSpec { peer: true, source: true, listener: true, identity_headers: Vec::new() };
        assert!(serde_json::to_vec(&all).unwrap().len() + "\"evidence\":,".len() < ROOM);
    }
}
