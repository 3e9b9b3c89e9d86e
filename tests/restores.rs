//! Backups of the state directory, and what restoring one does: to sessions, placeholders and the audit log. These are the
//! claims of docs/operations.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use attache_tests::{Attache, util};
use serde_json::Value;
use tempfile::TempDir;

/// One instance, and copies of its state.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { dir: util::temp_dir() };
        let yaml = "state_dir: state\nlimits: {stale_after: 2s}\ncredentials:\n  it: {source: {env: IT}, inject: bearer, destinations: [{host: a.test}]}\n\
                    sessions: [{name: declared, credentials: [it]}]\n";
        std::fs::write(scene.path("attache.yaml"), yaml).expect("a config");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn broker(&self) -> Attache {
        Attache::serve(&self.path("attache.yaml"), &[("IT", "the-real-secret-0123456789abcdef")]).await
    }

    /// Copies with owners, modes and times, as a backup does.
    fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("cp").arg("-a").arg(self.path(from)).arg(self.path(to)).status();
        assert!(copied.is_ok_and(|status| status.success()), "cp -a {from} {to}");
    }

    /// Puts a backup in the place of what is there, which is kept beside it.
    fn restore(&self, backup: &str) {
        std::fs::rename(self.path("state"), self.path("newer")).expect("it is moved");
        self.copy(backup, "state");
    }

    /// One that has made a session and was backed up; then both sessions were revoked, and an anchor was kept.
    async fn revoked_after_a_backup(&self) -> (Value, String) {
        let broker = self.broker().await;
        assert!(broker.cli(&["session", "create", "made", "--credential", "it"]).status.success());
        let placeholders = placeholders(&broker);
        end(&broker).await;
        self.copy("state", "backup");
        let broker = self.broker().await;
        for name in ["declared", "made"] {
            assert!(broker.cli(&["session", "revoke", name]).status.success());
        }
        let anchor = said(&broker, &["audit", "head"]).trim().to_owned();
        end(&broker).await;
        (placeholders, anchor)
    }
}

/// Ends it in order.
async fn end(broker: &Attache) {
    broker.signal("TERM");
    util::eventually(std::time::Duration::from_secs(10), || !broker.alive()).await;
}

fn said(broker: &Attache, args: &[&str]) -> String {
    let output = broker.cli(args);
    assert!(output.status.success(), "attache {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn live(broker: &Attache) -> Vec<String> {
    let listed = broker.json(&["session", "list"]);
    let live = listed.as_array().expect("sessions").iter().filter(|session| session["state"] == "live");
    live.map(|session| session["name"].as_str().expect("a name").to_owned()).collect()
}

fn placeholders(broker: &Attache) -> Value {
    live(broker).iter().map(|name| broker.json(&["session", "env", name])).collect()
}

fn holds(broker: &Attache, anchor: &str) -> bool {
    broker.cli(&["audit", "verify", "--head", anchor]).status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_broker_that_runs_is_a_backup() {
    let scene = Scene::new();
    let broker = scene.broker().await;
    assert!(broker.cli(&["session", "create", "made", "--credential", "it"]).status.success());
    let before = placeholders(&broker);
    // Nothing is written meanwhile: as in a snapshot of the whole volume, which has one moment.
    broker.signal("STOP");
    scene.copy("state", "snapshot");
    broker.signal("CONT");
    end(&broker).await;
    scene.restore("snapshot");
    let broker = scene.broker().await;
    assert_eq!((live(&broker), placeholders(&broker)), (vec!["declared".to_owned(), "made".to_owned()], before));
    assert!(broker.cli(&["audit", "verify"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_before_a_revocation_lets_sessions_live_again_and_an_anchor_tells() {
    let scene = Scene::new();
    let (placeholders_then, anchor) = scene.revoked_after_a_backup().await;
    scene.restore("backup");
    let broker = scene.broker().await;
    // The declared one, too, and what agents were given then works again.
    assert_eq!(live(&broker), ["declared", "made"]);
    assert_eq!(placeholders(&broker), placeholders_then);
    // The log of the backup verifies by itself: only what was kept elsewhere shows that it had gone on.
    assert!(broker.cli(&["audit", "verify"]).status.success());
    assert!(!holds(&broker, &anchor));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_newer_log_a_restore_misses_no_record_and_the_log_says_whom_to_revoke() {
    let scene = Scene::new();
    let (_, anchor) = scene.revoked_after_a_backup().await;
    scene.restore("backup");
    for file in logs(&scene.path("newer/default")) {
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, scene.path("state/default").join(name)).expect("a file of the log");
    }
    let broker = scene.broker().await;
    assert!(holds(&broker, &anchor));
    let gaps = said(&broker, &["audit", "query", "--kind", "gap", "--json"]);
    assert!(gaps.contains("were not noted before this start"), "{gaps}");
    assert_eq!(live(&broker), ["declared", "made"], "the log revokes nobody by itself");
    let told = said(&broker, &["audit", "query", "--kind", "revoke", "--since", "1h", "--json"]);
    let names: Vec<_> = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect();
    let mut names: Vec<_> = names.iter().filter_map(|record| record["session"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["declared", "made"]);
    for name in names {
        assert!(broker.cli(&["session", "revoke", name]).status.success());
    }
    assert!(live(&broker).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_the_database_makes_every_placeholder_void_and_keeps_the_log() {
    let scene = Scene::new();
    let (placeholders_then, anchor) = scene.revoked_after_a_backup().await;
    scene.restore("backup");
    std::fs::remove_file(scene.path("state/default/attache.db")).expect("the database");
    for file in logs(&scene.path("newer/default")) {
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, scene.path("state/default").join(name)).expect("a file of the log");
    }
    let broker = scene.broker().await;
    assert_eq!(live(&broker), ["declared"], "what an operator made is gone");
    let now = placeholders(&broker);
    for placeholder in strings(&placeholders_then) {
        assert!(!strings(&now).contains(&placeholder), "{placeholder} is good again");
    }
    assert!(holds(&broker, &anchor));
}

/// The values that only one session has.
fn strings(value: &Value) -> Vec<String> {
    let sessions = value.as_array().expect("sessions").iter();
    let values = sessions.flat_map(|env| env.as_object().expect("variables").values());
    values.filter_map(|value| value.as_str()).filter(|text| !text.starts_with("http")).map(str::to_owned).collect()
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit.jsonl"))).collect()
}
