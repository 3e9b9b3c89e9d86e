//! `attache credential …`: how credentials stand. Never a value.

use super::client::{Client, failed};
use super::common::{Common, say};
use super::table::table;
use crate::clock::Now;
use crate::leases::Standing;
use std::process::ExitCode;
use std::time::Duration;

/// Credentials: where they come from, which version is in use; never their values
#[derive(Debug, clap::Args)]
pub struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CredentialCommand {
    /// List credentials: source, fingerprint, age, last error
    List,
}

/// Does what the arguments say.
pub async fn run(args: CredentialArgs, common: &Common) -> ExitCode {
    let client = match Client::of(common) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let CredentialCommand::List = args.command;
    let standings: Vec<Standing> = match client.read("/v1/credentials").await {
        Ok(standings) => standings,
        Err(error) => return failed(error),
    };
    if common.json {
        say(serde_json::to_string_pretty(&standings).unwrap_or_default());
    } else {
        let now = Now::read();
        let rows: Vec<_> = standings.iter().map(|standing| row(standing, now)).collect();
        say(table(&["NAME", "SOURCE", "FINGERPRINT", "AGE", "ERROR"], &rows));
    }
    ExitCode::SUCCESS
}

fn row(standing: &Standing, now: Now) -> Vec<String> {
    let age = standing.since_ms.map(|since| now.wall_ms.saturating_sub(since) / 1000);
    let age = age.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string());
    let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".into());
    vec![
        standing.name.to_string(),
        text(&standing.source),
        text(&standing.fingerprint),
        text(&age),
        standing.error.clone().unwrap_or_default(),
    ]
}
