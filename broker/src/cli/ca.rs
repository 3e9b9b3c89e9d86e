//! `attache ca …`: the authority whose certificates clients are shown. Never its key.
//!
//! A running broker is asked. Where none runs, this process takes the state directory for a moment: an
//! authority can be made, and trusted, before anything is started.

use super::client::{Client, ClientError, failed};
use super::common::{Common, FAILED, complain, note, say};
use super::table::table;
use super::{config, runtime};
use crate::api::view::RotateAuthority;
use crate::ca::{AuthorityState, AuthorityView, Ca, CaError, LONGEST_OVERLAP, bundle};
use crate::clock::{millis, rfc3339};
use crate::envoy::find;
use crate::sources::Environment;
use crate::state_dir::StateDir;
use http::Method;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The certificate authority of a forward proxy: what clients have to trust
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CaCommand {
    /// Show the authority, and during a rotation each of them: its name, fingerprint and time, and which one signs
    Show,
    /// Print the certificates that clients have to trust, PEM
    Export {
        /// With those that the system trusts: for SSL_CERT_FILE and its like, which replace them
        #[arg(long)]
        bundle: bool,
    },
    /// Make the next authority. Both are trusted from now on; it signs when the overlap is over
    Rotate {
        /// How long the old one signs yet: the time in which clients learn to trust the new one
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = overlap)]
        overlap: Duration,
    },
}

/// Does what the arguments say.
pub async fn run(args: CaArgs, common: &Common) -> ExitCode {
    match args.command {
        CaCommand::Show => told(ask(common, Ask::Show).await, |all| show(all, common.json)),
        CaCommand::Export { bundle } => told(ask(common, Ask::Show).await, |all| export(all, bundle)),
        CaCommand::Rotate { overlap } => told(ask(common, Ask::Rotate(overlap)).await, |all| show(all, common.json)),
    }
}

#[derive(Clone, Copy)]
enum Ask {
    Show,
    Rotate(Duration),
}

/// Asks the broker, or, where none runs, the state directory.
async fn ask(common: &Common, what: Ask) -> Result<Vec<AuthorityView>, ExitCode> {
    let client = Client::at(runtime::control(common)?);
    let answer = match what {
        Ask::Show => client.read("/v1/ca").await,
        Ask::Rotate(overlap) => {
            let body = RotateAuthority { overlap_ms: Some(millis(overlap)) };
            client.change(Method::POST, "/v1/ca/rotate", &body).await
        }
    };
    match answer {
        Err(ClientError::NotRunning { .. }) if common.runtime.is_none() => alone(common, what).await,
        answer => answer.map_err(failed),
    }
}

async fn alone(common: &Common, what: Ask) -> Result<Vec<AuthorityView>, ExitCode> {
    let config = config::load(common)?;
    let is_new = !config.state_dir.join("ca.key").exists();
    let environment = Environment::read(&config, &|name| std::env::var_os(name));
    let opened = StateDir::unlock(&config, &environment).await;
    let (state_dir, unlocked) = opened.map_err(|error| complain(FAILED, error))?;
    unlocked.leave().await;
    let ca = Ca::open(Arc::new(state_dir), &config, &config.policy(), None);
    let done = match (ca, what) {
        (Err(error), _) => Err(error),
        (Ok(ca), Ask::Show) => ca.show().await,
        (Ok(ca), Ask::Rotate(overlap)) => ca.rotate(overlap).await,
    };
    if is_new && done.is_ok() {
        note(format_args!(
            "no broker runs, and instance {} had no authority: this one was made now, in {}. If that is not the one \
             you mean, say which: --config, --instance-id, --state-dir",
            config.instance,
            config.state_dir.display()
        ));
    }
    done.map_err(|error: CaError| complain(FAILED, error))
}

fn told(done: Result<Vec<AuthorityView>, ExitCode>, tell: impl FnOnce(&[AuthorityView]) -> ExitCode) -> ExitCode {
    done.map_or_else(|code| code, |all| tell(&all))
}

fn show(all: &[AuthorityView], json: bool) -> ExitCode {
    if json {
        say(serde_json::to_string_pretty(all).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    say(table(&["SUBJECT", "SIGNS", "VALID FROM", "UNTIL", "FOR", "SHA-256"], &rows));
    ExitCode::SUCCESS
}

fn row(view: &AuthorityView) -> Vec<String> {
    let signs = match view.state {
        AuthorityState::Signs => "now".to_owned(),
        AuthorityState::Next => format!("from {}", rfc3339(view.signs_from_ms)),
        AuthorityState::Retired => "no more".to_owned(),
    };
    let names = view.permitted.as_ref().map_or_else(|| "any host".to_owned(), |names| names.join(","));
    vec![
        view.subject.clone(),
        signs,
        rfc3339(view.not_before_ms),
        rfc3339(view.not_after_ms),
        names,
        view.fingerprint.clone(),
    ]
}

fn export(all: &[AuthorityView], with_system: bool) -> ExitCode {
    let ours: String = all.iter().map(|view| view.certificate.as_str()).collect();
    if !with_system {
        say(ours.trim_end());
        return ExitCode::SUCCESS;
    }
    let roots = match find::system_roots() {
        Ok(roots) => roots,
        Err(error) => return complain(FAILED, error),
    };
    match bundle(&roots, &ours) {
        Ok(all) => {
            say(all.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, error),
    }
}

fn overlap(text: &str) -> Result<Duration, &'static str> {
    let length = humantime::parse_duration(text).ok().filter(|length| *length <= LONGEST_OVERLAP);
    length.ok_or("expected a length of time up to 30 days, such as 24h or 0s")
}
