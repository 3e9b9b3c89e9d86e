//! `attache doctor`: finds unsafe Envoy settings, bad permissions and secrets that nobody finds.

use super::client::{Client, ClientError};
use super::common::{Common, FAILED, complain, say};
use super::config;
use crate::config::handed::SecretAt;
use crate::config::{Config, Endpoint, Lookup};
use crate::doctor::{EnvoyConfig, Finding, Severity, examine, examine_logging, read};
use crate::envoy::admin::{AdminError, AdminUrl};
use crate::envoy::{ADMIN_SOCKET, Shape, Version};
use crate::leases::Standing;
use crate::mutual_tls::{Acceptor, TlsError};
use crate::private_file::{PrivateDir, PrivateError};
use crate::seal::envelope::Form;
use crate::seal::{Means, MeansError, files};
use crate::sources::{Environment, find_program};
use attache_core::names::Name;
use rustix::fs::OFlags;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Find unsafe Envoy settings, bad permissions and secrets that are nowhere
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Ask a running Envoy: http://HOST:PORT or unix:PATH [default: this instance's, if it runs]
    #[arg(long, value_name = "URL", conflicts_with = "bootstrap")]
    pub envoy_admin: Option<AdminUrl>,
    /// Read an Envoy configuration or a /config_dump: .yaml or .json
    #[arg(long, value_name = "FILE")]
    pub bootstrap: Option<PathBuf>,
}

/// What is wrong beside Envoy's settings.
#[derive(Debug, Serialize)]
struct Complaint {
    severity: Severity,
    path: PathBuf,
    found: String,
}

/// Everything doctor looked at and found.
#[derive(Debug, Default, Serialize)]
struct Report {
    saw_envoy: bool,
    examined: Vec<String>,
    settings: Vec<Finding>,
    files: Vec<Complaint>,
    /// Neither good nor bad: what an operator may want to know.
    notes: Vec<String>,
}

/// Why nothing could be examined.
#[derive(Debug, thiserror::Error)]
enum DoctorError {
    #[error(transparent)]
    Read(#[from] crate::doctor::ReadError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("the answer of {0} is not JSON: is it Envoy's admin?")]
    NotJson(AdminUrl),
}

/// Examines. Exit code 1 when a promise does not hold.
pub async fn run(args: DoctorArgs, common: &Common) -> ExitCode {
    let mut report = Report::default();
    let asked = args.envoy_admin.is_some() || args.bootstrap.is_some();
    match config::try_load(common) {
        Ok(config) => {
            permissions(&config, &mut report);
            seal(&config, &mut report);
            certificates(&config, &mut report);
            for caution in config.cautions() {
                report.warn(&config.state_dir, &caution);
            }
            secrets(&config, &mut report).await;
            if let Err(error) = envoy(&args, Some(&config), &mut report).await {
                return complain(FAILED, error);
            }
        }
        // Envoy can be examined without a config; nothing else can.
        Err(errors) if !asked || common.config.is_some() => return config::refuse(common, &errors),
        Err(_) => {
            if let Err(error) = envoy(&args, None, &mut report).await {
                return complain(FAILED, error);
            }
        }
    }
    tell(&report, common)
}

async fn envoy(args: &DoctorArgs, config: Option<&Config>, report: &mut Report) -> Result<(), DoctorError> {
    if let Some(file) = &args.bootstrap {
        report.settings.extend(examine(&EnvoyConfig::from_value(&read(file)?)));
        report.saw_envoy = true;
        report.examined.push(file.display().to_string());
        return Ok(());
    }
    let own = config.map(|config| config.state_dir.join(ADMIN_SOCKET)).filter(|socket| socket.exists());
    let Some(admin) = args.envoy_admin.clone().or_else(|| own.map(AdminUrl::Unix)) else { return Ok(()) };
    let (dump, logging) = match (admin.get("/config_dump?include_eds").await, admin.log_levels().await) {
        (Ok(dump), Ok(logging)) => (dump, logging),
        // A socket that nobody listens on is what a dead Envoy leaves behind.
        (Err(AdminError::Connect { .. }), _) if args.envoy_admin.is_none() => return Ok(()),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let dump = serde_json::from_slice(&dump).map_err(|_| DoctorError::NotJson(admin.clone()))?;
    report.settings.extend(examine(&EnvoyConfig::from_value(&dump)));
    if let (Some(config), Some(version)) = (config, version(&dump)) {
        let lacks = version.lacks(Shape::Gateway, &config.sessions).into_iter();
        report.notes.extend(lacks.map(|lacks| format!("Envoy {version}: {lacks}")));
    }
    report.settings.extend(examine_logging(&String::from_utf8_lossy(&logging)));
    report.saw_envoy = true;
    report.examined.push(admin.to_string());
    Ok(())
}

/// Which Envoy it is, as its dump says.
fn version(dump: &serde_json::Value) -> Option<Version> {
    let sections = dump.get("configs")?.as_array()?;
    let version = sections.iter().find_map(|one| one.pointer("/bootstrap/node/user_agent_build_version/version"))?;
    let number = |name: &str| version.get(name).map_or(Some(0), serde_json::Value::as_u64);
    format!("{}.{}", number("major_number")?, number("minor_number")?).parse().ok()
}

/// The state directory and what is in it: ours alone, as the broker will demand.
fn permissions(config: &Config, report: &mut Report) {
    report.examined.push(config.state_dir.display().to_string());
    match PrivateDir::open(&config.state_dir) {
        Ok(None) => {}
        Ok(Some(dir)) => entries(&dir, report),
        Err(error) => report.fail(&config.state_dir, error),
    }
    let secrets = match PrivateDir::open(&config.sources.file_dir) {
        Ok(dir) => dir,
        Err(error) => {
            report.fail(&config.sources.file_dir, error);
            None
        }
    };
    if let Some(secrets) = &secrets {
        entries(secrets, report);
    }
}

/// Whether what is secret is sealed. Nobody is asked.
fn seal(config: &Config, report: &mut Report) {
    let Some(seal) = &config.seal else {
        report.notes.push(
            "the state directory is not sealed: its files are 0600, and a copy of them (a backup, a disk) is as good as \
             they are; state.seal seals what is secret in it"
                .to_owned(),
        );
        return;
    };
    let environment = Environment::read(config, &|name| std::env::var_os(name));
    match seal.own_secret().map_or_else(|| Means::of(seal, &environment).err(), |_| None) {
        Some(MeansError::File(error)) => report.fail(&config.state_dir, error),
        // A file is there for every shell alike: the broker will not start.
        Some(error) if seal.file().is_some() => report.files.push(Complaint {
            severity: Severity::Fail,
            path: config.state_dir.clone(),
            found: error.to_string(),
        }),
        // This shell may not have the broker's variables.
        Some(error) => report.warn(&config.state_dir, &error.to_string()),
        None => {}
    }
    let all = files::all(config);
    if let Err(error) = &all {
        report.warn(&config.state_dir, &error.to_string());
    }
    for file in all.unwrap_or_default() {
        if file.kind == files::Kind::Named && matches!(file.form(), Ok(Some(Form::Plain))) {
            report.notes.push(format!("{} is plain: `attache state rekey` seals it", file.path.display()));
        }
    }
}

/// What the data plane's TLS is made of, as this user can read it. What is not there is a caution.
fn certificates(config: &Config, report: &mut Report) {
    let Endpoint::Tls(door) = &config.listen.data_plane else { return };
    report.examined.push(door.certificate.display().to_string());
    match Acceptor::open(door) {
        Ok(_) | Err(TlsError::Missing(..)) => {}
        Err(error) => report.files.push(Complaint {
            severity: Severity::Fail,
            path: door.certificate.clone(),
            found: error.to_string(),
        }),
    }
}

/// Credentials without a secret: as the running broker sees it, else as this shell does.
async fn secrets(config: &Config, report: &mut Report) {
    let broker = Client::at(config.listen.control.clone());
    match broker.read::<Vec<Standing>>("/v1/credentials").await {
        Ok(standings) => {
            report.examined.push("the running broker".to_owned());
            // Where each session has a token of its own, there is none that all share.
            let lacks = |standing: &Standing| {
                standing.error.is_some() || (standing.fingerprint.is_none() && standing.sessions.is_none())
            };
            for standing in standings.into_iter().filter(lacks) {
                let why = standing.error.unwrap_or_else(|| "nothing found".to_owned());
                report.lack(config, &standing.name, &why);
            }
            return;
        }
        Err(error) => report.miss(config, &error),
    }
    for credential in &config.credentials {
        let is_set = |variable: &str| config::environment(variable).is_some_and(|secret| !secret.is_empty());
        let is_handed = |at: &SecretAt| match at {
            SecretAt::Env(variable) => is_set(variable),
            SecretAt::Private(path) | SecretAt::Shared(path) => path.exists(),
            SecretAt::Stdin => true,
        };
        let is_here = |lookup: &Lookup| match lookup {
            Lookup::Env(variable) => is_set(variable),
            // Whether it has the secret only `op` knows, and asking costs.
            Lookup::OnePassword(item) if item.connect.is_none() => {
                find_program(&item.op, &config::environment("PATH").unwrap_or_default()).is_some()
            }
            // Whether it has the secret only it knows; whether we are somebody there shows here.
            Lookup::OnePassword(_)
            | Lookup::OpenBao(_)
            | Lookup::Infisical(_)
            | Lookup::GitHubApp(_)
            | Lookup::Kubernetes(_) => lookup.own_secret().is_none_or(is_handed),
            Lookup::Mounted(file) => file.volume.join(&file.file).exists(),
            Lookup::File(path) => path.exists(),
        };
        if !credential.lookup.iter().any(is_here) {
            let places: Vec<_> = credential.lookup.iter().map(Lookup::place).collect();
            let lacking = credential.lookup.iter().filter_map(Lookup::own_secret).filter(|at| !is_handed(at));
            let lacking: Vec<_> = lacking.map(SecretAt::place).collect();
            let why = if lacking.is_empty() {
                format!("found nowhere ({}, as this shell sees them)", places.join(", "))
            } else {
                format!(
                    "nothing to log in with for {}: {} is empty or not there",
                    places.join(", "),
                    lacking.join(", ")
                )
            };
            report.lack(config, &credential.name, &why);
        }
    }
}

fn entries(dir: &PrivateDir, report: &mut Report) {
    let listed = std::fs::read_dir(dir.path()).into_iter().flatten().flatten();
    for entry in listed.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_symlink())) {
        if let Err(error) = entry.file_name().to_str().map_or(Ok(None), |name| dir.open_file(name, OFlags::RDONLY)) {
            report.fail(&entry.path(), error);
        }
    }
}

impl Report {
    fn lack(&mut self, config: &Config, credential: &Name, why: &str) {
        let found = format!("credential {credential} has no secret: {why}");
        self.files.push(Complaint { severity: Severity::Warn, path: config.sources.file_dir.clone(), found });
    }

    /// No agent gets anything from a broker that does not answer, but doctor may come before it starts.
    fn miss(&mut self, config: &Config, error: &ClientError) {
        let found = match error {
            ClientError::NotRunning { .. } => error.to_string(),
            _ => format!("the broker does not answer as it should: {error}; read what it logged, and restart it"),
        };
        self.files.push(Complaint { severity: Severity::Warn, path: config.listen.control.clone(), found });
    }

    fn warn(&mut self, path: &Path, found: &str) {
        self.files.push(Complaint { severity: Severity::Warn, path: path.to_owned(), found: found.to_owned() });
    }

    fn fail(&mut self, path: &Path, error: PrivateError) {
        self.files.push(Complaint { severity: Severity::Fail, path: path.to_owned(), found: error.to_string() });
    }

    fn is_sound(&self) -> bool {
        let severities = self.settings.iter().map(|f| f.severity).chain(self.files.iter().map(|f| f.severity));
        severities.into_iter().all(|severity| severity != Severity::Fail)
    }
}

fn tell(report: &Report, common: &Common) -> ExitCode {
    let sound = report.is_sound();
    if common.json {
        say(serde_json::json!({"ok": sound, "report": report}));
    } else {
        for complaint in &report.files {
            say(format_args!("{} {}", complaint.severity, complaint.found));
        }
        for finding in &report.settings {
            say(finding);
        }
        for remark in &report.notes {
            say(format_args!("NOTE {remark}"));
        }
        let verdict = match report.files.len() + report.settings.len() {
            0 => "nothing to complain of".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        };
        say(format_args!("examined {}: {verdict}", report.examined.join(", ")));
        if !report.saw_envoy {
            say("no Envoy was examined: name one with --envoy-admin URL or --bootstrap FILE");
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}
