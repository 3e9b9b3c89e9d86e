//! `attache state …`: how the state directory is sealed, and by another key. No broker may run for that.

use super::common::{Common, FAILED, USAGE, complain, note, say};
use super::config;
use super::table::table;
use crate::clock::rfc3339;
use crate::config::{Config, SealedBy};
use crate::hygiene;
use crate::private_file::{PrivateDir, PrivateError, create_private};
use crate::seal::envelope::Form;
use crate::seal::files::{self, Kind};
use crate::seal::keyring::Wrap;
use crate::seal::rekey::{Change, Done, Step, by_keys, rekey};
use crate::seal::unlock::{Lock, lost};
use crate::seal::{FILE, Key, Keyring, Means, UnlockError};
use crate::sources::{Environment, Transit};
use crate::state_dir::{Locked, StateDirError};
use attache_core::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// The state directory: what in it is sealed, and by what
#[derive(Debug, clap::Args)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, clap::Subcommand)]
enum StateCommand {
    /// Show by what it is sealed, and which of its secret files are plain; never a key
    Show,
    /// Seal it by what the config names now: every file that is plain or under another key. The broker must not run.
    /// What was interrupted goes on where it was
    Rekey(RekeyArgs),
    /// Make a key for `state.seal`: into a new file, 0600, or to standard output
    NewKey {
        /// The file
        file: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct RekeyArgs {
    /// The key that it is sealed by now, if the config names another already
    #[arg(long, value_name = "FILE")]
    old_key_file: Option<PathBuf>,
    /// The same, in a variable of this command's environment
    #[arg(long, value_name = "VARIABLE")]
    old_key_env: Option<String>,
    /// Make another data key, too, and seal every file anew: where the old one may be known
    #[arg(long, conflicts_with = "plain")]
    data_key: bool,
    /// Take the seal off: every file is plain again
    #[arg(long)]
    plain: bool,
}

/// Why it is not sealed anew.
#[derive(Debug, thiserror::Error)]
enum RekeyError {
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error("the broker (process {0}) runs: stop it, and run this again")]
    Runs(String),
    #[error("{} is not there: instance {instance} has no state yet, and nothing to seal; is it the right one \
             (--instance-id, --config)?", path.display())]
    NoState { path: PathBuf, instance: String },
    #[error("by what? Write `state: {{seal: …}}` in the config, or take the seal off: --plain")]
    NoSeal,
}

/// Does what the arguments say.
pub async fn run(args: StateArgs, common: &Common) -> ExitCode {
    if let Err(error) = hygiene::apply() {
        return complain(FAILED, error);
    }
    if crate::telemetry::init(Some(std::env::var("ATTACHE_LOG").as_deref().unwrap_or("warn"))).is_err() {
        return complain(USAGE, "ATTACHE_LOG: not a log level");
    }
    if let StateCommand::NewKey { file } = args.command {
        return new_key(file.as_deref(), common.json);
    }
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match args.command {
        StateCommand::Show => match shown(&config) {
            Ok(shown) => show(&shown, common.json),
            Err(error) => complain(FAILED, error),
        },
        StateCommand::Rekey(args) => match change(&config, &args).await {
            Ok(done) => {
                let code = tell(&done, common.json);
                if done.by.is_none() && config.seal.is_some() {
                    note("the config still names a seal: remove state.seal, or the next start seals again");
                }
                code
            }
            Err(error) => complain(FAILED, error),
        },
        StateCommand::NewKey { .. } => ExitCode::SUCCESS,
    }
}

fn new_key(file: Option<&Path>, json: bool) -> ExitCode {
    let key = match Key::make() {
        Ok(key) => key,
        Err(error) => return complain(FAILED, error),
    };
    // All its room at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(64));
    STANDARD.encode_string(key.bytes(), &mut text);
    text.push('\n');
    let Some(file) = file else {
        say(text.trim_end());
        return ExitCode::SUCCESS;
    };
    match create_private(file, text.as_bytes()) {
        Ok(true) if json => say(serde_json::json!({"file": file, "id": key.id()})),
        Ok(true) => say(format_args!("key {} is in {}", key.id(), file.display())),
        Ok(false) => return complain(FAILED, format_args!("{} is there already, and stays as it is", file.display())),
        Err(error) => return complain(FAILED, error),
    }
    ExitCode::SUCCESS
}

async fn change(config: &Config, args: &RekeyArgs) -> Result<Done, RekeyError> {
    if PrivateDir::open(&config.state_dir).map_err(StateDirError::from)?.is_none() {
        return Err(RekeyError::NoState { path: config.state_dir.clone(), instance: config.instance.to_string() });
    }
    let locked = match Locked::take(&config.state_dir) {
        Err(StateDirError::InUse { pid, .. }) => return Err(RekeyError::Runs(pid)),
        locked => locked?,
    };
    let dir = locked.dir();
    let _sealing = Lock::take(dir).await?;
    let environment = Environment::read(config, &|name| std::env::var_os(name));
    let mut from = old_keys(args)?;
    let keyring = Keyring::load(dir, &config.instance).map_err(UnlockError::from)?;
    let mut to = None;
    match &config.seal {
        None if !args.plain => return Err(RekeyError::NoSeal),
        None => {}
        Some(seal @ (SealedBy::File(_) | SealedBy::Env(_))) => match Means::of(seal, &environment) {
            Ok(means) => to = Some(means),
            // The old one may do without.
            Err(_) if args.plain && !from.is_empty() => {}
            Err(error) => return Err(UnlockError::from(error).into()),
        },
        Some(SealedBy::Transit { .. }) => {}
    }
    if let Some(keyring) = &keyring {
        let keys: Vec<_> = from.iter().chain(&to).collect();
        if let Some(sealer) = by_keys(config, keyring, &keys).await? {
            // What logs in to an OpenBao may be sealed itself.
            environment.seal(sealer);
        }
        from.extend(by_transit(config, keyring, &environment));
    }
    if let (None, Some(seal @ SealedBy::Transit { .. })) = (&to, &config.seal) {
        to = Some(Means::of(seal, &environment).map_err(UnlockError::from)?);
    }
    if args.plain {
        from.extend(to.take());
    }
    let change = Change { config, dir, to: to.as_ref(), from: &from, data_key: args.data_key };
    let mut told = |step| {
        if let Step::Moved(path) = step {
            tracing::info!(file = %path.display(), "moved");
        }
    };
    let done = rekey(&change, &mut told).await;
    for means in from.iter().chain(&to) {
        means.leave().await;
    }
    Ok(done?)
}

fn old_keys(args: &RekeyArgs) -> Result<Vec<Means>, UnlockError> {
    let mut from = Vec::new();
    if let Some(file) = &args.old_key_file {
        from.push(Means::in_file(file)?);
    }
    if let Some(name) = &args.old_key_env {
        let value = config::environment(name).filter(|value| !value.is_empty()).map(Secret::new);
        from.push(Means::in_variable(value.as_ref(), format!("env {name}"))?);
    }
    Ok(from)
}

/// The keys of transit by which it is sealed now, in the OpenBao that the config names.
fn by_transit(config: &Config, keyring: &Keyring, environment: &Environment) -> Vec<Means> {
    let Some(server) = &config.sources.openbao else { return Vec::new() };
    let wraps = keyring.keys.iter().flat_map(|kept| &kept.wraps);
    let mut named: Vec<_> = wraps
        .filter_map(|wrap| match wrap {
            Wrap::Transit { mount, key, .. } => Some((mount, key)),
            Wrap::Key { .. } => None,
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    let transit =
        |(mount, key): (&String, &String)| Means::Transit(Transit::new(environment.of_openbao(server), mount, key));
    named.into_iter().map(transit).collect()
}

fn tell(done: &Done, json: bool) -> ExitCode {
    if json {
        say(serde_json::json!({
            "sealed_by": done.by, "data_key": done.data_key, "moved": done.moved, "left_plain": done.left,
        }));
        return ExitCode::SUCCESS;
    }
    let files = if done.moved == 1 { "1 file".to_owned() } else { format!("{} files", done.moved) };
    match (&done.by, &done.data_key) {
        (Some(by), Some(key)) => say(format_args!("sealed by {by}, data key {key}; {files} made anew")),
        _ => say(format_args!("not sealed; {files} made plain")),
    }
    if done.by.is_some() {
        for path in &done.left {
            note(format_args!("{} is plain: the config does not name it, and so it was left as it is", path.display()));
        }
    }
    ExitCode::SUCCESS
}

/// How it stands.
#[derive(Debug, Serialize)]
struct Shown {
    instance: String,
    state_dir: PathBuf,
    /// Where the config says that its key is.
    configured: Option<String>,
    /// Which key is there; or why there is none.
    configured_key: Option<String>,
    /// What opens the data key.
    sealed_by: Vec<String>,
    data_key: Option<String>,
    since: Option<String>,
    /// Whether a change of keys has to be ended.
    unfinished: bool,
    /// Why what is sealed does not open: its data keys are not there.
    trouble: Option<String>,
    files: Vec<ShownFile>,
}

#[derive(Debug, Serialize)]
struct ShownFile {
    path: PathBuf,
    is: &'static str,
    data_key: Option<String>,
    remark: &'static str,
}

fn shown(config: &Config) -> Result<Shown, UnlockError> {
    let dir = PrivateDir::open(&config.state_dir)?;
    let keyring = match &dir {
        Some(dir) => Keyring::load(dir, &config.instance)?,
        None => None,
    };
    let files = files::all(config)?.into_iter().map(|file| {
        let (is, data_key) = match file.form()? {
            Some(Form::Plain) | None => ("plain", None),
            Some(Form::Sealed(key)) => ("sealed", Some(key)),
            Some(Form::Newer) => ("sealed by a newer attache", None),
            Some(Form::Damaged) => ("damaged", None),
        };
        let remark = match (file.kind, is) {
            _ if config.seal.is_none() => "",
            (Kind::Own, "plain") => "sealed when the broker starts",
            (Kind::Named, "plain") => "sealed by `attache state rekey`",
            (Kind::Other, "plain") => "the config does not name it",
            (Kind::Plain, _) => "logs in to what opens all others, and stays plain",
            _ => "",
        };
        Ok(ShownFile { path: file.path, is, data_key, remark })
    });
    let mut files = files.collect::<Result<Vec<_>, PrivateError>>()?;
    files.extend(files::leftovers(config)?.into_iter().map(|path| {
        let remark = "a kill has left it: erased by `attache state rekey`";
        ShownFile { path, is: "left over", data_key: None, remark }
    }));
    // As `serve` would say it.
    let trouble = if keyring.is_none() { lost(config).err().map(|error| error.to_string()) } else { None };
    let current = keyring.as_ref().and_then(|keyring| keyring.kept(&keyring.current));
    Ok(Shown {
        instance: config.instance.to_string(),
        state_dir: config.state_dir.clone(),
        configured: config.seal.as_ref().map(SealedBy::place),
        configured_key: config.seal.as_ref().and_then(configured_key),
        sealed_by: current.map(|kept| kept.wraps.iter().map(Wrap::by).collect()).unwrap_or_default(),
        data_key: keyring.as_ref().map(|keyring| keyring.current.clone()),
        since: keyring.as_ref().map(|keyring| rfc3339(keyring.since_ms)),
        unfinished: keyring.as_ref().is_some_and(Keyring::is_moving),
        trouble,
        files,
    })
}

fn configured_key(seal: &SealedBy) -> Option<String> {
    let means = match seal {
        SealedBy::File(path) => Means::in_file(path),
        SealedBy::Env(name) => {
            let value = config::environment(name).filter(|value| !value.is_empty()).map(Secret::new);
            Means::in_variable(value.as_ref(), seal.place())
        }
        SealedBy::Transit { .. } => return None,
    };
    Some(means.map_or_else(|error| error.to_string(), |means| means.name()))
}

fn show(shown: &Shown, json: bool) -> ExitCode {
    if json {
        say(serde_json::to_string_pretty(shown).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    say(format_args!("instance {}, state in {}", shown.instance, shown.state_dir.display()));
    match (&shown.configured, &shown.configured_key) {
        (None, _) => say("the config names no seal"),
        (Some(place), None) => say(format_args!("the config names {place}")),
        (Some(place), Some(key)) => say(format_args!("the config names {place}: {key}")),
    }
    match (&shown.data_key, &shown.since) {
        (Some(key), Some(since)) => {
            let by = shown.sealed_by.join(" and ");
            say(format_args!("sealed by {by}, data key {key}, since {since} ({FILE})"));
        }
        _ => say(shown.trouble.as_deref().unwrap_or("not sealed")),
    }
    if shown.unfinished {
        say("a change of keys has begun and not ended: run `attache state rekey` again");
    }
    let row = |file: &ShownFile| {
        let key = file.data_key.as_deref().unwrap_or("-").to_owned();
        vec![file.path.display().to_string(), file.is.to_owned(), key, file.remark.to_owned()]
    };
    let rows: Vec<_> = shown.files.iter().map(row).collect();
    if !rows.is_empty() {
        say(table(&["FILE", "IS", "DATA KEY", ""], &rows));
    }
    ExitCode::SUCCESS
}
