//! `attache`, the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    attache_broker::cli::run()
}
