//! One instance on disk, its commands, and everything that a copy of its directory shows.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use attache_tests::{Attache, util};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tempfile::TempDir;

pub const SECRET: &str = "s3cret-of-the-operator-0123456789abcdef";
/// What Envoy reads itself, and so has to be plain.
const PLAIN: [&str; 2] = ["data-plane.token", "data-plane-token.sds.json"];

/// One instance.
pub struct Scene {
    dir: TempDir,
}

/// What a command came to.
pub struct Said {
    pub good: bool,
    pub text: String,
}

/// What must be the same after everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub placeholder: String,
    pub ca: String,
    pub fingerprint: String,
}

impl Scene {
    pub fn new(seal: &str) -> Self {
        let scene = Self { dir: util::temp_dir() };
        scene.seal(seal);
        scene
    }

    /// Sealed by this from the next command on; `""`: not at all.
    pub fn seal(&self, seal: &str) {
        let seal = if seal.is_empty() { String::new() } else { format!("state: {{seal: {seal}}}\n") };
        let yaml = format!(
            "state_dir: state\n{seal}unmatched: pass\ncredentials:\n  it: {{source: {{file: it}}, inject: bearer, \
             destinations: [{{host: a.test}}]}}\nsessions: [{{name: s, credentials: [it]}}]\n"
        );
        fs::write(self.config(), yaml).expect("the config");
    }

    pub fn config(&self) -> PathBuf {
        self.path("attache.yaml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.path("state/default").join(name)
    }

    /// Makes a key; its id.
    pub fn key(&self, name: &str) -> String {
        let made = self.attache(&["state", "new-key", &self.path(name).display().to_string(), "--json"], &[], "");
        assert!(made.good, "{}", made.text);
        let made: Value = serde_json::from_str(&made.text).expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Runs a command to its end.
    pub fn attache(&self, args: &[&str], env: &[(&str, &str)], input: &str) -> Said {
        self.under(&[], args, env, input)
    }

    /// The same, begun by another program.
    pub fn under(&self, under: &[&str], args: &[&str], env: &[(&str, &str)], input: &str) -> Said {
        let broker = util::broker_bin().display().to_string();
        let words: Vec<_> = under.iter().copied().chain([broker.as_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(args).arg("--config").arg(self.config()).envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // A command that ends before it reads is one of the things tried.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let text = [output.stdout, output.stderr].concat();
        Said { good: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    /// Writes the operator's secret where it is not sealed.
    pub fn write_plain(&self) {
        let path = self.state("secrets");
        fs::create_dir_all(&path).expect("a directory");
        for dir in ["state", "state/default", "state/default/secrets"] {
            fs::set_permissions(self.path(dir), PermissionsExt::from_mode(0o700)).expect("ours");
        }
        fs::write(path.join("it"), SECRET).expect("a file");
        fs::set_permissions(path.join("it"), PermissionsExt::from_mode(0o600)).expect("ours");
    }

    /// A life of the broker: what it keeps, and whether its log verifies.
    pub async fn life(&self, env: &[(&str, &str)]) -> Kept {
        let broker = Attache::serve(&self.config(), env).await;
        let kept = kept(&broker);
        broker.signal("TERM");
        util::eventually(std::time::Duration::from_secs(10), || !broker.alive()).await;
        let verified = self.attache(&["audit", "verify"], &[], "");
        assert!(verified.good, "without any key: {}", verified.text);
        kept
    }

    pub fn show(&self) -> Value {
        let shown = self.attache(&["state", "show", "--json"], &[], "");
        serde_json::from_str(&shown.text).unwrap_or_else(|why| panic!("{why}: {}", shown.text))
    }

    /// A copy of what is on the disk.
    pub fn copy(&self) -> Self {
        let scene = Self { dir: util::temp_dir() };
        copy(self.dir.path(), scene.dir.path());
        scene
    }

    /// Every place of the state directory where one of these stands, in any form that gives it away.
    pub fn exposes(&self, secrets: &[Vec<u8>]) -> Vec<String> {
        let forms: Vec<_> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        let mut found = Vec::new();
        for path in files(&self.path("state")) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let bytes = fs::read(&path).unwrap_or_default();
            let is_there = |form: &Vec<u8>| memchr::memmem::find(&bytes, form).is_some();
            if !PLAIN.contains(&name) && forms.iter().any(is_there) {
                found.push(path.display().to_string());
            }
        }
        found
    }

    /// The secrets of a directory that is not sealed, as they stand in it.
    pub fn plain_secrets(&self) -> Vec<Vec<u8>> {
        let read = |name: &str| fs::read(self.state(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
        let mut secrets = vec![SECRET.as_bytes().to_vec(), read("instance.key")];
        let audit = String::from_utf8(read("audit.key")).expect("PEM");
        secrets.extend(pem(&audit));
        let ca: Value = serde_json::from_slice(&read("ca.key")).expect("JSON");
        for authority in ca["authorities"].as_array().expect("a list") {
            secrets.extend(pem(authority["key"].as_str().expect("PEM")));
        }
        secrets
    }
}

/// What a running broker keeps.
pub fn kept(broker: &Attache) -> Kept {
    let text = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let env = broker.json(&["session", "env", "s"]);
    let placeholder = env.as_object().expect("variables").values().next().expect("a placeholder").to_string();
    let listed = broker.json(&["credential", "list"]);
    let fingerprint = listed[0]["fingerprint"].as_str().unwrap_or_else(|| panic!("{listed:#}")).to_owned();
    Kept { placeholder, ca: text(broker.cli(&["ca", "export"])), fingerprint }
}

/// A private key: its text, its bytes, and the 32 bytes that are the secret of it.
fn pem(text: &str) -> Vec<Vec<u8>> {
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(&body).expect("base64");
    let seed = der.windows(34).find(|window| window.starts_with(&[4, 32])).map(|window| window[2..].to_vec());
    // What follows is the public half, which certificates show.
    let lines = text.lines().filter(|line| !line.starts_with("-----")).take(2);
    [vec![der], seed.into_iter().collect(), lines.map(|line| line.as_bytes().to_vec()).collect()].concat()
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for text in [STANDARD.encode(secret), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)] {
        forms.push(text.into_bytes());
    }
    forms
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (kind, to) = (entry.file_type().expect("a kind"), to.join(entry.file_name()));
        if kind.is_dir() {
            fs::create_dir(&to).expect("a directory");
            fs::set_permissions(&to, PermissionsExt::from_mode(0o700)).expect("ours");
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}
