//! `attache`, the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    attache_broker::cli::run().await
}
