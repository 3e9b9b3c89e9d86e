//! `attache up`: broker, filter and a local Envoy in the foreground; prints what agents need.

use super::client::Client;
use super::common::{Common, FAILED, complain, note, proxy_url, proxy_variables, say};
use super::config;
use super::envoy_config::{MachineArgs, NO_CERTIFICATE};
use super::hand_over::{FilterError, keep_filter};
use super::session::export;
use crate::api::control::SESSION_TOKEN_ENV;
use crate::api::view::Variable;
use crate::config::{Config, Endpoint, Lookup, presets};
use crate::doctor::{EnvoyConfig, Unsafe, vet};
use crate::envoy::admin::AdminUrl;
use crate::envoy::find::{self, NotFound};
use crate::envoy::process::{self, Process, ProcessError};
use crate::envoy::{self, Admin, Shape, Version, VersionError};
use crate::leases::Standing;
use crate::private_file::{PrivateDir, PrivateError};
use crate::sources::Environment;
use crate::{Running, StartError, Workers, hygiene, telemetry};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Run broker, filter and a local Envoy in the foreground; print what agents need
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// How agents reach their destinations
    #[arg(long, value_enum, default_value = "gateway")]
    pub shape: Shape,
    /// The machine
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// (internal) Become Envoy, and end with the process that asked for it
#[derive(Debug, clap::Args)]
#[command(name = process::BECOME_ENVOY, hide = true)]
pub struct BecomeEnvoyArgs {
    /// The process to end with
    pub parent: u32,
    /// Envoy's binary and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error("nothing to do: no credential. {}", hint_at_presets())]
    NoCredential,
    #[error(transparent)]
    Hygiene(#[from] hygiene::HygieneError),
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("{}: {error}", binary.display())]
    Version { binary: PathBuf, error: VersionError },
    #[error("{NO_CERTIFICATE}")]
    NoCertificate,
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("the generated bootstrap is unsafe, and Envoy was not started:\n{0}")]
    Unsafe(#[from] Unsafe),
    #[error(transparent)]
    Envoy(#[from] ProcessError),
    #[error(
        "{0} is in use, perhaps by another `attache up`: end that one, or choose another address: \
         `listen: {{proxy: 127.0.0.1:PORT}}` in the config"
    )]
    InUse(SocketAddr),
    #[error("listen.proxy cannot be {0}: {1}")]
    NoPort(SocketAddr, io::Error),
    #[error("Envoy does not say where it listens: {} may say why", .0.display())]
    NoListener(PathBuf),
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// Runs until Ctrl-C or SIGTERM. Exit code 1 when something ends before that.
pub async fn run(args: UpArgs, common: &Common) -> ExitCode {
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    // Quiet unless asked: what matters is printed.
    if telemetry::init(Some(std::env::var("ATTACHE_LOG").as_deref().unwrap_or("warn"))).is_err() {
        return complain(super::common::USAGE, "ATTACHE_LOG: not a log level");
    }
    match up(args, config, common).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILED, error),
    }
}

/// Becomes Envoy; comes back only if that fails.
pub fn become_envoy(args: BecomeEnvoyArgs) -> ExitCode {
    complain(FAILED, format_args!("becoming Envoy: {}", process::exec_with_parent(args.parent, &args.command)))
}

async fn up(args: UpArgs, mut config: Config, common: &Common) -> Result<(), UpError> {
    if config.credentials.is_empty() {
        return Err(UpError::NoCredential);
    }
    if matches!(&config.listen.data_plane, Endpoint::Tls(door) if door.envoy.is_none()) {
        return Err(UpError::NoCertificate);
    }
    hygiene::apply()?;
    let binary = find::envoy()?;
    let version = envoy_version(&binary, args.shape, &config)?;
    // Known before anything runs: agents' URLs name it.
    config.listen.proxy = chosen(config.listen.proxy)?;
    config.listen.shape = Some(args.shape);
    note(format_args!("config   {}", found(&config, common)));
    note(format_args!("state    {}", config.state_dir.display()));
    config.cautions().iter().for_each(|caution| note(format_args!("warning  {caution}")));

    // Nobody reaches it through the proxy.
    if let Some(Admin::Tcp(address)) = args.machine.admin {
        config.listen.admin = Some(address);
    }

    let mut interrupt = signal(SignalKind::interrupt()).map_err(UpError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(UpError::Signals)?;
    let mut environment = Environment::read(&config, &|name| std::env::var_os(name));
    environment.take_delivery(&config, std::io::stdin());
    let ended = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let Some(broker) = crate::start_unless(ended, config.clone(), &environment).await? else { return Ok(()) };
    note(format_args!("broker   data plane on {}", broker.data_plane));

    let started = tokio::select! {
        started = envoy(&args, &mut config, &broker, (&binary, version)) => started.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
    };
    let ended = match started {
        Ok(Some(mut envoy)) => {
            let announced = announce(args.shape, &envoy, &config, common).await;
            let ended = match announced {
                Err(error) => Err(error),
                Ok(()) => tokio::select! {
                    error = envoy.ended() => Err(error.into()),
                    _ = interrupt.recv() => Ok(()),
                    _ = terminate.recv() => Ok(()),
                },
            };
            let died = ended.is_err();
            let delivered = envoy.stop(|| (broker.uses(), broker.forwarded())).await && !died;
            (ended, if delivered { Workers::Delivered } else { Workers::Gone })
        }
        Ok(None) => (Ok(()), Workers::Gone),
        Err(error) => (Err(error), Workers::Gone),
    };
    let (ended, workers) = ended;
    broker.shutdown(workers).await;
    ended
}

/// Generates the bootstrap, has doctor look at it, and starts Envoy on it.
async fn envoy(
    args: &UpArgs,
    config: &mut Config,
    broker: &Running,
    (binary, version): (&Path, Version),
) -> Result<Process, UpError> {
    if let Some(address) = broker.data_plane_address {
        config.listen.data_plane = config.listen.data_plane.bound(address);
    }
    let dir = PrivateDir::open_or_create(&config.state_dir)?;
    let mut machine = args.machine.on_this_machine(config, version)?;
    let cache = PrivateDir::open_or_create(&broker.runtime.cache_dir)?;
    (machine.filter, machine.filter_sha256) = keep_filter(&machine.filter, machine.filter_sha256, &cache)?;
    note(format_args!("filter   {}", machine.filter.display()));

    let bootstrap = envoy::bootstrap(args.shape, config, &config.policy(), &machine);
    vet(&EnvoyConfig::from_bootstrap(&bootstrap), |warning| note(format_args!("doctor   {warning}")))?;
    note(format_args!("envoy    {} ({version})", binary.display()));
    Ok(Process::start(binary, &bootstrap, AdminUrl::from(&machine.admin), &dir).await?)
}

/// Which Envoy this is, if it can serve the shape; says what it lacks.
fn envoy_version(binary: &Path, shape: Shape, config: &Config) -> Result<Version, UpError> {
    let version = process::version(binary)?;
    version.check(shape).map_err(|error| UpError::Version { binary: binary.to_owned(), error })?;
    version.lacks(shape, &config.sessions).iter().for_each(|lacks| note(format_args!("warning  {lacks}")));
    Ok(version)
}

async fn announce(shape: Shape, envoy: &Process, config: &Config, common: &Common) -> Result<(), UpError> {
    let proxy = envoy.proxy().await.ok_or_else(|| UpError::NoListener(envoy.log().to_owned()))?;
    let broker = Client::at(config.listen.control.clone());
    let mut sessions = Vec::new();
    for session in &config.sessions {
        // A declared session may have been revoked, or have expired.
        let variables: Option<Vec<Variable>> = broker.read(&format!("/v1/sessions/{}/env", session.name)).await.ok();
        sessions.extend(variables.map(|mut variables| {
            if shape == Shape::ForwardProxy {
                variables.extend(told_of_proxy(proxy, &variables));
            }
            (&session.name, variables)
        }));
    }
    if common.json {
        let env = |variables: &[Variable]| -> serde_json::Map<String, serde_json::Value> {
            variables.iter().map(|variable| (variable.name.clone(), variable.value.clone().into())).collect()
        };
        say(serde_json::json!({
            "ready": true,
            "proxy": proxy,
            "envoy_pid": envoy.id(),
            "state_dir": config.state_dir,
            "sessions": sessions.iter().map(|(name, variables)| {
                serde_json::json!({"name": name, "env": env(variables)})
            }).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    note(format_args!("ready    http://{proxy} (Ctrl-C ends it)"));
    let standings: Vec<Standing> = broker.read("/v1/credentials").await.unwrap_or_default();
    for standing in standings {
        if let Some(error) = standing.error {
            let fix = standing.fix.map(|fix| format!(": {fix}")).unwrap_or_default();
            note(format_args!("warning  {} cannot be used yet: {error}{fix}", standing.name));
        }
    }
    if shape == Shape::ForwardProxy {
        note(format_args!("run      attache run --session NAME -- COMMAND sets all of this, and what clients trust"));
    }
    let mut out = String::new();
    for (name, variables) in sessions {
        let _ = writeln!(out, "\n# session {name}");
        for variable in &variables {
            let _ = writeln!(out, "{}", export(variable));
        }
    }
    say(out.trim_end());
    Ok(())
}

/// What tells clients of their proxy, and the proxy of its clients.
fn told_of_proxy(proxy: SocketAddr, variables: &[Variable]) -> Vec<Variable> {
    let token = variables.iter().find(|variable| variable.name == SESSION_TOKEN_ENV);
    let url = token.map(|token| proxy_url(&token.value, proxy));
    let all = url.iter().flat_map(|url| proxy_variables(url));
    all.map(|(name, value)| Variable { name, value }).collect()
}

/// The address, its port chosen now if the config leaves that open. Nobody may have it yet: Envoy would share it
/// with another Envoy of this user, and each would get some of the other's agents.
fn chosen(proxy: SocketAddr) -> Result<SocketAddr, UpError> {
    let bound = std::net::TcpListener::bind(proxy).and_then(|listener| listener.local_addr());
    bound.map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => UpError::InUse(proxy),
        _ => UpError::NoPort(proxy, cause),
    })
}

/// Where the config comes from; without a file, what was found of the presets' secrets.
fn found(config: &Config, common: &Common) -> String {
    let fallback = || Config::fallback_paths(&config::environment).into_iter().find(|path| path.exists());
    if let Some(file) = common.config.clone().or_else(fallback) {
        return file.display().to_string();
    }
    let is_set = |variable: &&str| config::environment(variable).is_some_and(|secret| !secret.is_empty());
    let at = |lookup: &Lookup| {
        let file = lookup.file().filter(|path| path.exists()).map(|path| path.display().to_string());
        file.or_else(|| lookup.variable().filter(is_set).map(str::to_owned))
    };
    let secrets = config.credentials.iter().filter_map(|credential| credential.lookup.iter().find_map(at));
    format!("none; found {}", secrets.collect::<Vec<_>>().join(", "))
}

fn hint_at_presets() -> String {
    // Of the others nobody knows where they belong but a config.
    let with_hosts =
        presets::NAMES.iter().filter_map(|name| presets::find(name)).filter(|preset| !preset.destinations.is_empty());
    let variables: BTreeSet<_> =
        with_hosts.filter_map(|preset| Some(preset.source.as_ref()?.env.as_ref()?.0.as_str())).collect();
    let variables: Vec<_> = variables.into_iter().collect();
    let here = if Path::new("attache.yaml").exists() {
        " An attache.yaml here is read when it is named: --config attache.yaml."
    } else {
        ""
    };
    format!("Set one of {}, or write a config (README.md, \"A config\").{here}", variables.join(", "))
}
