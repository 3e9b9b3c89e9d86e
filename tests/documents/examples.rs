//! Every config, command and query that a document shows, works.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use attache_broker::audit::key::AuditKey;
use attache_broker::audit::{AuditLog, Kind, Record};
use attache_broker::config::{AuditConfig, Checkpoints, Config, Overrides};
use attache_broker::private_file::PrivateDir;
use attache_broker::seal::Safe;
use attache_core::audit::chain;
use attache_core::names::Name;
use attache_tests::util::temp_dir;

use serde_json::{Value, json};

use super::tables::full;
use super::{at, documents, none, read};

/// What stands after the fence of a block of objects of Kubernetes.
const MANIFEST: &str = "yaml kubernetes";

#[test]
fn every_config_that_is_shown_is_good() {
    let dir = temp_dir();
    let mut complaints = Vec::new();
    let mut configs = vec![("envoy/attache.yaml".to_owned(), read(&at("envoy/attache.yaml")))];
    for document in documents() {
        let is_config = |info: &str| info.starts_with("yaml") && info != MANIFEST;
        let yaml = document.blocks.iter().filter(|block| is_config(&block.info));
        configs.extend(yaml.map(|block| (document.place(block.line), block.text.clone())));
    }
    assert!(configs.len() >= 4, "the examples are not found");
    for (place, text) in configs {
        let file = dir.path().join("attache.yaml");
        std::fs::write(&file, text).expect("a config");
        let overrides = Overrides { state_dir: Some(dir.path().join("state")), ..Overrides::default() };
        let home = |name: &str| (name == "HOME").then(|| dir.path().display().to_string());
        if let Err(errors) = Config::load(Some(&file), &overrides, &home) {
            complaints.push(format!("{place}: {errors}"));
        }
    }
    none(complaints);
}

/// What is shown of a cluster is one: each object has a kind and a name, a Role gives no more than it says it does, and
/// what is named is there.
#[test]
fn every_manifest_that_is_shown_is_one() {
    let mut complaints = Vec::new();
    let mut kinds = Vec::new();
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.info == MANIFEST) {
            let place = document.place(block.line);
            let objects: Result<Vec<Value>, _> = block.text.split("\n---\n").map(serde_saphyr::from_str).collect();
            match objects {
                Ok(objects) => {
                    complaints.extend(unsound(&objects).into_iter().map(|why| format!("{place}: {why}")));
                    kinds.extend(objects.iter().filter_map(|object| object["kind"].as_str().map(str::to_owned)));
                }
                Err(why) => complaints.push(format!("{place}: {why}")),
            }
        }
    }
    none(complaints);
    for kind in ["Deployment", "Role", "RoleBinding", "ServiceAccount"] {
        assert!(kinds.iter().any(|known| known == kind), "no {kind} is shown");
    }
}

/// What is wrong with the objects of one block.
fn unsound(objects: &[Value]) -> Vec<String> {
    let is_there = |kind: &Value, name: &Value| {
        objects.iter().any(|object| object["kind"] == *kind && object["metadata"]["name"] == *name)
    };
    let mut complaints = Vec::new();
    for object in objects {
        let named = [&object["apiVersion"], &object["kind"], &object["metadata"]["name"]];
        if named.iter().any(|text| text.as_str().is_none_or(str::is_empty)) {
            complaints.push("an object without apiVersion, kind or name".to_owned());
        }
        for rule in object["rules"].as_array().into_iter().flatten() {
            let names_each = rule["resourceNames"].as_array().is_some_and(|names| !names.is_empty());
            if rule["resources"] != json!(["secrets"]) || rule["verbs"] != json!(["get"]) || !names_each {
                complaints.push("a rule that gives more than `get` on named Secrets".to_owned());
            }
        }
        if object["kind"] == "RoleBinding" {
            let role = &object["roleRef"];
            let subjects = object["subjects"].as_array().into_iter().flatten();
            let mut all = subjects.map(|one| (&one["kind"], &one["name"])).chain([(&role["kind"], &role["name"])]);
            if !all.all(|(kind, name)| is_there(kind, name)) {
                complaints.push("a binding of what is not there".to_owned());
            }
        }
        let pod = &object["spec"]["template"]["spec"];
        let volumes: Vec<_> = pod["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
        let containers = pod["containers"].as_array().into_iter().flatten();
        let mut mounts = containers.flat_map(|container| container["volumeMounts"].as_array().into_iter().flatten());
        if !mounts.all(|mount| volumes.contains(&&mount["name"]) && mount["mountPath"].is_string()) {
            complaints.push("a mount of no volume".to_owned());
        }
    }
    complaints
}

#[test]
fn every_json_that_is_shown_is_json() {
    let mut complaints = Vec::new();
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.info == "json") {
            if let Err(why) = serde_json::from_str::<serde_json::Value>(&block.text) {
                complaints.push(format!("{}: {why}", document.place(block.line)));
            }
        }
    }
    none(complaints);
}

#[test]
fn every_block_of_shell_is_shell() {
    let mut complaints = Vec::new();
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.info.starts_with("sh")) {
            let checked = bash(&["-n"], &block.text, Path::new("/"));
            if !checked.status.success() {
                let why = String::from_utf8_lossy(&checked.stderr).into_owned();
                complaints.push(format!("{}: {why}", document.place(block.line)));
            }
        }
    }
    none(complaints);
}

/// Every query of the audit page answers from a log that holds what it asks for; the one for uses
/// without an issue finds nothing there, and both uses in a log from which their issue is gone.
#[test]
fn every_query_of_the_log_answers() {
    let root = at("");
    let need = bash(&["-s"], "scripts/need jq", &root);
    if !need.status.success() {
        attache_tests::util::skipped(format_args!("jq is not here: {}", String::from_utf8_lossy(&need.stderr).trim()));
        return;
    }
    let page = documents().into_iter().find(|page| page.path == Path::new("docs/audit.md")).expect("the page");
    let queries: Vec<_> = page.blocks.iter().filter(|block| block.info == "sh jq").collect();
    assert!(queries.len() >= 5, "the queries are not found");
    let (honest, forged) = (temp_dir(), temp_dir());
    write_log(honest.path(), &sample());
    write_log(forged.path(), &sample()[1..]);
    for query in queries {
        let ask = |dir: &Path| {
            let asked = bash(&["-o", "pipefail", "-s"], &query.text, dir);
            let why = String::from_utf8_lossy(&asked.stderr).into_owned();
            assert!(asked.status.success() && why.is_empty(), "{}: {why}", page.place(query.line));
            String::from_utf8_lossy(&asked.stdout).lines().count()
        };
        match query.text.contains("foreach") {
            true => assert_eq!((ask(honest.path()), ask(forged.path())), (0, 2), "{}", page.place(query.line)),
            false => assert!(ask(honest.path()) > 0, "{}: no answer", page.place(query.line)),
        }
    }
}

/// The page's way to verify a checkpoint by hand, on a log as the broker writes it.
#[tokio::test]
async fn a_checkpoint_can_be_verified_by_hand() {
    let root = at("");
    let need = bash(&["-s"], "scripts/need jq openssl", &root);
    if !need.status.success() {
        attache_tests::util::skipped(format_args!(
            "jq or openssl is not here: {}",
            String::from_utf8_lossy(&need.stderr).trim()
        ));
        return;
    }
    let page = documents().into_iter().find(|page| page.path == Path::new("docs/audit.md")).expect("the page");
    let block = page.blocks.iter().find(|block| block.info == "sh by-hand").expect("the example");
    let temp = temp_dir();
    let safe = Safe::plain(PrivateDir::open_or_create(&temp.path().join("state")).expect("a directory"));
    let (key, dir) = (AuditKey::open_or_create(&safe).expect("a key"), safe.dir());
    let checkpoints = Checkpoints { records: 2, every: Duration::from_secs(60) };
    let path = dir.path().join("audit.jsonl");
    let config = AuditConfig { path, rotate_bytes: u64::MAX, checkpoints, export: Vec::new() };
    let log = AuditLog::open(&config, &Name::parse("default").expect("a name"), key).expect("a log");
    for _ in 0..3 {
        log.append(Record::new(Kind::Start, full().at_ms)).await.expect("a record");
    }
    drop(log);
    let shown = bash(&["-euo", "pipefail", "-s"], &block.text, dir.path());
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    let lines: Vec<_> = said.lines().collect();
    assert!(shown.status.success(), "{said}{}", String::from_utf8_lossy(&shown.stderr));
    assert_eq!(lines[0], "Signature Verified Successfully");
    assert_eq!(lines[1].split(' ').next(), Some(lines[2]), "the hash of the line");
    // Of another count, it is no signature.
    let forged = block.text.replace("$(member count)", "1");
    assert!(!bash(&["-euo", "pipefail", "-s"], &forged, dir.path()).status.success());
}

/// The page's rotator, as the broker runs it: once more does no harm, and both are good until one is retired.
#[test]
fn the_rotator_that_is_shown_keeps_to_the_contract() {
    let page = documents().into_iter().find(|page| page.path == Path::new("docs/rotation.md")).expect("the page");
    let block = page.blocks.iter().find(|block| block.info == "sh rotator").expect("the example");
    let service = temp_dir();
    std::fs::write(service.path().join("valid"), "the-first-secret\n").expect("a file");
    let script = service.path().join("rotate");
    std::fs::write(&script, &block.text).expect("a script");
    let run = |action: &str, id: &str, line: &str| {
        let mut command = Command::new("sh");
        command.arg(&script).arg(service.path()).arg(action).current_dir("/").env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("ATTACHE_ROTATION_ID", id);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh runs");
        writeln!(child.stdin.take().expect("its input"), "{line}").expect("a line");
        let done = child.wait_with_output().expect("sh ends");
        assert!(done.status.success(), "{action}");
        String::from_utf8(done.stdout).expect("text")
    };
    let valid = || std::fs::read_to_string(service.path().join("valid")).expect("a file");
    let new = run("rotate", "r-1", "the-first-secret");
    assert!(new.ends_with('\n') && new.lines().count() == 1 && new.len() > 40, "{new}");
    assert_eq!(run("rotate", "r-1", "the-first-secret"), new, "one rotation, one secret");
    assert_eq!(valid(), format!("the-first-secret\n{new}"));
    for _ in 0..2 {
        assert_eq!(run("retire", "r-1", "the-first-secret"), "");
        assert_eq!(valid(), new);
    }
    assert_ne!(run("rotate", "r-2", new.trim()), new);
}

/// An issue, its use, another that was cut, a refusal, an answer of Envoy's own, a gap, a checkpoint, and an
/// intent of which nothing has come yet.
fn sample() -> [Record; 8] {
    let issue = Record { kind: Kind::Issue, auth_injected: false, method: None, path: None, ..full() };
    let used = Record { reason: None, issued_to: None, ttl_ms: None, ..full() };
    let cut = Record { reason: Some("session_expired".into()), issued_to: None, ttl_ms: None, ..full() };
    let refused = Record { kind: Kind::Deny, auth_injected: false, issued_to: None, ttl_ms: None, ..full() };
    let gap = Record { reason: Some("records are missing".into()), ..Record::new(Kind::Gap, full().at_ms) };
    let checkpoint = Record { kind: Kind::Checkpoint, auth_injected: false, issued_to: None, ttl_ms: None, ..full() };
    let by_envoy = Record { reason: Some("not_decided".into()), ..refused.clone() };
    let (worker, decision) = ("broker".into(), None);
    let intent = Record { kind: Kind::Intent, auth_injected: false, worker, decision, intent: Some(8), ..full() };
    [issue, used, cut, refused, by_envoy, gap, checkpoint, intent]
}

fn write_log(dir: &Path, records: &[Record]) {
    let mut file = std::fs::File::create(dir.join("audit.jsonl")).expect("a log");
    let mut head = chain::genesis();
    for record in records {
        let record = serde_json::to_string(record).expect("a record is JSON");
        let (line, hash) = chain::seal(&record, &head).expect("a record is one line");
        writeln!(file, "{line}").expect("a line");
        head = hash;
    }
}

fn bash(args: &[&str], script: &str, dir: &Path) -> Output {
    let mut command = Command::new("bash");
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("bash runs");
    child.stdin.take().expect("its input").write_all(script.as_bytes()).expect("a script");
    child.wait_with_output().expect("bash ends")
}
