//! `attache serve`: the broker, in the foreground, until it is told to end.

use super::common::{Common, FAILED, complain};
use super::config;
use super::hand_over::{HandOver, HandOverError};
use crate::config::Config;
use crate::envoy::{self, Version};
use crate::sources::Environment;
use crate::{StartError, Workers, hygiene, telemetry};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Run the broker alone
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Write what an Envoy needs that has this directory and no other of the broker's: gateway.yaml,
    /// forward-proxy.yaml, the filter, the token, certificates; listen.data_plane is to be in it
    #[arg(long, value_name = "DIR")]
    pub envoy_dir: Option<PathBuf>,
    /// The Envoy that will read them
    #[arg(long, value_name = "VERSION", default_value = envoy::TESTED_VERSION, requires = "envoy_dir")]
    pub envoy_version: Version,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    HandOver(#[from] HandOverError),
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs, common: &Common) -> ExitCode {
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
    match serve(args, config, &environment, told_to_end).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILED, error),
    }
}

async fn serve(
    args: ServeArgs,
    config: Config,
    environment: &Environment,
    told_to_end: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Some(dir) = args.envoy_dir else {
        return Ok(crate::serve(config, environment, told_to_end).await?);
    };
    let hand_over = HandOver::prepare(&dir, args.envoy_version, &config)?;
    let mut told_to_end = std::pin::pin!(told_to_end);
    let Some(running) = crate::start_unless(&mut told_to_end, config.clone(), environment).await? else {
        return Ok(());
    };
    let handed = hand_over.complete(&config, |warning| tracing::warn!("{warning}"));
    if handed.is_ok() {
        tracing::info!(dir = %dir.display(), "Envoy has what it needs");
        told_to_end.await;
        tracing::info!("ending");
    }
    running.shutdown(Workers::MayLive).await;
    Ok(handed?)
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
