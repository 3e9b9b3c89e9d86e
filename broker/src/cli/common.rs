//! What every subcommand shares: the global flags, the exit codes, and the two ways to speak.

use super::runtime::RuntimeAt;
use attache_core::names::Name;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Everything went well.
pub const OK: u8 = 0;
/// The command understood what was wanted and could not do it.
pub const FAILED: u8 = 1;
/// The command line makes no sense (clap's own code).
pub const USAGE: u8 = 2;
/// The config is wrong (`EX_USAGE` of sysexits.h, which many supervisors do not restart on).
pub const CONFIG: u8 = 64;

/// Flags that stand before or after any subcommand.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Common {
    /// The config file [default: ~/.attache/attache.yaml, else /etc/attache/attache.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "ATTACHE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The instance, in place of the config's
    #[arg(long, global = true, value_name = "NAME", value_parser = Name::parse, env = "ATTACHE_INSTANCE_ID")]
    pub instance_id: Option<Name>,
    /// The directory that holds one sub-directory per instance, in place of the config's
    #[arg(long, global = true, value_name = "DIR", env = "ATTACHE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The running broker: unix:PATH, its control socket, or its runtime.json [default: the config's]
    #[arg(long, global = true, value_name = "FILE|URL", env = "ATTACHE_RUNTIME_URL")]
    pub runtime: Option<RuntimeAt>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Where clients look for the proxy. Programs differ in the case they read; `ALL_PROXY` is for schemes
/// without a variable of their own: better a proxy that refuses them than a way past it.
pub const PROXY: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// The proxy as its clients are told of it, with the token of their session.
pub fn proxy_url(token: &str, proxy: impl std::fmt::Display) -> String {
    format!("http://attache:{token}@{proxy}")
}

/// Every variable that tells of a proxy, in both cases.
pub fn proxy_variables(url: &str) -> impl Iterator<Item = (String, String)> {
    let both = PROXY.into_iter().flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()]);
    both.map(move |name| (name, url.to_owned()))
}

/// Writes one answer to standard output. A reader that has gone away is not an error.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Writes one remark to standard error.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "attache: {text}");
}

/// Writes one complaint to standard error and returns the exit code for it.
pub fn complain(code: u8, text: impl std::fmt::Display) -> ExitCode {
    note(text);
    ExitCode::from(code)
}
