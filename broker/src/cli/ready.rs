//! `attache ready`: whether the running broker can grant, and what stands in the way. For probes, and for people.

use super::client::{Client, failed};
use super::common::{Common, FAILED, say};
use crate::api::{Condition, Dependency, Readiness};
use std::process::ExitCode;

/// Ask the running broker whether it can grant: exit code 0 or 1
#[derive(Debug, clap::Args)]
pub struct ReadyArgs {}

/// Asks, and says what is not well.
pub async fn run(_: ReadyArgs, common: &Common) -> ExitCode {
    let client = match Client::of(common) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let readiness = match client.readiness().await {
        Ok(readiness) => readiness,
        Err(error) => return failed(error),
    };
    if common.json {
        say(serde_json::to_string_pretty(&readiness).unwrap_or_default());
    } else {
        say(told(&readiness));
    }
    if readiness.ready { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn told(readiness: &Readiness) -> String {
    let head = if readiness.ready { "ready" } else { "not ready" };
    let troubled = readiness.dependencies.iter().filter(|one| one.state != Condition::Ok).map(told_of);
    [format!("{head}: {} workers", readiness.workers)].into_iter().chain(troubled).collect::<Vec<_>>().join("\n")
}

/// Sentences, a line each.
fn told_of(one: &Dependency) -> String {
    let state = match one.state {
        Condition::Ok => "ok",
        Condition::Waiting => "waiting",
        Condition::Failed => "failed",
    };
    let reason = one.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let fix = one.fix.as_ref().map(|fix| format!("\n  fix: {fix}")).unwrap_or_default();
    format!("{} {state}{reason}{fix}", one.name)
}
