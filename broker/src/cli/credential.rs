//! `attache credential …`: how credentials stand. Never a value.

mod set;

use super::client::{Client, ClientError, failed};
use super::common::{Common, FAILED, complain, say};
use super::table::table;
use crate::api::view::{Reloaded, Rotate, RotatedView, Rotating};
use crate::clock::{Now, rfc3339};
use crate::leases::{Rung, Standing};
use crate::rotation::RotationStanding;
use attache_core::names::Name;
use http::Method;
use std::process::ExitCode;

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
        /// Take the secret that a rotation has put aside instead: the new one that it could not put in place (which is
        /// then erased), or the old one that waits to be retired
        #[arg(long, value_name = "SIDE")]
        from: Option<set::Side>,
    },
    /// Look at a credential's source now, and return when no worker uses an older version
    Reload {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
    },
    /// Replace a credential's secret as its `rotation` in the config says, and return when no worker uses the old one; without such, reload
    Rotate {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
        /// Retire the old secret of the last rotation now, and make no new one
        #[arg(long)]
        retire_now: bool,
    },
}

/// Does what the arguments say.
pub async fn run(args: CredentialArgs, common: &Common) -> ExitCode {
    if let CredentialCommand::Set { name, from } = &args.command {
        return set::run(name, *from, common).await;
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
        CredentialCommand::Rotate { name, retire_now } => rotate(&client, &name, retire_now, common.json).await,
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
        say(table(&["NAME", "RUNG", "SOURCE", "FINGERPRINT", "AGE", "EXPIRES", "NEXT", "ROTATES", "WORKERS"], &rows));
        // Sentences: beneath, where they widen nothing.
        for (name, error, fix) in standings.iter().filter_map(wrong) {
            say(format_args!("\n{name}: {error}"));
            fix.into_iter().for_each(|fix| say(format_args!("  fix: {fix}")));
        }
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
        let (source, version) = (text(&standing.source), version(&standing));
        let is = if standing.sessions.is_some() { "has given tokens to" } else { "is version" };
        let since = age(&standing, now).map(|age| format!(", known for {age}")).unwrap_or_default();
        let until = expiry(&standing, now).map(|left| format!(", ends {left}")).unwrap_or_default();
        let rung = standing.rung.map(|rung| format!(" ({})", rung.as_str())).unwrap_or_default();
        say(format_args!("{name} {is} {version}{rung}, from {source}{since}{until}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A credential that has no secret now is a failure, in force as it is.
async fn reload(client: &Client, name: &Name, json: bool) -> Result<ExitCode, ClientError> {
    let path = format!("/v1/credentials/{name}/reload");
    let done: Reloaded = client.change(Method::POST, &path, &()).await?;
    let sessions = done.credential.sessions.is_some();
    let none = done.credential.fingerprint.is_none() && !sessions;
    let version = if none { "none".to_owned() } else { version(&done.credential) };
    if json {
        say(serde_json::to_string_pretty(&done).unwrap_or_default());
    } else {
        let is = if sessions { "has given other tokens to" } else { "is version" };
        say(format_args!("{name} {is} {version}: {}", done.applied));
    }
    Ok(match &done.credential.error {
        None => ExitCode::SUCCESS,
        Some(error) => complain(FAILED, format_args!("{name}: {error}")),
    })
}

async fn rotate(client: &Client, name: &Name, retire_now: bool, json: bool) -> Result<ExitCode, ClientError> {
    let path = format!("/v1/credentials/{name}/rotate");
    let done: RotatedView = client.change(Method::POST, &path, &Rotate { retire_now }).await?;
    if json {
        say(serde_json::to_string_pretty(&done).unwrap_or_default());
    } else {
        let (new, old) = (text(&done.credential.fingerprint), text(&done.old));
        let applied = done.applied.as_ref().map(|applied| format!(": {applied}")).unwrap_or_default();
        match done.what {
            Rotating::Rotated => {
                let until =
                    done.retire_ms.map_or("is retired".into(), |until| format!("is good until {}", rfc3339(until)));
                say(format_args!("{name} is version {new}{applied}\nthe one of before, {old}, {until}"));
            }
            Rotating::Retired => say(format_args!("{name} is version {new}; the one of before, {old}, is retired")),
            Rotating::Nothing => say(format_args!("{name} is version {new}; no secret of before waits to be retired")),
            Rotating::Reloaded => say(format_args!(
                "the config has no rotation for {name}: its source was looked at, as by reload\n{name} is version \
                 {new}{applied}"
            )),
        }
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
        version(standing),
        text(&age(standing, now)),
        text(&expiry(standing, now)),
        text(&standing.next_ms.map(|next| format!("in {}", seconds(next.saturating_sub(now.wall_ms))))),
        text(&standing.rotation.as_ref().map(|rotation| rotates(rotation, now))),
        standing.workers.to_string(),
    ]
}

/// What keeps it from being used; else, from being read anew; else, from being replaced. And what mends that.
fn wrong(standing: &Standing) -> Option<(&Name, &String, Option<&String>)> {
    if let Some(error) = standing.error.as_ref().or(standing.trouble.as_ref()) {
        return Some((&standing.name, error, standing.fix.as_ref()));
    }
    let rotation = standing.rotation.as_ref()?;
    Some((&standing.name, rotation.error.as_ref()?, rotation.fix.as_ref()))
}

fn rotates(rotation: &RotationStanding, now: Now) -> String {
    let left = |until: u64| seconds(until.saturating_sub(now.wall_ms));
    match rotation {
        RotationStanding { failures: 1.., retry_ms: Some(retry), .. } => format!("fails, again in {}", left(*retry)),
        RotationStanding { retire_ms: Some(retire), .. } => format!("old retired in {}", left(*retire)),
        RotationStanding { next_ms: Some(next), .. } => format!("in {}", left(*next)),
        RotationStanding { .. } => "when asked".to_owned(),
    }
}

/// Which version it is; where each session has its own, how many have one.
fn version(standing: &Standing) -> String {
    match standing.sessions {
        Some(1) => "1 session".to_owned(),
        Some(sessions) => format!("{sessions} sessions"),
        None => text(&standing.fingerprint),
    }
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

/// Its two largest units: `4d 19h`, `2m 5s`.
fn seconds(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let first = units.iter().position(|(_, count)| *count > 0).unwrap_or(3);
    let shown = units.iter().skip(first).take(2).filter(|(_, count)| *count > 0);
    let shown: Vec<_> = shown.map(|(unit, count)| format!("{count}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_told_by_its_two_largest_units() {
        for (seconds, told) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3_725, "1h 2m"), (2_591_997, "29d 23h"), (86_405, "1d")]
        {
            assert_eq!(super::seconds(seconds * 1000 + 999), told);
        }
    }
}
