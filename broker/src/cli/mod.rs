//! The command line. One subcommand, one file; this one only chooses.

pub mod audit;
pub mod ca;
pub mod check;
pub mod client;
pub mod common;
pub mod config;
pub mod credential;
pub mod doctor;
pub mod envoy_config;
pub mod feed;
pub mod hand_over;
pub mod istio;
pub mod openapi;
pub mod ready;
pub mod run;
pub mod runtime;
pub mod schema;
pub mod serve;
pub mod session;
pub mod state;
pub mod table;
pub mod up;
pub mod variable;

pub use common::Common;

use clap::Parser;
use common::{FAILED, complain};
use std::process::ExitCode;
use std::time::Duration;

/// How long is waited at the end for what still blocks: a write to a pipe that nobody reads, say.
const LAST_CALLS: Duration = Duration::from_millis(200);

/// Attaché: agents call APIs with worthless placeholders; Envoy swaps in the real credential in flight.
#[derive(Parser)]
#[command(name = "attache", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Up(up::UpArgs),
    Serve(serve::ServeArgs),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Ready(ready::ReadyArgs),
    Session(session::SessionArgs),
    Credential(credential::CredentialArgs),
    Feed(feed::FeedArgs),
    Audit(audit::AuditArgs),
    Ca(ca::CaArgs),
    State(state::StateArgs),
    EnvoyConfig(envoy_config::EnvoyConfigArgs),
    Istio(istio::IstioArgs),
    Schema(schema::SchemaArgs),
    Openapi(openapi::OpenapiArgs),
    Doctor(doctor::DoctorArgs),
    #[command(name = crate::envoy::process::BECOME_ENVOY, hide = true)]
    BecomeEnvoy(up::BecomeEnvoyArgs),
    #[command(name = run::BECOME_CHILD, hide = true)]
    BecomeChild(run::BecomeArgs),
    #[command(name = run::BECOME_CELL, hide = true)]
    BecomeCell(run::BecomeArgs),
    #[command(name = run::BECOME_INIT, hide = true)]
    BecomeInit(run::InitArgs),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    match command {
        Command::Up(args) => on_executor(up::run(args, &common)),
        Command::Serve(args) => on_executor(serve::run(args, &common)),
        Command::Check(args) => on_executor(check::run(args, &common)),
        Command::Ready(args) => on_executor(ready::run(args, &common)),
        Command::Session(args) => on_executor(session::run(args, &common)),
        Command::Credential(args) => on_executor(credential::run(args, &common)),
        Command::Feed(args) => on_executor(feed::run(args, &common)),
        Command::Audit(args) => on_executor(audit::run(args, &common)),
        Command::Ca(args) => on_executor(ca::run(args, &common)),
        Command::State(args) => on_executor(state::run(args, &common)),
        Command::EnvoyConfig(args) => on_executor(envoy_config::run(args, &common)),
        Command::Istio(args) => istio::run(args, &common),
        Command::Schema(args) => on_executor(schema::run(args, &common)),
        Command::Openapi(args) => on_executor(openapi::run(args, &common)),
        Command::Doctor(args) => on_executor(doctor::run(args, &common)),
        // These are about processes: signals are masked, and namespaces left, while there is one thread.
        Command::Run(args) => run::run(args, &common),
        Command::BecomeEnvoy(args) => up::become_envoy(args),
        Command::BecomeChild(args) => run::become_child(args),
        Command::BecomeCell(args) => run::become_cell(args),
        Command::BecomeInit(args) => run::become_init(args),
    }
}

fn on_executor(work: impl Future<Output = ExitCode>) -> ExitCode {
    let executor = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(executor) => executor,
        Err(error) => return complain(FAILED, error),
    };
    let code = executor.block_on(work);
    executor.shutdown_timeout(LAST_CALLS);
    code
}
