//! `attache`, the command.
#![forbid(unsafe_code)]

use attache_broker::cli::common::{FAILED, complain};
use std::process::ExitCode;
use std::time::Duration;

/// How long is waited at the end for what still blocks: a write to a pipe that nobody reads, say.
const LAST_CALLS: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, error),
    };
    let code = runtime.block_on(attache_broker::cli::run());
    runtime.shutdown_timeout(LAST_CALLS);
    code
}
