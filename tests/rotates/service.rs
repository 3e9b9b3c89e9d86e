//! A stand-in for a service whose secrets can be rotated: files in a directory, changed by a script that keeps to the
//! contract in docs/rotation.md; and a broker without an Envoy.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use attache_tests::oracle::Audit;
use attache_tests::stack::SOON;
use attache_tests::{Attache, util};
use serde_json::Value;
use tempfile::TempDir;

/// The first secret of the service.
pub const FIRST: &str = "rot-secret-0-of-the-service-0123456789";

/// The secret that it makes at its `n`th rotation.
pub fn secret(n: usize) -> String {
    format!("rot-secret-{n}-of-the-service-0123456789")
}

/// `valid` holds what it takes, a line each; `made` what it has made, by the id of the rotation. While there is a file
/// `block-WHEN`, the script waits there and there is a file `at-WHEN`.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
cd SERVICE
echo $$ > pid
at() {
    touch "at-$1"
    while [ -e "block-$1" ]; do sleep 0.02; done
    rm -f "at-$1"
}
IFS= read -r secret
echo "$1 $ATTACHE_ROTATION_ID $ATTACHE_CREDENTIAL" >> calls
at begin
[ ! -e fail ] || exit 1
case $1 in
rotate)
    if [ ! -e "made-$ATTACHE_ROTATION_ID" ]; then
        grep -qxF -- "$secret" valid || exit 2
        new="rot-secret-$(($(ls | grep -c "^made-" || true) + 1))-of-the-service-0123456789"
        echo "$new" > "making-$ATTACHE_ROTATION_ID"
        echo "$new" >> valid
        mv "making-$ATTACHE_ROTATION_ID" "made-$ATTACHE_ROTATION_ID"
    fi
    at made
    cat "made-$ATTACHE_ROTATION_ID"
    at printed
    ;;
retire)
    grep -vxF -- "$secret" valid > left
    mv left valid
    at retired
    ;;
*) exit 3 ;;
esac
"#;

/// The service.
pub struct Service {
    dir: TempDir,
}

impl Service {
    /// One that takes the first secret.
    pub fn new() -> Self {
        let service = Self { dir: util::temp_dir() };
        std::fs::write(service.path("valid"), format!("{FIRST}\n")).expect("a file");
        service.script("rotate", &SCRIPT.replace("SERVICE", &service.dir.path().display().to_string()));
        service
    }

    /// A file of its.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The script that rotates.
    pub fn command(&self) -> String {
        self.path("rotate").display().to_string()
    }

    /// Writes a script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a script");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("a script");
        path
    }

    /// What it takes now.
    pub fn valid(&self) -> Vec<String> {
        lines(&self.path("valid"))
    }

    /// How often it was called with this action.
    pub fn calls(&self, action: &str) -> Vec<String> {
        lines(&self.path("calls")).into_iter().filter(|call| call.starts_with(action)).collect()
    }

    /// How many secrets it has made.
    pub fn made(&self) -> usize {
        let all = std::fs::read_dir(self.dir.path()).expect("a directory").flatten();
        all.filter(|file| file.file_name().to_string_lossy().starts_with("made-")).count()
    }

    /// From now on the script waits there.
    pub fn block(&self, when: &str) {
        std::fs::write(self.path(&format!("block-{when}")), "").expect("a file");
    }

    /// It goes on.
    pub fn unblock(&self, when: &str) {
        std::fs::remove_file(self.path(&format!("block-{when}"))).expect("it was blocked");
    }

    /// Waits until the script waits there.
    pub async fn waits(&self, when: &str) {
        let at = self.path(&format!("at-{when}"));
        util::eventually(SOON, || at.exists()).await;
    }
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A broker with one credential that is rotated.
pub struct World {
    pub service: Service,
    pub dir: TempDir,
    pub broker: Attache,
}

impl World {
    /// With the service's script, and this beside it in `rotation`.
    pub async fn new(rotation: &str) -> Self {
        let service = Service::new();
        let command = service.command();
        Self::with(service, &format!("command: [{command}], {rotation}"), &[]).await
    }

    /// With this `rotation`, and these variables in the broker's environment.
    pub async fn with(service: Service, rotation: &str, env: &[(&str, &str)]) -> Self {
        Self::beside_this(service, rotation, "", env).await
    }

    /// The same, with more at the top level of the config.
    pub async fn beside_this(service: Service, rotation: &str, more: &str, env: &[(&str, &str)]) -> Self {
        let dir = util::temp_dir();
        let config = dir.path().join("attache.yaml");
        let yaml = format!(
            "state_dir: state\n{more}listen: {{proxy: '127.0.0.1:0'}}\ncredentials:\n  rot:\n    source: {{file: rot}}\n    \
             inject: bearer\n    destinations: [{{host: rot.test}}]\n    rotation: {{{rotation}}}\nsessions:\n  - {{name: \
             rotor, credentials: [rot]}}\nlimits: {{stale_after: 2s}}\n"
        );
        std::fs::write(&config, yaml).expect("the config");
        let secrets = dir.path().join("state/default/secrets");
        std::fs::create_dir_all(&secrets).expect("a directory");
        for dir in secrets.ancestors().take(3) {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).expect("private");
        }
        std::fs::write(secrets.join("rot"), FIRST).expect("a secret");
        std::fs::set_permissions(secrets.join("rot"), PermissionsExt::from_mode(0o600)).expect("private");
        let broker = Attache::serve(&config, env).await;
        Self { service, dir, broker }
    }

    /// A file beside the secret, or with `""` itself.
    pub fn beside(&self, side: &str) -> PathBuf {
        self.dir.path().join(format!("state/default/secrets/rot{side}"))
    }

    /// The secret that the broker has on disk.
    pub fn kept(&self) -> String {
        std::fs::read_to_string(self.beside("")).expect("a secret")
    }

    /// What stands beside it.
    pub fn sides(&self) -> Vec<String> {
        let dir = std::fs::read_dir(self.beside("").with_file_name("")).expect("the secrets");
        let mut names: Vec<_> = dir.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "rot" && !name.starts_with(".rot"));
        names.sort();
        names
    }

    /// How its rotation stands.
    pub fn rotation(&self) -> Value {
        self.broker.json(&["credential", "list"])[0]["rotation"].clone()
    }

    /// What an operator's `credential rotate` says.
    pub fn rotate(&self, more: &[&str]) -> (Option<i32>, String) {
        let done = self.broker.cli(&[&["credential", "rotate", "rot"], more].concat());
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs `attache` with this on standard input: whether it was content, and what it said.
    pub fn attache(&self, args: &[&str], input: &str) -> (bool, String) {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut command = Command::new(util::broker_bin());
        command.args(args).arg("--config").arg(self.dir.path().join("attache.yaml"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // One that is refused may end before it reads.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("rot-secret"), "{said}");
        (output.status.success(), said)
    }

    /// The records of this kind.
    pub fn records(&self, kind: &str) -> Vec<Value> {
        let (audit, broken) = Audit::read(Some(&self.dir.path().join("state/default/audit.jsonl")));
        assert!(broken.is_empty(), "{broken:?}");
        audit.of_kind(kind).map(|record| record.json.clone()).collect()
    }

    /// Waits until the last rotation is wholly over.
    pub async fn settled(&self) {
        let over = || {
            let stands = self.rotation();
            assert!(stands["error"].is_null(), "{stands:#}, {:?}, valid {:?}", self.sides(), self.service.valid());
            self.service.valid() == [self.kept()] && self.sides().is_empty()
        };
        util::eventually(3 * SOON, over).await;
    }

    /// No secret stands where nobody has to see it.
    pub fn nothing_leaked(&self) {
        let log = std::fs::read_to_string(self.broker.log_path()).expect("the log");
        let audit = std::fs::read_to_string(self.dir.path().join("state/default/audit.jsonl")).expect("the audit log");
        let database = std::fs::read(self.dir.path().join("state/default/attache.db-wal")).unwrap_or_default();
        for text in [log, audit, String::from_utf8_lossy(&database).into_owned()] {
            assert!(!text.contains("rot-secret"), "{text}");
        }
    }
}

/// Whether a process runs: one that nobody has waited for yet does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
