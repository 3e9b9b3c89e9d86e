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
pub mod openapi;
pub mod runtime;
pub mod schema;
pub mod serve;
pub mod session;
pub mod table;
pub mod up;

pub use common::Common;

use clap::Parser;
use std::process::ExitCode;

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
    Check(check::CheckArgs),
    Session(session::SessionArgs),
    Credential(credential::CredentialArgs),
    Feed(feed::FeedArgs),
    Audit(audit::AuditArgs),
    Ca(ca::CaArgs),
    EnvoyConfig(envoy_config::EnvoyConfigArgs),
    Schema(schema::SchemaArgs),
    Openapi(openapi::OpenapiArgs),
    Doctor(doctor::DoctorArgs),
    #[command(name = crate::envoy::process::BECOME_ENVOY, hide = true)]
    BecomeEnvoy(up::BecomeEnvoyArgs),
}

/// Reads the command line and does what it says.
pub async fn run() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    match command {
        Command::Up(args) => up::run(args, &common).await,
        Command::Serve(args) => serve::run(args, &common).await,
        Command::Check(args) => check::run(args, &common).await,
        Command::Session(args) => session::run(args, &common).await,
        Command::Credential(args) => credential::run(args, &common).await,
        Command::Feed(args) => feed::run(args, &common).await,
        Command::Audit(args) => audit::run(args, &common).await,
        Command::Ca(args) => ca::run(args, &common).await,
        Command::EnvoyConfig(args) => envoy_config::run(args, &common).await,
        Command::Schema(args) => schema::run(args, &common).await,
        Command::Openapi(args) => openapi::run(args, &common).await,
        Command::Doctor(args) => doctor::run(args, &common).await,
        Command::BecomeEnvoy(args) => up::become_envoy(args),
    }
}
