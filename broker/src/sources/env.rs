//! Environment variables of the broker, read once at start: a process's environment is fixed.

use super::handed::{Handed, MOST};
use super::onepassword::connect;
use super::openbao::Client;
use super::quiet::Quiet;
use super::{
    Alarms, Mark, Questions, Reading, Source, SourceError, github_app, infisical, kubernetes, meter, onepassword,
};
use crate::config::handed::SecretAt;
use crate::config::{Cluster, Config, Connect, GitHubApp, Infisical, Lookup, OpenBao};
use crate::seal::Sealer;
use attache_core::Secret;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zeroize::Zeroizing;

/// The variables that a config names, as they were at start.
#[derive(Default)]
pub struct Environment {
    variables: HashMap<String, Value>,
    /// What `op` is given, where the config has use for it.
    op: Vec<(&'static str, Secret)>,
    clients: Clients,
    /// What makes us somebody where we ask, by where it is: a variable, or standard input.
    handed: HashMap<SecretAt, Secret>,
    /// The key of the seal, where the config names a variable for it.
    seal: Option<Secret>,
    /// How secret files are read, once that is known.
    sealer: OnceLock<Sealer>,
    /// What commands that rotate get.
    of_rotation: HashMap<String, Secret>,
    alarms: Arc<Alarms>,
    others: Others,
}

/// By what each is asked where the config has use for it: one for all secrets.
#[derive(Default)]
struct Clients {
    openbao: OnceLock<Arc<Client>>,
    github: OnceLock<Arc<github_app::Client>>,
    infisical: OnceLock<Arc<infisical::Client>>,
    connect: OnceLock<Arc<connect::Client>>,
    kubernetes: OnceLock<Arc<kubernetes::Client>>,
}

/// What sources share beside that.
struct Others {
    /// Until when nobody asks `op`.
    quiet_op: Arc<Quiet>,
    questions: Questions,
}

impl Default for Others {
    fn default() -> Self {
        Self { quiet_op: Arc::default(), questions: meter::none_yet() }
    }
}

#[derive(Clone)]
enum Value {
    Text(Secret),
    NotText,
}

impl Environment {
    /// Reads the variables that `config` names, and no other. An empty one counts as absent: that
    /// is what a shell or a compose file makes of a variable nobody set.
    pub fn read(config: &Config, environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let lookups = config.credentials.iter().flat_map(|credential| &credential.lookup);
        let found = lookups.filter_map(Lookup::variable).filter_map(|name| {
            let value = environment(name).filter(|value| !value.is_empty())?;
            let value = value.into_string().map_or(Value::NotText, |text| Value::Text(Secret::new(text)));
            Some((name.to_owned(), value))
        });
        let mut lookups = config.credentials.iter().flat_map(|credential| &credential.lookup);
        let asks_op = lookups.any(|lookup| matches!(lookup, Lookup::OnePassword(item) if item.connect.is_none()));
        let given = onepassword::ENVIRONMENT.into_iter().filter(|_| asks_op);
        let given = given.filter_map(|name| Some((name, Secret::new(environment(name)?.into_string().ok()?))));
        let handed = config.own_secrets_in_use().filter_map(|at| {
            let text = environment(at.variable()?).filter(|value| !value.is_empty())?.into_string().ok()?;
            Some((at.clone(), Secret::new(text)))
        });
        let handed = handed.collect();
        let seal = config.seal.as_ref().and_then(|seal| {
            let text = environment(seal.variable()?).filter(|value| !value.is_empty())?.into_string().ok()?;
            Some(Secret::new(text))
        });
        let rotations = config.credentials.iter().filter_map(|credential| credential.rotation.as_ref());
        let needed = rotations.flat_map(|rotation| rotation.environment());
        let of_rotation = needed.filter_map(|name| {
            let value = environment(name).filter(|value| !value.is_empty())?;
            Some((name.to_owned(), Secret::new(value.into_string().ok()?)))
        });
        let (variables, of_rotation) = (found.collect(), of_rotation.collect());
        Self { variables, op: given.collect(), handed, seal, of_rotation, ..Self::default() }
    }

    /// Reads the first line of what is delivered there, if the config has use for it. Waits for it.
    pub fn take_delivery(&mut self, config: &Config, from: impl Read) {
        if !config.own_secrets_in_use().any(|at| *at == SecretAt::Stdin) {
            return;
        }
        tracing::info!("waiting for a wrapping token on standard input");
        // All its room at once: a buffer that grows leaves copies behind.
        let mut line = Zeroizing::new(String::with_capacity(MOST + 1));
        let read = BufReader::new(from.take(MOST as u64)).read_line(&mut line);
        let text = line.trim_end_matches(['\n', '\r']);
        if read.is_ok() && !text.is_empty() {
            self.handed.insert(SecretAt::Stdin, Secret::new(text));
        }
    }

    /// By what OpenBao is asked.
    pub(crate) fn of_openbao(&self, server: &Arc<OpenBao>) -> Arc<Client> {
        let client = || Client::new(server.clone(), self.handed(server.auth.secret()), self.alarms.clone());
        self.clients.openbao.get_or_init(|| Arc::new(client())).clone()
    }

    /// By what GitHub is asked.
    pub(super) fn of_github(&self, app: &Arc<GitHubApp>) -> Arc<github_app::Client> {
        let client = || github_app::Client::new(app.clone(), self.handed(&app.key));
        self.clients.github.get_or_init(|| Arc::new(client())).clone()
    }

    /// By what Infisical is asked.
    pub(super) fn of_infisical(&self, server: &Arc<Infisical>) -> Arc<infisical::Client> {
        let client = || infisical::Client::new(server.clone(), self.handed(&server.client_secret));
        self.clients.infisical.get_or_init(|| Arc::new(client())).clone()
    }

    /// By what a Connect server is asked; what it says is to be no older than `refresh`.
    pub(super) fn of_connect(&self, server: &Arc<Connect>, refresh: Duration) -> Arc<connect::Client> {
        let client = || connect::Client::new(server.clone(), self.handed(&server.token), connect::age(refresh));
        self.clients.connect.get_or_init(|| Arc::new(client())).clone()
    }

    /// Until when nobody asks `op`.
    pub(super) fn quiet_op(&self) -> &Arc<Quiet> {
        &self.others.quiet_op
    }

    /// What was asked of sources, counted.
    pub fn questions(&self) -> &Questions {
        &self.others.questions
    }

    /// By what Kubernetes is asked.
    pub(super) fn of_kubernetes(&self, cluster: &Arc<Cluster>) -> Arc<kubernetes::Client> {
        self.clients.kubernetes.get_or_init(|| Arc::new(kubernetes::Client::new(cluster.clone()))).clone()
    }

    /// What makes us somebody at a source.
    pub(crate) fn handed(&self, at: &SecretAt) -> Handed {
        Handed::new(self.handed.get(at).cloned(), self.sealer())
    }

    /// The key of the seal.
    pub(crate) fn of_seal(&self) -> Option<&Secret> {
        self.seal.as_ref()
    }

    /// Says how secret files are read from now on.
    pub(crate) fn seal(&self, sealer: Sealer) {
        let _ = self.sealer.set(sealer);
    }

    /// How secret files are read.
    pub(crate) fn sealer(&self) -> Sealer {
        self.sealer.get().cloned().unwrap_or_default()
    }

    /// What an operator has to look into.
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// A variable that a command that rotates gets.
    pub fn of_rotation(&self, name: &str) -> Option<&Secret> {
        self.of_rotation.get(name)
    }

    /// What `op` is given.
    pub(super) fn of_op(&self) -> &[(&'static str, Secret)] {
        &self.op
    }
}

/// One variable.
pub struct Variable {
    name: String,
    value: Option<Value>,
}

impl Variable {
    pub(super) fn new(name: &str, environment: &Environment) -> Self {
        Self { name: name.to_owned(), value: environment.variables.get(name).cloned() }
    }
}

impl Source for Variable {
    fn read(&self) -> Reading<'_> {
        Box::pin(async {
            match &self.value {
                None => Ok(None),
                Some(Value::Text(secret)) => Ok(Some(secret.clone().into())),
                Some(Value::NotText) => Err(SourceError::NotText(self.place())),
            }
        })
    }

    fn mark(&self) -> Mark {
        Mark::Fixed
    }

    fn place(&self) -> String {
        format!("env {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn variable(value: Option<Value>) -> Variable {
        Variable { name: "TOKEN".into(), value }
    }

    #[tokio::test]
    async fn absent_found_and_unreadable_are_three_answers() {
        assert!(matches!(variable(None).read().await, Ok(None)));
        let found = variable(Some(Value::Text(Secret::new("s")))).read().await;
        assert_eq!(found.ok().flatten().unwrap().secret.expose(), "s");
        let error = variable(Some(Value::NotText)).read().await.err().unwrap();
        assert_eq!(error.to_string(), "env TOKEN does not hold text");
    }

    #[test]
    fn only_variables_that_the_config_names_are_read() {
        let config = crate::config::Config::load(
            None,
            &crate::config::Overrides { state_dir: Some("/state".into()), ..Default::default() },
            &|name| (name == "GITHUB_TOKEN").then(|| "ghp_x".into()),
        );
        let asked = std::cell::RefCell::new(Vec::new());
        let environment = Environment::read(&config.unwrap(), &|name| {
            asked.borrow_mut().push(name.to_owned());
            Some(OsString::from_vec(vec![0xff]))
        });
        assert_eq!(asked.into_inner(), ["GITHUB_TOKEN"]);
        assert!(matches!(environment.variables.get("GITHUB_TOKEN"), Some(Value::NotText)));
    }

    #[test]
    fn what_logs_in_to_openbao_is_read_where_the_config_says_so_and_nowhere_else() {
        let config = |auth: &str| {
            let temp = tempfile::tempdir().unwrap();
            let file = temp.path().join("attache.yaml");
            let yaml = format!(
                "state_dir: s\nsources: {{openbao: {{address: 'https://b', auth: {auth}}}}}\ncredentials: {{it: {{source: \
                 {{openbao: {{path: a/b, field: f}}}}, inject: bearer, destinations: [{{host: h}}]}}}}\n"
            );
            std::fs::write(&file, yaml).unwrap();
            Config::load(Some(&file), &crate::config::Overrides::default(), &|_| None).unwrap()
        };
        let handed = |auth: &str, line: &str| {
            let config = config(auth);
            let mut environment = Environment::read(&config, &|name| Some(format!("value of {name}").into()));
            environment.take_delivery(&config, line.as_bytes());
            environment.handed.into_values().next().map(|secret| secret.expose().to_owned())
        };
        let stdin = "{approle: {role_id: r, wrapped_secret_id: stdin, creation_path: a/b}}";
        assert_eq!(handed("{token: {env: BAO}}", "line\n").as_deref(), Some("value of BAO"));
        assert_eq!(handed(stdin, "line\r\nmore\n").as_deref(), Some("line"));
        assert_eq!(handed(stdin, "\n"), None);
        assert_eq!(handed("{token: {file: bao}}", "line\n"), None);
    }
}
