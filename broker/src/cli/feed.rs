//! `attache feed …`: who follows the change feed, and what it told.

use super::client::{Client, ClientError, failed};
use super::common::{Common, say};
use super::table::table;
use crate::api::view::{ChangeView, WorkerView};
use crate::clock::{Now, rfc3339};
use std::process::ExitCode;
use std::time::Duration;

/// The change feed: which workers follow it, and what they were told
#[derive(Debug, clap::Args)]
pub struct FeedArgs {
    #[command(subcommand)]
    command: FeedCommand,
}

#[derive(Debug, clap::Subcommand)]
enum FeedCommand {
    /// List workers: those that follow, and those that did in the last week
    Workers,
    /// List the last changes, newest first: sessions and credentials whose grants became void
    Changes {
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        lines: usize,
    },
}

/// Does what the arguments say.
pub async fn run(args: FeedArgs, common: &Common) -> ExitCode {
    let client = match Client::of(common) {
        Ok(client) => client,
        Err(code) => return code,
    };
    match act(args.command, &client, common.json).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

async fn act(command: FeedCommand, client: &Client, json: bool) -> Result<(), ClientError> {
    match command {
        FeedCommand::Workers => {
            let workers: Vec<WorkerView> = client.read("/v1/workers").await?;
            if json {
                say(serde_json::to_string_pretty(&workers).unwrap_or_default());
            } else {
                let now = Now::read();
                let rows: Vec<_> = workers.iter().map(|worker| worker_row(worker, now)).collect();
                say(table(&["ID", "STATE", "BEHIND", "SEEN", "FIRST SEEN"], &rows));
            }
        }
        FeedCommand::Changes { lines } => {
            let mut changes: Vec<ChangeView> = client.read("/v1/changes").await?;
            changes.truncate(lines);
            if json {
                say(serde_json::to_string_pretty(&changes).unwrap_or_default());
            } else {
                let rows: Vec<_> = changes.iter().map(change_row).collect();
                say(table(&["TOLD", "KIND", "SCOPE", "EPOCH", "CURSOR"], &rows));
            }
        }
    }
    Ok(())
}

fn worker_row(worker: &WorkerView, now: Now) -> Vec<String> {
    let ago = Duration::from_secs(now.wall_ms.saturating_sub(worker.last_seen_ms) / 1000);
    vec![
        worker.id.clone(),
        if worker.live { "live" } else { "gone" }.to_owned(),
        worker.behind.map_or_else(|| "-".to_owned(), |behind| behind.to_string()),
        format!("{} ago", humantime::format_duration(ago)),
        rfc3339(worker.first_seen_ms),
    ]
}

fn change_row(change: &ChangeView) -> Vec<String> {
    let ChangeView { epoch, cursor, kind, scope, told_ms } = change;
    vec![rfc3339(*told_ms), kind.clone(), scope.clone(), epoch.clone(), cursor.to_string()]
}
