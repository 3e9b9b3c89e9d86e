//! A child's environment: placeholders, the proxy in every spelling, every client's certificates.

use crate::api::view::{Login, Outfit, Variable};
use crate::cli::client::{Client, ClientError};
use crate::cli::common::{proxy_url, proxy_variables};
use crate::cli::variable::{self, NoVariable, VariableName};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{File, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the session to whoever asks for it in another way than by the proxy.
const SESSION_TOKEN: &str = crate::api::control::SESSION_TOKEN_ENV;

/// What is reached without it: what runs beside the child.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// Where clients look for a file of authorities to trust in place of the system's.
const CA_FILE: [&str; 16] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CODEX_CA_CERTIFICATE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "TWINE_CERT",
    "npm_config_cafile",
];

/// What the file of authorities is called, in a directory of its own.
pub const CA_FILE_NAME: &str = "ca.pem";

/// How commands are told where the broker is: of no use to a child, and the way to what it may not have.
const OURS: [&str; 4] = ["ATTACHE_CONFIG", "ATTACHE_INSTANCE_ID", "ATTACHE_RUNTIME_URL", "ATTACHE_STATE_DIR"];

/// What the variables of a child are called on their way to it. The parts of this program that they pass obey none of
/// them: what a loader is told there would happen out here.
const HANDED_ON: &str = "attache:";

/// What changes in the environment that a child inherits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    set: BTreeMap<String, String>,
    removed: BTreeSet<String>,
}

impl Environment {
    /// Gives it to a part of this program, to be handed on.
    pub fn hand_on(&self, inherited: impl Iterator<Item = (OsString, OsString)>, part: &mut Command) {
        let stays = |name: &OsStr| !name.to_str().is_some_and(|name| self.removed.contains(name));
        let kept = inherited.filter(|(name, _)| stays(name));
        let set = self.set.iter().map(|(name, value)| (name.into(), value.into()));
        part.env_clear();
        for (name, value) in kept.chain(set) {
            let mut handed_on = OsString::from(HANDED_ON);
            handed_on.push(name);
            part.env(handed_on, value);
        }
    }

    /// What it sets, for somebody who starts from nothing.
    pub fn variables(self) -> Vec<Variable> {
        self.set.into_iter().map(|(name, value)| Variable { name, value }).collect()
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.set.insert(name.into(), value.into());
    }
}

/// Puts on a command what was handed on to this process.
pub fn dress(command: &mut Command) {
    let name = |name: OsString| name.as_bytes().strip_prefix(HANDED_ON.as_bytes()).map(|name| name.to_vec());
    let worn = std::env::vars_os().filter_map(|(named, value)| Some((OsString::from_vec(name(named)?), value)));
    command.env_clear().envs(worn);
}

/// The environment of a child that finds the proxy at this address, and the authorities in this file. An outfit that
/// holds more than variables of an environment is none.
pub fn environment(
    outfit: &Outfit,
    proxy: impl Display,
    ca_file: Option<&Path>,
    inherited: &dyn Fn(&str) -> Option<String>,
) -> Result<Environment, NoVariable> {
    variable::check(&outfit.placeholders)?;
    let mut environment = Environment::default();
    environment.removed.extend(outfit.hidden_variables.iter().cloned());
    environment.removed.extend(OURS.map(str::to_owned));
    for Variable { name, value } in &outfit.placeholders {
        environment.set(name, value);
    }
    environment.set(SESSION_TOKEN, &outfit.session_token);

    let url = proxy_url(&outfit.session_token, proxy);
    environment.set.extend(proxy_variables(&url));
    for name in ["NO_PROXY", "no_proxy", "npm_config_noproxy"] {
        environment.set(name, NO_PROXY);
    }
    // Before what an .npmrc says.
    environment.set("npm_config_proxy", &url);
    environment.set("npm_config_https_proxy", &url);
    // Node's own clients, where Node knows it (22.21, 24.5): before, each has to be told.
    environment.set("NODE_USE_ENV_PROXY", "1");

    if let Some(file) = ca_file.and_then(Path::to_str) {
        CA_FILE.iter().for_each(|name| environment.set(name, file));
    }
    git(&mut environment, &url, &outfit.logins, inherited)?;
    Ok(environment)
}

/// git's own settings go before what its config files say: a proxy, or a helper that keeps real passwords.
fn git(
    environment: &mut Environment,
    proxy: &str,
    logins: &[Login],
    inherited: &dyn Fn(&str) -> Option<String>,
) -> Result<(), NoVariable> {
    let mut settings = vec![
        ("http.proxy".to_owned(), proxy.to_owned()),
        // At once, not after a challenge.
        ("http.proxyAuthMethod".to_owned(), "basic".to_owned()),
    ];
    for Login { origin, username, variable } in logins {
        let helper = format!("credential.{origin}.helper");
        let (username, variable) = (username.replace('\'', r"'\''"), VariableName::parse(variable)?);
        // Nobody else is asked.
        settings.push((helper.clone(), String::new()));
        let says = format!("printf 'username=%s\\npassword=%s\\n' '{username}' \"${variable}\"");
        settings.push((helper, format!("!f() {{ test \"$1\" = get && {says}; }}; f")));
    }
    // After those that are there already, in the same way.
    let first = inherited("GIT_CONFIG_COUNT").and_then(|count| count.parse::<usize>().ok()).unwrap_or_default();
    environment.set("GIT_CONFIG_COUNT", (first + settings.len()).to_string());
    for (at, (key, value)) in (first..).zip(settings) {
        environment.set(&format!("GIT_CONFIG_KEY_{at}"), key);
        environment.set(&format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    Ok(())
}

/// The authorities that a child trusts, PEM: the system's, and the one that signs for what is intercepted.
/// `Ok(None)`: this broker has none of its own.
pub async fn ca_bundle(client: &Client) -> Result<Option<Vec<u8>>, ClientError> {
    Ok(client.read_text("/v1/ca/bundle").await?.map(|bundle| bundle.to_vec()))
}

/// A file with them, in a directory of its own; removed when this is dropped.
///
/// Its owner can write to it for all that its mode says, and what runs in another cell is its owner. So a cell gets the
/// same from a file without a name, to put in its place.
pub struct CaFile {
    dir: tempfile::TempDir,
    path: PathBuf,
    nameless: File,
}

impl CaFile {
    /// Writes one.
    pub fn write(bundle: &[u8]) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("attache-run-").tempdir()?;
        let path = dir.path().join(CA_FILE_NAME);
        File::options().write(true).create_new(true).mode(0o400).open(&path)?.write_all(bundle)?;
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o500))?;
        let mut nameless = tempfile::tempfile()?;
        nameless.write_all(bundle)?;
        nameless.rewind()?;
        Ok(Self { dir, path, nameless })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file without a name, at its beginning.
    pub fn nameless(&self) -> BorrowedFd<'_> {
        self.nameless.as_fd()
    }
}

impl Drop for CaFile {
    /// What is in a directory is removed only by who may write to it.
    fn drop(&mut self) {
        let _ = std::fs::set_permissions(self.dir.path(), Permissions::from_mode(0o700));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outfit() -> Outfit {
        Outfit {
            shape: None,
            proxy: "127.0.0.1:3030".parse().unwrap(),
            session_token: "attache-session_ATTACHEx".into(),
            placeholders: vec![Variable { name: "GITHUB_TOKEN".into(), value: "ghp_ATTACHEx".into() }],
            logins: vec![Login {
                origin: "https://github.com".into(),
                username: "x'y".into(),
                variable: "GITHUB_TOKEN".into(),
            }],
            hidden_directories: Vec::new(),
            hidden_variables: vec!["GITHUB_TOKEN".into(), "OPENAI_API_KEY".into()],
        }
    }

    fn of(outfit: &Outfit, inherited: &[(&str, &str)]) -> Result<Environment, NoVariable> {
        let find =
            |name: &str| inherited.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        environment(outfit, "127.0.0.1:3030", Some(Path::new("/x/ca.pem")), &find)
    }

    /// What is handed on for a child, under the names that it has for the child.
    fn dressed(inherited: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut part = Command::new("env");
        let own = inherited.iter().map(|(name, value)| (name.into(), value.into()));
        of(&outfit(), inherited).unwrap().hand_on(own, &mut part);
        let worn = part.get_envs().map(|(name, value)| {
            let name = name.to_str().unwrap().strip_prefix(HANDED_ON).expect("none that this program obeys");
            (name.to_owned(), value.unwrap().to_str().unwrap().to_owned())
        });
        worn.collect()
    }

    #[test]
    fn an_outfit_that_commands_a_program_or_breaks_out_of_a_script_is_refused() {
        for name in ["LD_PRELOAD", "BASH_ENV", "A;touch x"] {
            let mut bad = outfit();
            bad.placeholders.push(Variable { name: name.into(), value: "/tmp/evil.so".into() });
            assert!(of(&bad, &[]).is_err(), "{name}");
        }
        for variable in ["X}$(touch /tmp/x)", "X\"; touch x; \"", ""] {
            let mut bad = outfit();
            variable.clone_into(&mut bad.logins[0].variable);
            assert!(of(&bad, &[]).is_err(), "{variable}");
        }
    }

    #[test]
    fn the_certificates_are_for_reading_and_gone_at_the_end() {
        let file = CaFile::write(b"ours").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.dir())), (0o400, 0o500));
        assert_eq!(std::io::read_to_string(&file.nameless).unwrap(), "ours");
        let dir = file.dir().to_owned();
        drop(file);
        assert!(!dir.exists());
    }

    #[test]
    fn a_child_has_placeholders_where_real_secrets_were() {
        let real = [
            ("GITHUB_TOKEN", "ghp_real"),
            ("OPENAI_API_KEY", "sk-real"),
            ("ATTACHE_RUNTIME_URL", "unix:/c"),
            ("A", "b"),
        ];
        let env = dressed(&real);
        assert_eq!(env["GITHUB_TOKEN"], "ghp_ATTACHEx");
        assert_eq!(env["A"], "b");
        for gone in ["OPENAI_API_KEY", "ATTACHE_RUNTIME_URL"] {
            assert!(!env.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn the_proxy_is_told_in_every_spelling() {
        let env = dressed(&[("no_proxy", "internal.example"), ("https_proxy", "http://other:1")]);
        let url = "http://attache:attache-session_ATTACHEx@127.0.0.1:3030";
        for name in [
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
            "npm_config_https_proxy",
        ] {
            assert_eq!(env[name], url, "{name}");
        }
        assert_eq!((env["NO_PROXY"].as_str(), env["no_proxy"].as_str()), (NO_PROXY, NO_PROXY));
        assert_eq!(env["NODE_USE_ENV_PROXY"], "1");
        for name in CA_FILE {
            assert_eq!(env[name], "/x/ca.pem", "{name}");
        }
    }

    #[test]
    fn gits_own_settings_follow_those_that_are_there() {
        let env = dressed(&[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "a.b"), ("GIT_CONFIG_VALUE_0", "c")]);
        assert_eq!(env["GIT_CONFIG_COUNT"], "5");
        assert_eq!(env["GIT_CONFIG_KEY_0"], "a.b");
        assert_eq!(env["GIT_CONFIG_KEY_1"], "http.proxy");
        let helper = "credential.https://github.com.helper";
        assert_eq!((env["GIT_CONFIG_KEY_3"].as_str(), env["GIT_CONFIG_VALUE_3"].as_str()), (helper, ""));
        assert_eq!(env["GIT_CONFIG_KEY_4"], helper);
        let script = format!("{} get", env["GIT_CONFIG_VALUE_4"].strip_prefix('!').unwrap());
        let said = Command::new("sh").args(["-c", &script]).env("GITHUB_TOKEN", "tok").output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), "username=x'y\npassword=tok\n");
    }
}
