//! `attache`, the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// A grant is made in one thread and recorded in another, which glibc's allocator pays for at each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    attache_broker::cli::run()
}
