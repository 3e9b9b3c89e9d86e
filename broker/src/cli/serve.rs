//! `attache serve`: the broker, in the foreground, until it is told to end.

use super::common::{Common, FAILED, complain};
use super::config;
use crate::sources::Environment;
use crate::{hygiene, telemetry};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Run the broker alone
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}

/// Serves until SIGTERM or SIGINT.
pub async fn run(_: ServeArgs, common: &Common) -> ExitCode {
    if let Err(error) = hygiene::apply() {
        return complain(FAILED, error);
    }
    if let Err(error) = telemetry::init(std::env::var("ATTACHE_LOG").ok().as_deref()) {
        return complain(FAILED, format_args!("ATTACHE_LOG: {error}"));
    }
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut environment = Environment::read(&config, &|name| std::env::var_os(name));
    environment.take_delivery(&config, std::io::stdin());
    let told_to_end = match told_to_end() {
        Ok(told_to_end) => told_to_end,
        Err(error) => return complain(FAILED, error),
    };
    match crate::serve(config, &environment, told_to_end).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILED, error),
    }
}

/// Ready when the process is told to end. The handlers are in place when this returns.
pub fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
