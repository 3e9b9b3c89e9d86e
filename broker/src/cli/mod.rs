//! The command line. One subcommand, one file; this one only chooses.

pub mod common;

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
enum Command {}

/// Reads the command line and does what it says.
pub async fn run() -> ExitCode {
    let Cli { common: _, command } = Cli::parse();
    match command {}
}
