//! `attache envoy-config`: the bootstrap of this config's Envoy, on standard output.

use super::common::{Common, FAILED, USAGE, complain, note, say};
use super::config;
use super::hand_over::KEPT;
use crate::config::{Config, Endpoint};
use crate::envoy::{self, ADMIN_SOCKET, Admin, Machine, Shape, TOKEN_FILE, Version, find, sidecar};
use crate::state_dir::CACHE;
use attache_core::names::Name;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Print an Envoy bootstrap for this config
#[derive(Debug, clap::Args)]
pub struct EnvoyConfigArgs {
    /// How agents reach their destinations
    #[arg(long, value_enum, default_value = "gateway")]
    pub shape: Written,
    /// The session of a sidecar: declared in the config, and bound to a listener
    #[arg(long, value_name = "NAME", value_parser = Name::parse, required_if_eq("shape", "sidecar"))]
    pub session: Option<Name>,
    /// The Envoy that will read it
    #[arg(long, value_name = "VERSION", default_value = envoy::TESTED_VERSION)]
    pub envoy_version: Version,
    /// The language it is written in; --json chooses json too
    #[arg(long, value_enum, default_value = "yaml")]
    pub format: Format,
    /// Where it will read it
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// What the bootstrap says of the machine that Envoy runs on.
#[derive(Debug, clap::Args)]
pub struct MachineArgs {
    /// The filter's module, where Envoy finds it [default: the one `attache up` would use]
    #[arg(long, value_name = "FILE")]
    pub filter: Option<PathBuf>,
    /// The module's SHA-256 [default: that of the file, if it is here]
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub filter_sha256: Option<String>,
    /// PEM bundle of the authorities to trust [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub system_roots: Option<PathBuf>,
    /// Where Envoy's admin listens: a loopback IP:PORT or unix:PATH [default: in the state directory]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<Admin>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Written {
    /// Agents call a base URL on Envoy; each destination has a route and a cluster.
    Gateway,
    /// Agents name Envoy as their proxy (`HTTPS_PROXY`); TLS is intercepted.
    ForwardProxy,
    /// A gateway beside one agent, pinned to its session (--session).
    Sidecar,
}

/// The language of a bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// What is missing where the broker lets in by certificate, and no Envoy of ours would show one.
pub(super) const NO_CERTIFICATE: &str = "listen.data_plane asks Envoy for a certificate: say in listen.data_plane.envoy which one \
                                         it shows, and where it reaches the broker";

/// Prints the bootstrap.
pub async fn run(args: EnvoyConfigArgs, common: &Common) -> ExitCode {
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let shape = if args.shape == Written::ForwardProxy { Shape::ForwardProxy } else { Shape::Gateway };
    if let Err(error) = args.envoy_version.check(shape) {
        return complain(USAGE, error);
    }
    let listener = match (args.shape, &args.session) {
        (Written::Sidecar, Some(session)) => match sidecar::listener(&config, session) {
            Ok(listener) => Some(listener),
            Err(error) => return complain(USAGE, error),
        },
        (_, Some(_)) => return complain(USAGE, "--session: only a sidecar is pinned to one: --shape sidecar"),
        (_, None) => None,
    };
    if let Endpoint::Tls(door) = &config.listen.data_plane
        && door.envoy.is_none()
    {
        return complain(USAGE, NO_CERTIFICATE);
    }
    let machine = match args.machine.on_this_machine(&config, args.envoy_version) {
        Ok(machine) => Machine { listener, ..machine },
        Err(error) => return complain(FAILED, error),
    };
    let bootstrap = envoy::bootstrap(shape, &config, &config.policy(), &machine);
    let json = common.json || args.format == Format::Json;
    let lacks = args.envoy_version.lacks(shape, &config.sessions);
    let text = if json { serde_json::to_string_pretty(&bootstrap).ok() } else { envoy::to_yaml(&bootstrap, &lacks) };
    match text {
        Some(text) => {
            lacks.iter().for_each(note);
            if !is_pinned(&machine) {
                let digest = machine.filter_sha256.as_deref().unwrap_or("SHA256");
                note(format_args!(
                    "filter   whoever may replace {} decides what Envoy runs, and doctor warns of it (code-pinned): keep the \
                     module as {KEPT}{digest}.wasm, and name that with --filter",
                    machine.filter.display()
                ));
            }
            say(text.trim_end());
            ExitCode::SUCCESS
        }
        None => complain(FAILED, "the bootstrap cannot be written"),
    }
}

impl MachineArgs {
    /// Fills in what was not named from what is on this machine.
    pub fn on_this_machine(&self, config: &Config, envoy: Version) -> Result<Machine, find::NotFound> {
        let filter = self.filter.clone().map_or_else(|| Ok(kept(find::filter()?, config)), Ok)?;
        let system_roots = self.system_roots.clone().map_or_else(find::system_roots, Ok)?;
        let digest = |file: &Path| std::fs::read(file).ok().map(|module| find::sha256(&module));
        let admin = self.admin.clone().unwrap_or_else(|| Admin::Unix(config.state_dir.join(ADMIN_SOCKET)));
        Ok(Machine {
            filter_sha256: self.filter_sha256.clone().or_else(|| digest(&filter)),
            filter,
            system_roots,
            token: config.state_dir.join(TOKEN_FILE),
            admin,
            envoy,
            listener: None,
        })
    }
}

/// The copy that `attache up` has made of it, under a name that holds its digest, where there is one.
fn kept(found: PathBuf, config: &Config) -> PathBuf {
    let digest = std::fs::read(&found).map(|module| find::sha256(&module));
    let name = digest.map(|digest| format!("{KEPT}{digest}.wasm"));
    let copy = name.map(|name| config.state_dir.join(CACHE).join(name));
    copy.ok().filter(|copy| copy.is_file()).unwrap_or(found)
}

/// What doctor says of it, before it does.
fn is_pinned(machine: &Machine) -> bool {
    let name = machine.filter.file_name().unwrap_or_default().to_string_lossy();
    machine.filter_sha256.as_ref().is_some_and(|digest| name.contains(digest))
}

pub(super) fn sha256(text: &str) -> Result<String, &'static str> {
    let digits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { Ok(text.to_ascii_lowercase()) } else { Err("expected 64 hex digits") }
}
