//! How an agent gets its environment: exports for a shell, a private file, a Kubernetes Secret.
//! Placeholders, a session token and URLs; never a secret.

use crate::api::view::Variable;
use crate::private_file::{PrivateError, replace_private};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What a shell reads.
const ENV_FILE: &str = "env.sh";
/// Whom to trust.
pub const CA_FILE: &str = "ca.pem";

/// A file for an agent that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct DirectoryError {
    path: PathBuf,
    cause: std::io::Error,
}

/// An env file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// A value that is more than a word to somebody who reads it.
    #[error(
        "the value of {0} cannot stand in an env file: shells would read it as more than a word, and not everybody takes \
         quotes off; use --dir, --format or --kubernetes-secret"
    )]
    NotAWord(String),
    /// The file itself.
    #[error(transparent)]
    File(#[from] PrivateError),
}

/// One line for a shell. Values may be a document's, and are quoted.
pub fn export(variable: &Variable) -> String {
    format!("export {}='{}'", variable.name, variable.value.replace('\'', r"'\''"))
}

/// `NAME=VALUE` lines, as `docker run --env-file`, systemd's `EnvironmentFile=` and shells read them
/// alike: without quotes, which not all of them take off. So there are only values that need none.
pub fn env_file(path: &Path, variables: &[Variable]) -> Result<(), EnvFileError> {
    // Brackets are those of IPv6 addresses: no shell looks for files in an assignment.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._~:/@%+=,-[]".contains(&b);
    if let Some(bad) = variables.iter().find(|variable| !variable.value.bytes().all(is_plain)) {
        return Err(EnvFileError::NotAWord(bad.name.clone()));
    }
    let lines: String = variables.iter().map(|v| format!("{}={}\n", v.name, v.value)).collect();
    Ok(replace_private(path, lines.as_bytes())?)
}

/// `env.sh`, for a shell to read, and the authorities to trust, where there are some: whole or not at all, each,
/// and readable by whoever may enter the directory. A container's user is not ours, and the directory is for one
/// agent alone; what a session's agent may have is in there, and nothing else.
pub fn directory(dir: &Path, variables: &[Variable], ca: Option<&[u8]>) -> Result<(), DirectoryError> {
    let lines: String = variables.iter().map(|variable| export(variable) + "\n").collect();
    if let Some(ca) = ca {
        replace(dir, CA_FILE, ca)?;
    }
    replace(dir, ENV_FILE, lines.as_bytes())
}

fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
    let failed = |cause| DirectoryError { path: dir.join(name), cause };
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    // What the process masks is meant for other files.
    file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
    file.persist(dir.join(name)).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The manifest of a Secret. Its texts are JSON's, which are YAML's, too.
pub fn kubernetes_secret(name: &DnsName, namespace: Option<&DnsName>, variables: &[Variable]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: {}\n", quoted(&name.0));
    if let Some(namespace) = namespace {
        out.push_str(&format!("  namespace: {}\n", quoted(&namespace.0)));
    }
    out.push_str("  labels:\n    app.kubernetes.io/managed-by: attache\ntype: Opaque\nstringData:");
    for Variable { name, value } in variables {
        out.push_str(&format!("\n  {name}: {}", quoted(value)));
    }
    out
}

/// The name of a Kubernetes object: a DNS label (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName(String);

impl DnsName {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_label =
            (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
        is_label.then(|| Self(text.to_owned())).ok_or("expected up to 63 lower-case letters, digits and inner '-'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> Variable {
        Variable { name: name.into(), value: value.into() }
    }

    #[test]
    fn a_shell_reads_back_what_was_exported() {
        let value = "a'b $(c) \\ \"d\"";
        let script = format!("{}\nprintf %s \"$X\"", export(&variable("X", value)));
        let shown = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(shown.stdout).unwrap(), value);
    }

    #[test]
    fn an_env_file_holds_nothing_that_a_shell_would_read_as_more_than_a_word() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("agent.env");
        let plain = "http://s:t0k-en_@127.0.0.1:3030/a.b~c%5F";
        let fine = [variable("A", plain), variable("B", "http://[::1]:3030"), variable("C", "ghp.x+y=,")];
        env_file(&file, &fine).unwrap();
        let before = std::fs::read_to_string(&file).unwrap();
        assert_eq!(before, format!("A={plain}\nB=http://[::1]:3030\nC=ghp.x+y=,\n"));
        for value in [
            "$(id)", "`id`", "a;id", "a b", "a&id", "a|id", "a'", "a\"", "a\\", "#a", "<a", "a*", "{a,b}", "é",
            "a\nB=c",
        ] {
            let error = env_file(&file, &[variable("OK", "a"), variable("PUBLIC", value)]).unwrap_err().to_string();
            assert!(error.contains("the value of PUBLIC ") && !error.contains("id"), "{value}: {error}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before, "and what was there stays");
    }

    #[test]
    fn a_containers_user_reads_its_directory() {
        let temp = tempfile::tempdir().unwrap();
        for (value, ca) in [("one", None), ("two", Some(&b"PEM"[..]))] {
            directory(temp.path(), &[variable("X", value)], ca).unwrap();
            let file = temp.path().join(ENV_FILE);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("export X='{value}'\n"));
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        }
        assert_eq!(std::fs::read(temp.path().join(CA_FILE)).unwrap(), b"PEM");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2, "nothing is left behind");
        assert!(directory(&temp.path().join("none"), &[], None).is_err());
    }

    #[test]
    fn a_secrets_manifest_is_whole_yaml() {
        let variables = [variable("GITHUB_TOKEN", "ghp_ATTACHE\"x"), variable("URL", "http://127.0.0.1:3030/a: b")];
        let parse = |text: &str| DnsName::parse(text).unwrap();
        let text = kubernetes_secret(&parse("agent"), Some(&parse("team-a")), &variables);
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            read,
            serde_json::json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": "agent",
                    "namespace": "team-a",
                    "labels": {"app.kubernetes.io/managed-by": "attache"},
                },
                "type": "Opaque",
                "stringData": {"GITHUB_TOKEN": "ghp_ATTACHE\"x", "URL": "http://127.0.0.1:3030/a: b"},
            })
        );
        assert!(!kubernetes_secret(&parse("agent"), None, &variables).contains("namespace"));
    }

    #[test]
    fn kubernetes_names_are_labels() {
        for good in ["a", "team-a", "0", &"a".repeat(63)] {
            assert!(DnsName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a.b", "a_b", "a\nb", "a: b", &"a".repeat(64)] {
            assert!(DnsName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
