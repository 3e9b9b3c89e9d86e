//! `attache credential …`: how credentials stand. Never a value.

mod set;

use super::client::{Client, ClientError, failed};
use super::common::{Common, FAILED, complain, say};
use super::table::table;
use crate::api::view::Reloaded;
use crate::clock::Now;
use crate::leases::{Rung, Standing};
use attache_core::names::Name;
use http::Method;
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
    /// List credentials: rung of the ladder, source, fingerprint, age, expiry, when it is asked for anew, on how many workers it is in force, last error
    List,
    /// Ask a credential's source now: whether it has the secret, and if not, why and what mends that
    Test {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
    },
    /// Write a credential's secret, from standard input, into its file: 0600, and sealed where the config has a seal
    Set {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
    },
    /// Look at a credential's source now, and return when no worker uses an older version
    #[command(visible_alias = "rotate")]
    Reload {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
    },
}

/// Does what the arguments say.
pub async fn run(args: CredentialArgs, common: &Common) -> ExitCode {
    if let CredentialCommand::Set { name } = &args.command {
        return set::run(name, common).await;
    }
    let client = match Client::of(common) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let done = match args.command {
        CredentialCommand::List => list(&client, common.json).await,
        CredentialCommand::Test { name } => test(&client, &name, common.json).await,
        CredentialCommand::Set { .. } => Ok(ExitCode::SUCCESS),
        CredentialCommand::Reload { name } => reload(&client, &name, common.json).await,
    };
    done.unwrap_or_else(failed)
}

async fn list(client: &Client, json: bool) -> Result<ExitCode, ClientError> {
    let standings: Vec<Standing> = client.read("/v1/credentials").await?;
    if json {
        say(serde_json::to_string_pretty(&standings).unwrap_or_default());
    } else {
        let now = Now::read();
        let rows: Vec<_> = standings.iter().map(|standing| row(standing, now)).collect();
        say(table(&["NAME", "RUNG", "SOURCE", "FINGERPRINT", "AGE", "EXPIRES", "NEXT", "WORKERS", "ERROR"], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(client: &Client, name: &Name, json: bool) -> Result<ExitCode, ClientError> {
    let standing: Standing = client.change(Method::POST, &format!("/v1/credentials/{name}/test"), &()).await?;
    if json {
        say(serde_json::to_string_pretty(&standing).unwrap_or_default());
    }
    if let Some(error) = standing.error.as_ref().or(standing.trouble.as_ref()) {
        let fix = standing.fix.as_deref().map(|fix| format!("; {fix}")).unwrap_or_default();
        return Ok(complain(FAILED, format_args!("{name}: {error}{fix}")));
    }
    if !json {
        let now = Now::read();
        let (source, fingerprint) = (text(&standing.source), text(&standing.fingerprint));
        let since = age(&standing, now).map(|age| format!(", for {age}")).unwrap_or_default();
        let until = expiry(&standing, now).map(|left| format!(", {left}")).unwrap_or_default();
        let rung = standing.rung.map(|rung| format!(" ({})", rung.as_str())).unwrap_or_default();
        say(format_args!("{name} is version {fingerprint}{rung}, from {source}{since}{until}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A credential that has no secret now is a failure, in force as it is.
async fn reload(client: &Client, name: &Name, json: bool) -> Result<ExitCode, ClientError> {
    let path = format!("/v1/credentials/{name}/reload");
    let done: Reloaded = client.change(Method::POST, &path, &()).await?;
    let fingerprint = done.credential.fingerprint.as_deref().unwrap_or("none");
    if json {
        say(serde_json::to_string_pretty(&done).unwrap_or_default());
    } else {
        say(format_args!("{name} is version {fingerprint}: {}", done.applied));
    }
    Ok(match &done.credential.error {
        None => ExitCode::SUCCESS,
        Some(error) => complain(FAILED, format_args!("{name}: {error}")),
    })
}

fn row(standing: &Standing, now: Now) -> Vec<String> {
    vec![
        standing.name.to_string(),
        standing.rung.map_or("-", Rung::as_str).to_owned(),
        text(&standing.source),
        text(&standing.fingerprint),
        text(&age(standing, now)),
        text(&expiry(standing, now)),
        text(&standing.next_ms.map(|next| format!("in {}", seconds(next.saturating_sub(now.wall_ms))))),
        standing.workers.to_string(),
        standing.error.as_ref().or(standing.trouble.as_ref()).cloned().unwrap_or_default(),
    ]
}

fn text(cell: &Option<String>) -> String {
    cell.clone().unwrap_or_else(|| "-".into())
}

fn age(standing: &Standing, now: Now) -> Option<String> {
    standing.since_ms.map(|since| seconds(now.wall_ms.saturating_sub(since)))
}

fn expiry(standing: &Standing, now: Now) -> Option<String> {
    standing.expires_ms.map(|expires| match expires.checked_sub(now.wall_ms) {
        Some(left) => format!("in {}", seconds(left)),
        None => "expired".to_owned(),
    })
}

fn seconds(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}
