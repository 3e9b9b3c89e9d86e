//! `attache session …`: who may use what, until when.

mod deliver;

pub(super) use deliver::export;

use super::client::{Client, ClientError, failed};
use super::common::{Common, FAILED, USAGE, complain, say};
use super::run::outfit;
use super::table::table;
use super::variable::{self, NoVariable};
use crate::api::view::{Changed, CreateSession, Outfit, SessionView, SetAccessMode, Variable};
use crate::config::values::{DialAddress, ValueError};
use crate::config::{Bind, Network, PeerId, Required, TokenScope};
use crate::envoy::Shape;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use deliver::DnsName;
use http::Method;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr as _;
use std::time::Duration;

/// Sessions: who may use what, until when
#[derive(Debug, clap::Args)]
pub struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SessionCommand {
    /// Make a session
    Create {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
        /// A credential it may use; say it once for each, or with commas between them
        #[arg(long = "credential", visible_alias = "credentials", value_name = "NAME", value_parser = Name::parse,
            value_delimiter = ',', required = true)]
        credentials: Vec<Name>,
        /// What it may do: read-only or read-write
        #[arg(long, value_name = "MODE", value_parser = access_mode, default_value = "read-write")]
        access_mode: AccessMode,
        /// How long it lives, e.g. 15m or 8h [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        #[command(flatten)]
        bind: BindArgs,
        /// What its own token of a credential may reach, where that is less than the credential's may, e.g.
        /// 'github={permissions: {contents: read}}'; say it once for each
        #[arg(long = "scope", value_name = "CREDENTIAL={…}", value_parser = scope)]
        scopes: Vec<(Name, TokenScope)>,
    },
    /// List sessions
    List {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
    },
    /// Show one session
    Show {
        /// Its name
        #[arg(value_parser = Name::parse)]
        name: Name,
    },
    /// Print what an agent's environment needs: placeholders and URLs, never a secret
    Env {
        /// The session's name
        #[arg(value_parser = Name::parse)]
        name: Name,
        /// How the agent reaches its destinations: base URLs, or a proxy [default: as `attache up` was started, else
        /// gateway]
        #[arg(long, value_enum)]
        shape: Option<Shape>,
        /// Where the agent finds the proxy, by a name or an address of its own network [default: listen.proxy]
        #[arg(long, value_name = "HOST:PORT", value_parser = proxy)]
        proxy: Option<DialAddress>,
        /// sh: lines to eval; json: an object
        #[arg(long, value_enum, default_value = "sh")]
        format: Format,
        /// Write it to a file of NAME=VALUE lines, 0600, instead of printing it
        #[arg(long, value_name = "PATH", conflicts_with_all = ["format", "kubernetes_secret"])]
        env_file: Option<PathBuf>,
        /// Write env.sh, and with a forward proxy ca.pem, into a directory that an agent's container mounts at the
        /// same path. Whoever may enter it reads them
        #[arg(long, value_name = "DIR", conflicts_with_all = ["format", "env_file", "kubernetes_secret"])]
        dir: Option<PathBuf>,
        /// Print the manifest of a Kubernetes Secret with this name
        #[arg(long, value_name = "NAME", value_parser = DnsName::parse, conflicts_with_all = ["format", "json"])]
        kubernetes_secret: Option<DnsName>,
        /// The namespace in the manifest [default: none, which is kubectl's]
        #[arg(long, value_name = "NAME", value_parser = DnsName::parse, requires = "kubernetes_secret")]
        namespace: Option<DnsName>,
    },
    /// Set what a session may do, on all workers; with --for, for a time
    SetAccessMode {
        /// The session's name
        #[arg(value_parser = Name::parse)]
        name: Name,
        /// read-only or read-write
        #[arg(value_name = "MODE", value_parser = access_mode)]
        mode: AccessMode,
        /// For how long a read-only session may read and write, e.g. 15m; then it is read-only again
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        length: Option<Duration>,
    },
    /// End a session, on all workers
    Revoke {
        /// The session's name
        #[arg(value_parser = Name::parse)]
        name: Name,
    },
}

/// What a session demands besides its placeholder.
#[derive(Debug, clap::Args)]
struct BindArgs {
    /// The SPIFFE ID in the client certificate that each request must come with
    #[arg(long, value_name = "SPIFFE-ID", value_parser = PeerId::from_str)]
    bind_peer: Option<PeerId>,
    /// The network that each request must come from, e.g. 10.1.0.0/16
    #[arg(long, value_name = "CIDR", value_parser = Network::from_str)]
    bind_source: Option<Network>,
    /// The Envoy listener that each request must come in by
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    bind_listener: Option<Name>,
    /// Each request must show the session token, too
    #[arg(long)]
    require_session_token: bool,
}

impl From<BindArgs> for Bind {
    fn from(args: BindArgs) -> Self {
        Self {
            peer: args.bind_peer,
            source: args.bind_source,
            listener: args.bind_listener,
            session_token: args.require_session_token.then_some(Required::Required),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Sh,
    Json,
}

pub(super) fn access_mode(text: &str) -> Result<AccessMode, &'static str> {
    let modes = [AccessMode::ReadOnly, AccessMode::ReadWrite];
    modes.into_iter().find(|mode| mode.as_str() == text).ok_or("expected read-only or read-write")
}

/// A credential, and what a config writes for it under `scopes`.
pub(super) fn scope(text: &str) -> Result<(Name, TokenScope), String> {
    const EXPECTED: &str = "expected CREDENTIAL={repositories: […], permissions: {contents: read, …}}";
    let (name, scope) = text.split_once('=').ok_or(EXPECTED)?;
    let name = Name::parse(name).map_err(|error| error.to_string())?;
    let scope = serde_saphyr::from_str(scope).map_err(|error| format!("{EXPECTED}: {}", error.without_snippet()))?;
    Ok((name, scope))
}

/// By credential; of two for one, neither is meant.
pub(super) fn scopes(each: Vec<(Name, TokenScope)>) -> Result<BTreeMap<Name, TokenScope>, String> {
    let mut scopes = BTreeMap::new();
    for (name, scope) in each {
        if scopes.insert(name.clone(), scope).is_some() {
            return Err(format!("--scope is given twice for {name}: write all of it into one"));
        }
    }
    Ok(scopes)
}

fn proxy(text: &str) -> Result<DialAddress, ValueError> {
    DialAddress::try_from(text.to_owned())
}

/// Does what the arguments say.
pub async fn run(args: SessionArgs, common: &Common) -> ExitCode {
    let client = match Client::of(common) {
        Ok(client) => client,
        Err(code) => return code,
    };
    act(args.command, &client, common.json).await.unwrap_or_else(failed)
}

async fn act(command: SessionCommand, client: &Client, json: bool) -> Result<ExitCode, ClientError> {
    match command {
        SessionCommand::Create { name, credentials, access_mode, ttl, bind, scopes: each } => {
            let ttl_ms = ttl.map(crate::clock::millis);
            let scopes = match scopes(each) {
                Ok(scopes) => scopes,
                Err(why) => return Ok(complain(USAGE, why)),
            };
            let wish = CreateSession { name, credentials, access_mode, ttl_ms, bind: bind.into(), scopes };
            let session: SessionView = client.change(Method::POST, "/v1/sessions", &wish).await?;
            let name = &session.name;
            answer(json, &session, || format!("{name} is live; give its agent: attache session env {name}"));
        }
        SessionCommand::List { all } => {
            let mut sessions: Vec<SessionView> = client.read("/v1/sessions").await?;
            sessions.retain(|session| all || session.state == "live");
            answer(json, &sessions, || {
                table(
                    &["NAME", "STATE", "ACCESS", "CREDENTIALS", "EXPIRES", "ID"],
                    &sessions.iter().map(row).collect::<Vec<_>>(),
                )
            });
        }
        SessionCommand::Show { name } => {
            let session: SessionView = client.read(&path(&name, "")).await?;
            let demands = session.bind.to_string();
            let scopes = scopes_of(&session);
            answer(json, &session, || {
                let head = ["name", "state", "access", "credentials", "expires", "id"];
                let cells = head.into_iter().zip(row(&session)).chain([("demands", demands)]).chain(scopes);
                let lines = cells.map(|(head, cell)| format!("{head:12}{cell}"));
                lines.collect::<Vec<_>>().join("\n")
            });
        }
        SessionCommand::Env { name, shape, proxy, format, env_file, dir, kubernetes_secret, namespace } => {
            let outfit: Option<Outfit> = match shape {
                Some(Shape::Gateway) => None,
                Some(Shape::ForwardProxy) | None => Some(client.read(&path(&name, "/outfit")).await?),
            };
            // Unless told otherwise, as whoever started Envoy has started it.
            let shape = shape.or_else(|| outfit.as_ref()?.shape).unwrap_or(Shape::Gateway);
            let ca_file = dir.as_deref().map(|dir| absolute(dir).join(deliver::CA_FILE));
            let variables = match outfit.filter(|_| shape == Shape::ForwardProxy) {
                Some(outfit) => of_forward_proxy(&outfit, proxy, ca_file.as_deref()),
                None => {
                    let variables: Vec<_> = client.read(&path(&name, &proxy.map_or("/env".into(), of_proxy))).await?;
                    variable::check(&variables).map(|()| variables)
                }
            };
            let variables = match variables {
                Ok(variables) => variables,
                Err(error) => return Ok(complain(FAILED, error)),
            };
            if let Err(error) = variable::stay_in_line(&variables) {
                return Ok(complain(FAILED, error));
            }
            if let Some(dir) = dir {
                let ca = match shape {
                    Shape::Gateway => None,
                    Shape::ForwardProxy => outfit::ca_bundle(client).await?,
                };
                return Ok(match deliver::directory(&dir, &variables, ca.as_deref()) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => complain(FAILED, error),
                });
            }
            if let Some(file) = env_file {
                return Ok(match deliver::env_file(&file, &variables) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => complain(FAILED, error),
                });
            }
            if let Some(secret) = kubernetes_secret {
                say(deliver::kubernetes_secret(&secret, namespace.as_ref(), &variables));
                return Ok(ExitCode::SUCCESS);
            }
            let object: BTreeMap<_, _> = variables.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
            answer(json || format == Format::Json, &object, || {
                variables.iter().map(export).collect::<Vec<_>>().join("\n")
            });
        }
        SessionCommand::SetAccessMode { mode: AccessMode::ReadOnly, length: Some(_), .. } => {
            return Ok(complain(
                USAGE,
                "--for goes with read-write: what is taken away stays away until it is set anew",
            ));
        }
        SessionCommand::SetAccessMode { name, mode, length } => {
            let wish = SetAccessMode { access_mode: mode, for_ms: length.map(crate::clock::millis) };
            let done: Changed = client.change(Method::PUT, &path(&name, "/access-mode"), &wish).await?;
            return Ok(changed(json, &done, &format!("{name} is {}", mode_of(&done.session))));
        }
        SessionCommand::Revoke { name } => {
            let done = client.change(Method::POST, &path(&name, "/revoke"), &()).await?;
            return Ok(changed(json, &done, &format!("{name} is revoked")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What names the proxy in a question.
fn of_proxy(DialAddress(proxy): DialAddress) -> String {
    format!("/env?proxy={proxy}")
}

/// What a client of a forward proxy is told, beginning from nothing; of certificates only where there is a file.
fn of_forward_proxy(
    outfit: &Outfit,
    proxy: Option<DialAddress>,
    ca_file: Option<&Path>,
) -> Result<Vec<Variable>, NoVariable> {
    let proxy = proxy.map_or_else(|| outfit.proxy.to_string(), |DialAddress(proxy)| proxy);
    Ok(outfit::environment(outfit, proxy, ca_file, &|_| None)?.variables())
}

fn answer(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) {
    if json {
        say(serde_json::to_string_pretty(value).unwrap_or_default());
    } else {
        say(text());
    }
}

fn changed(json: bool, done: &Changed, what: &str) -> ExitCode {
    answer(json, done, || format!("{what}: {}", done.applied));
    if done.recorded {
        return ExitCode::SUCCESS;
    }
    complain(FAILED, "the change is in force, but the audit log cannot be written: see `attache doctor`")
}

fn path(name: &Name, rest: &str) -> String {
    format!("/v1/sessions/{name}{rest}")
}

/// What it may do, and for how long if that ends before the session does.
fn mode_of(session: &SessionView) -> String {
    let mode = session.access_mode.as_str();
    if session.state != "live" {
        return "-".to_owned();
    }
    session.elevated_ms.map_or_else(|| mode.to_owned(), |ms| format!("{mode} for {}", length(ms)))
}

/// What its tokens reach, for people; nothing where no scope narrows one.
fn scopes_of(session: &SessionView) -> Option<(&'static str, String)> {
    let scopes: Vec<_> = session.scopes.iter().map(|(name, scope)| format!("{name}: {scope}")).collect();
    (!scopes.is_empty()).then(|| ("scopes", scopes.join("; ")))
}

/// A length of time in whole seconds, for people.
fn length(ms: u64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000)))
}

fn row(session: &SessionView) -> Vec<String> {
    let credentials: Vec<_> = session.credentials.iter().map(Name::as_str).collect();
    let expires = match session.remaining_ms {
        None => "never".to_owned(),
        Some(0) => "over".to_owned(),
        Some(ms) => format!("in {}", length(ms)),
    };
    vec![
        session.name.to_string(),
        session.state.clone(),
        mode_of(session),
        credentials.join(","),
        expires,
        session.id.clone(),
    ]
}
