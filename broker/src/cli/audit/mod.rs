//! `attache audit …`: reads the log itself; no broker has to run.

mod head;
mod query;
mod show;
mod tail;
mod verify;

use super::common::{Common, FAILED, complain};
use super::config;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long a line may stay unfinished while a broker is writing it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The audit log: what was used, refused, issued and changed
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The log [default: the config's]
    #[arg(long, global = true, value_name = "FILE")]
    path: Option<PathBuf>,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// Print the last records
    Tail {
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: usize,
        /// Go on as records come
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the records that all these hold for, oldest first
    Query(query::QueryArgs),
    /// Check that no record was changed, dropped, inserted or swapped; with --head, that none was cut off
    Verify(verify::VerifyArgs),
    /// Print how far the log reaches, signed: an anchor to keep elsewhere, for `verify --head`
    Head {
        /// The hash before the first record, where older files have been moved away
        #[arg(long, value_name = "HASH")]
        after: Option<String>,
    },
}

/// Does what the arguments say.
pub async fn run(args: AuditArgs, common: &Common) -> ExitCode {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => match config::load(common) {
            Ok(config) => config.audit.path,
            Err(code) => return code,
        },
    };
    let done = match args.command {
        AuditCommand::Tail { lines, follow } => tail::tail(&path, lines, follow, common.json).await,
        AuditCommand::Query(args) => query::query(&path, &args, common.json),
        AuditCommand::Verify(args) => verify::check(&path, args, common),
        AuditCommand::Head { after } => head::head(&path, after, common).await,
    };
    done.unwrap_or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => complain(
            FAILED,
            format_args!(
                "no audit log at {}: no broker of this instance has run; --instance-id, --config or --path names another",
                path.display()
            ),
        ),
        _ => complain(FAILED, format_args!("{}: {error}", path.display())),
    })
}
