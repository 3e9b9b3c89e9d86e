//! How a secret is replaced by schedule: written, and resolved.

use super::handed::{Handed, SecretAt};
use super::values::{Period, ServerUrl, Variable};
use crate::rotation::vet;
use schemars::JsonSchema;
use serde::Deserialize;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a secret is replaced: by a command, or by a hook.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RotationSpec {
    /// How often (default: only when `attache credential rotate` says so).
    pub every: Option<Period>,
    /// How long both the old secret and the new one are good at the service, from when no worker uses the old
    /// one (default `1h`). Then the old one is retired.
    pub overlap: Option<Period>,
    /// The command that makes a new secret and retires an old one: an absolute path and its arguments, as written.
    pub command: Option<Vec<String>>,
    /// What is asked over HTTP instead.
    pub hook: Option<HookSpec>,
    /// Variables of the broker's environment that the command gets besides `PATH` and `HOME`.
    pub env: Vec<Variable>,
    /// How long one run or one answer may take (default `1m`).
    pub timeout: Option<Period>,
}

/// What makes a new secret and retires an old one, asked over HTTP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookSpec {
    /// Its URL: `https://…`; `http://` only to loopback.
    pub url: ServerUrl,
    /// What it knows the broker by, as `Authorization: Bearer …` (default: nothing).
    pub token: Option<Handed>,
    /// PEM file of the authorities to trust instead of the system's, read from this file's directory.
    pub ca_file: Option<String>,
}

/// How a secret is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The file that holds it, absolute.
    pub file: PathBuf,
    /// How often; `None`: only when an operator says so.
    pub every: Option<Duration>,
    /// How long the old one stays good, from when no worker uses it.
    pub overlap: Duration,
    /// How long one run or one answer may take.
    pub timeout: Duration,
    /// Who makes the new one.
    pub by: Rotator,
}

/// Who makes new secrets and retires old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotator {
    /// A command.
    Command {
        /// An absolute path and its arguments; never empty.
        argv: Vec<String>,
        /// Variables of the broker's environment that it gets.
        env: Vec<String>,
    },
    /// A server.
    Hook {
        /// Its URL.
        url: String,
        /// What it knows the broker by.
        token: Option<SecretAt>,
        /// Certificates to trust instead of the system's, absolute.
        ca_file: Option<PathBuf>,
    },
}

/// What is written beside a secret's file, behind its name: what a command printed, not yet read.
pub const ANSWER: &str = ".answer";
/// A new secret that is not in place yet.
pub const NEXT: &str = ".next";
/// The old one, until it is retired.
pub const RETIRING: &str = ".retiring";
/// A new one that cannot be used, for an operator to look at.
pub const REJECTED: &str = ".rejected";
/// All of them.
pub const SIDES: [&str; 4] = [ANSWER, NEXT, RETIRING, REJECTED];

/// The file beside a secret's that has this behind its name.
pub fn beside(file: &Path, side: &str) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(side);
    path.into()
}

/// Variables without which few programs work.
const NEEDED: [&str; 2] = ["PATH", "HOME"];

/// Directories that everybody needs: nobody can be kept from them. What lies there is run only where root alone
/// writes it; in `/tmp` that is nothing.
pub const SHARED: [&str; 13] = [
    "/",
    "/bin",
    "/dev",
    "/etc",
    "/proc",
    "/sbin",
    "/tmp",
    "/usr/bin",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/var/tmp",
];

impl fmt::Display for Rotation {
    /// How often, how long both are good, and by whom, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.every {
            Some(every) => write!(f, "every {}", humantime::format_duration(every))?,
            None => f.write_str("when asked")?,
        }
        write!(f, ", the old one good for {} yet, by ", humantime::format_duration(self.overlap))?;
        match &self.by {
            Rotator::Command { argv, .. } => f.write_str(&argv.join(" ")),
            Rotator::Hook { url, .. } => f.write_str(url),
        }
    }
}

impl Rotation {
    /// Directories that no agent needs: that of the secret, of the program, and of scripts among its arguments, by
    /// the names in the config and by where links lead; and those of the links.
    pub fn directories(&self) -> Vec<PathBuf> {
        let argv: &[String] = if let Rotator::Command { argv, .. } = &self.by { argv } else { &[] };
        let secrets = self.file.parent().into_iter().map(Path::to_owned);
        argv.iter().flat_map(|word| vet::directories(word)).chain(secrets).collect()
    }

    /// Variables of the broker's environment that no agent needs.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.environment().filter(|name| !NEEDED.contains(name))
    }

    /// Variables of the broker's environment that the command gets.
    pub fn environment(&self) -> impl Iterator<Item = &str> {
        let env = if let Rotator::Command { env, .. } = &self.by { Some(env) } else { None };
        let named = env.into_iter().flatten().map(String::as_str).filter(|name| !NEEDED.contains(name));
        NEEDED.into_iter().filter(move |_| env.is_some()).chain(named)
    }

    /// What the hook knows the broker by.
    pub fn own_secret(&self) -> Option<&SecretAt> {
        if let Rotator::Hook { token, .. } = &self.by { token.as_ref() } else { None }
    }
}
