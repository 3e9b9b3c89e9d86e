//! `attache run`: a child with placeholders and a proxy, and a session that ends with it.

mod cell;
mod child;
pub(super) mod outfit;
mod permission;
mod relay;
mod signals;

use super::client::{Client, ClientError};
use super::common::{Common, FAILED, complain, note};
use super::variable::NoVariable;
use crate::api::view::Outfit;
use crate::config::TokenScope;
use crate::envoy::{Shape, process};
use crate::random::NoRandomness;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use cell::{CellError, Plan};
use child::{Child, End};
use outfit::CaFile;
use permission::Permission;
use rustix::process::{Signal, geteuid};
use signals::Signals;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The hidden subcommand that becomes a child which is not isolated.
pub const BECOME_CHILD: &str = "become-child";
/// The hidden subcommand that leaves our namespaces.
pub const BECOME_CELL: &str = "become-cell";
/// The hidden subcommand that is the first process of the new ones.
pub const BECOME_INIT: &str = "become-init";

/// What no namespace changes: the files of root are those that the system runs.
const ROOT_IN_A_CELL: &str = "warning: the command is root as you are: in its cell, too, it may write what the system \
    runs (units, crontabs, programs). Run attache as another user to keep it from that";

/// Run a command with placeholders, behind the proxy; the session made for it ends with it
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The session it runs in; it is left alone when the command ends
    #[arg(long, value_name = "NAME", value_parser = Name::parse, required_unless_present = "credentials",
        conflicts_with_all = ["credentials", "access_mode"])]
    session: Option<Name>,
    /// A credential of the session that is made for it; say it once for each
    #[arg(long = "credential", value_name = "NAME", value_parser = Name::parse)]
    credentials: Vec<Name>,
    /// What that session may do: read-only or read-write
    #[arg(long, value_name = "MODE", value_parser = super::session::access_mode, default_value = "read-write")]
    access_mode: AccessMode,
    /// What that session's own token of a credential may reach, as for `attache session create`
    #[arg(long = "scope", value_name = "CREDENTIAL={…}", value_parser = super::session::scope,
        conflicts_with = "session")]
    scopes: Vec<(Name, TokenScope)>,
    /// Whether it runs in namespaces of its own, where the proxy is the only way out
    #[arg(long, value_enum, default_value = "auto")]
    isolate: Isolate,
    /// A directory that it does not get to see, beside attache's own; say it once for each
    #[arg(long, value_name = "DIR")]
    hide: Vec<PathBuf>,
    /// Where Envoy listens [default: the broker's listen.proxy]
    #[arg(long, value_name = "IP:PORT")]
    proxy: Option<SocketAddr>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Isolate {
    /// Where the kernel lets us; else with a warning, without
    Auto,
    /// Or not at all
    Always,
    /// Not
    Never,
}

/// (internal) Become a part of `attache run`, and end with the process that asked for it
#[derive(Debug, clap::Args)]
pub struct BecomeArgs {
    /// The process to end with
    parent: u32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// (internal) Become the first process of a cell, which no process id of ours means anything to
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(transparent)]
    NoVariable(#[from] NoVariable),
    #[error("{0}")]
    Scopes(String),
    #[error("the certificates cannot be written for the command: {0}")]
    CaFile(#[source] io::Error),
    #[error(
        "what listens at {0} is a gateway, and a command needs a proxy: start `attache up --shape forward-proxy` in its \
         place, or say with --proxy where one listens"
    )]
    Gateway(SocketAddr),
    #[error("--hide {}: there is no such directory", .0.display())]
    NothingToHide(PathBuf),
    #[error("the broker does not know where Envoy listens (listen.proxy has port 0): say it with --proxy")]
    NoProxy,
    #[error("--isolate always: {0}")]
    Cell(#[from] CellError),
    #[error(transparent)]
    Changed(CellError),
    #[error("signals cannot be passed on: {0}")]
    Signals(#[source] io::Error),
    #[error("the system gives this process no event loop: {0}")]
    Executor(#[source] io::Error),
    #[error("this process cannot be shut to other processes of its user: {0}")]
    Open(#[source] io::Error),
    #[error("the command's process cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("the command cannot be waited for: {0}")]
    Wait(#[source] io::Error),
}

/// Runs the command, and ends as it does.
pub fn run(args: RunArgs, common: &Common) -> ExitCode {
    let client = match Client::of(common) {
        Ok(client) => client,
        Err(code) => return code,
    };
    match run_with(args, &client) {
        Ok(End::Code(code)) => ExitCode::from(code),
        // As shells say it.
        Ok(End::Signal(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        Err(error) => complain(FAILED, error),
    }
}

fn run_with(args: RunArgs, client: &Client) -> Result<End, RunError> {
    // While there is one thread: all that are made later inherit what is masked.
    signals::mask().map_err(RunError::Signals)?;
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Executor)?;
    // What this process knows (the session's token) is for its child, not for its user's other processes.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| RunError::Open(error.into()))?;
    executor.block_on(async {
        let mut signals = Signals::new().map_err(RunError::Signals)?;
        run_in_session(args, client, &mut signals).await
    })
}

async fn run_in_session(args: RunArgs, client: &Client, signals: &mut Signals) -> Result<End, RunError> {
    // Nothing to wait for: what has begun is ended by the broker when we are gone.
    let permission = tokio::select! {
        biased;
        signal = signals.deadly() => return Ok(End::Signal(signal)),
        permission = Permission::obtain(&args, client) => permission?,
    };
    let running = async {
        let (outfit, proxy, ca) = tokio::select! {
            biased;
            signal = signals.deadly() => return Ok(End::Signal(signal)),
            prepared = prepare(&args, client, permission.session()) => prepared?,
        };
        run_prepared(&args, &outfit, proxy, &ca, signals).await
    };
    let ran = running.await;
    if let Err(error) = permission.end(client).await {
        note(format_args!("the session is not ended yet: {error}; it ends by itself within two minutes"));
    }
    ran
}

/// All that a child is started with.
async fn prepare(
    args: &RunArgs,
    client: &Client,
    session: &Name,
) -> Result<(Outfit, SocketAddr, Option<CaFile>), RunError> {
    let outfit: Outfit = client.read(&format!("/v1/sessions/{session}/outfit")).await?;
    let proxy = reachable(args.proxy.unwrap_or(outfit.proxy)).ok_or(RunError::NoProxy)?;
    if args.proxy.is_none() && outfit.shape == Some(Shape::Gateway) {
        return Err(RunError::Gateway(proxy));
    }
    // Of one that cannot be looked at, the cell says so.
    let is_nowhere = |dir: &&PathBuf| std::fs::metadata(dir).is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
    if let Some(nothing) = args.hide.iter().find(is_nowhere) {
        return Err(RunError::NothingToHide(nothing.clone()));
    }
    let ca = match outfit::ca_bundle(client).await? {
        Some(bundle) => Some(CaFile::write(&bundle).map_err(RunError::CaFile)?),
        None => {
            note("this broker makes no certificates: over TLS the command reaches no destination");
            None
        }
    };
    Ok((outfit, proxy, ca))
}

/// Where a listener is reached from this machine; `None` for one without a port.
fn reachable(listener: SocketAddr) -> Option<SocketAddr> {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (listener.port() != 0).then(|| SocketAddr::new(ip, listener.port()))
}

async fn run_prepared(
    args: &RunArgs,
    outfit: &Outfit,
    proxy: SocketAddr,
    ca: &Option<CaFile>,
    signals: &mut Signals,
) -> Result<End, RunError> {
    if args.isolate != Isolate::Never {
        // In there the same port of its own loopback leads to the proxy.
        let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        let plan = Plan::new(outfit, &args.hide, ca.as_ref(), inside);
        let command = become_(BECOME_CELL, args, outfit, inside, ca)?;
        let started = match plan {
            Ok(plan) => {
                // Before it can say anything itself.
                if geteuid().is_root() {
                    note(ROOT_IN_A_CELL);
                }
                cell::start(command, plan, ca.as_ref()).await
            }
            Err(error) => Err(error),
        };
        match started {
            Ok((child, listener)) => {
                let relay = tokio::spawn(relay::run(listener, proxy));
                let end = Child::Confined(child).run(signals).await;
                relay.abort();
                return end.map_err(RunError::Wait);
            }
            // Whoever did that, a command before this one perhaps, is not to be rewarded for it.
            Err(error @ (CellError::Replaced(_) | CellError::Shut(_))) => return Err(RunError::Changed(error)),
            Err(error) if args.isolate == Isolate::Always => return Err(error.into()),
            Err(error) => note(format_args!(
                "warning: the command is not isolated: {error}. It can read what you can, and reach the network past the \
                 proxy (--isolate always refuses instead)"
            )),
        }
    }
    let child = become_(BECOME_CHILD, args, outfit, proxy, ca)?.spawn().map_err(RunError::Start)?;
    Child::Plain(child).run(signals).await.map_err(RunError::Wait)
}

/// This program as one of its parts, with the child's environment to hand on.
fn become_(
    part: &str,
    args: &RunArgs,
    outfit: &Outfit,
    proxy: SocketAddr,
    ca: &Option<CaFile>,
) -> Result<Command, RunError> {
    let mut command = Command::new(std::env::current_exe().map_err(RunError::Start)?);
    command.arg(part).arg(std::process::id().to_string()).arg("--").args(&args.command);
    let inherited = |name: &str| std::env::var(name).ok();
    let environment = outfit::environment(outfit, proxy, ca.as_ref().map(CaFile::path), &inherited)?;
    environment.hand_on(std::env::vars_os(), &mut command);
    Ok(command)
}

/// Becomes the child; comes back only if that fails.
pub fn become_child(args: BecomeArgs) -> ExitCode {
    if let Err(error) = signals::unmask() {
        return complain(FAILED, error);
    }
    let Some((program, arguments)) = args.command.split_first() else { return ExitCode::from(FAILED) };
    let mut command = Command::new(program);
    outfit::dress(command.args(arguments));
    let error = process::end_with(args.parent, Signal::TERM).err().unwrap_or_else(|| command.exec());
    child::not_started(&args.command, &error)
}

/// Leaves our namespaces, and waits for who is in the new ones.
pub fn become_cell(args: BecomeArgs) -> ExitCode {
    cell::outside(args.parent, &args.command)
}

/// Is the first process in there.
pub fn become_init(args: InitArgs) -> ExitCode {
    cell::inside(&args.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(at("127.0.0.1:3030").as_deref(), Some("127.0.0.1:3030"));
        assert_eq!(at("0.0.0.0:3030").as_deref(), Some("127.0.0.1:3030"));
        assert_eq!(at("[::]:3030").as_deref(), Some("[::1]:3030"));
        assert_eq!(at("10.0.0.7:3030").as_deref(), Some("10.0.0.7:3030"));
        assert_eq!(at("127.0.0.1:0"), None);
    }
}
