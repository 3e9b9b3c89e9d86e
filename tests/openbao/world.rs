//! A broker alone, whose one credential is in OpenBao.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use attache_tests::oracle::Audit;
use attache_tests::{Attache, util};
use serde_json::Value;
use tempfile::TempDir;

/// How long what must come may take.
pub const SOON: Duration = Duration::from_secs(30);

/// Files of one broker.
pub struct World {
    dir: TempDir,
}

impl World {
    /// With this text below `sources:` and this `source:` of its credential `it`.
    pub fn new(sources: &str, source: &str) -> Self {
        let dir = util::temp_dir();
        let yaml = format!(
            "state_dir: state\n{sources}credentials:\n  it: {{source: {source}, inject: bearer, destinations: [{{host: \
             a.test}}]}}\nsessions: [{{name: s, credentials: [it]}}]\n"
        );
        let world = Self { dir };
        std::fs::write(world.config(), yaml).expect("the config");
        std::fs::create_dir_all(world.path("state/default/secrets")).expect("directories");
        for dir in ["state", "state/default", "state/default/secrets"] {
            std::fs::set_permissions(world.path(dir), PermissionsExt::from_mode(0o700)).expect("private");
        }
        world
    }

    pub fn config(&self) -> PathBuf {
        self.path("attache.yaml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file where secrets are.
    pub fn deliver(&self, name: &str, text: &str) {
        let (path, beside) = (self.path("state/default/secrets").join(name), self.path("beside"));
        std::fs::write(&beside, format!("{text}\n")).expect("a file");
        std::fs::set_permissions(&beside, PermissionsExt::from_mode(0o600)).expect("private");
        std::fs::rename(beside, path).expect("in place");
    }

    pub fn has(&self, name: &str) -> bool {
        self.path("state/default/secrets").join(name).exists()
    }

    /// Starts the broker, at the loudest.
    pub async fn serve(&self, env: &[(&str, &str)]) -> Attache {
        // A proxy that nobody is: who asks it gets no answer.
        let own =
            [("ATTACHE_LOG", "trace"), ("HTTPS_PROXY", "http://127.0.0.1:9"), ("HTTP_PROXY", "http://127.0.0.1:9")];
        let env: Vec<_> = own.into_iter().chain(env.iter().copied()).collect();
        Attache::serve(&self.config(), &env).await
    }

    /// The records of a kind.
    pub fn records(&self, kind: &str) -> Vec<String> {
        let (audit, _) = Audit::read(Some(&self.path("state/default/audit.jsonl")));
        audit.of_kind(kind).map(|record| record.text("reason")).collect()
    }

    /// What `/readyz` says on the operators' door.
    pub async fn ready(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let stream = tokio::net::UnixStream::connect(self.path("state/default/control.sock")).await;
        let mut stream = stream.expect("the operators' door");
        let head = b"GET /readyz HTTP/1.1\r\nhost: attache\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.expect("a question");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Everything that anybody could read of the broker: its log, its records, what it says of its credentials.
    pub fn everything(&self, broker: &Attache) -> String {
        let read = |path: PathBuf| std::fs::read(path).unwrap_or_default();
        let mut all = read(broker.log_path().to_owned());
        all.extend(read(self.path("state/default/audit.jsonl")));
        for args in [&["credential", "list", "--json"][..], &["credential", "list"], &["credential", "test", "it"]] {
            let output = broker.cli(args);
            all.extend(output.stdout);
            all.extend(output.stderr);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// How the one credential stands.
pub fn standing(broker: &Attache) -> Value {
    broker.json(&["credential", "list"])[0].clone()
}

/// Waits until the credential stands like this.
#[track_caller]
pub fn until(broker: &Attache, what: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + SOON;
        loop {
            let now = standing(broker);
            if what(&now) {
                return now;
            }
            assert!(Instant::now() < end, "at {caller}, it stands: {now:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until it cannot be used, or asked for, and the reason has these words.
#[track_caller]
pub fn until_says(broker: &Attache, words: &'static str) -> impl Future<Output = Value> {
    until(broker, move |now| says(now).contains(words))
}

/// Why it cannot be used, or asked for.
pub fn says(standing: &Value) -> String {
    let text = |name: &str| standing[name].as_str().unwrap_or_default().to_owned();
    format!("{}{}; {}", text("error"), text("trouble"), text("fix"))
}

/// Waits until it can be used, and nothing is wrong.
#[track_caller]
pub fn until_well(broker: &Attache) -> impl Future<Output = Value> {
    until(broker, |now| now["fingerprint"].is_string() && now["error"].is_null() && now["trouble"].is_null())
}
