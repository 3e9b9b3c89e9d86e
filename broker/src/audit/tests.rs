//! The log on a real file system.

use super::key::PublicKey;
use super::verify::{Against, Report, Why};
use super::*;
use crate::config::Checkpoints;
use attache_core::audit::chain::Broken;
use attache_core::wire::UseKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    fn open(&self) -> AuditLog {
        self.open_rotating(u64::MAX)
    }

    fn open_rotating(&self, rotate_bytes: u64) -> AuditLog {
        self.try_open(rotate_bytes, RARELY).unwrap()
    }

    fn try_open(&self, rotate_bytes: u64, checkpoints: Checkpoints) -> Result<AuditLog, FileError> {
        let config = AuditConfig { path: self.path(), rotate_bytes, checkpoints, export: Vec::new() };
        AuditLog::open(&config, &Name::parse("test").unwrap(), key())
    }
}

/// Only the first records of a life, and the last.
const RARELY: Checkpoints = Checkpoints { records: 10_000, every: Duration::from_secs(3600) };

fn key() -> AuditKey {
    AuditKey::from_seed([7; 32])
}

fn keys() -> Vec<PublicKey> {
    vec![key().public()]
}

fn verify(path: &Path, after: Option<String>) -> std::io::Result<Report> {
    super::verify::verify(path, &Against { after, keys: keys(), ..Against::default() })
}

/// All records of a file but its checkpoints.
fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
    all.filter(|line: &serde_json::Value| line["kind"] != "checkpoint").collect()
}

fn start() -> Record {
    Record::new(Kind::Start, 0)
}

fn used(seq: u64) -> UseRecord {
    UseRecord {
        seq,
        kind: UseKind::Use,
        at_ms: 0,
        duration_ms: 1,
        request_id: "r".into(),
        method: "GET".into(),
        authority: "a.test".into(),
        path: "/\u{e9}\u{7f}?q=secret".into(),
        decision: "forward".into(),
        reason: None,
        response_code: 200,
        auth_injected: true,
        intent: None,
        bytes_in: None,
        bytes_out: None,
        upstream: None,
        evidence: "placeholder".into(),
        masked: None,
        destination: None,
        service: None,
        session_id: None,
        session: None,
        access_mode: None,
        credential: None,
        lease_id: None,
        fingerprint: None,
    }
}

/// How many records there are besides checkpoints; all is well with them.
fn intact(path: &Path) -> u64 {
    let report = verify(path, None).unwrap();
    assert_eq!(report.broken, None);
    assert_eq!(report.count, Some(report.lines));
    report.lines - report.checkpoints
}

#[tokio::test]
async fn records_are_chained_numbered_and_there_when_append_returns() {
    let dir = Dir::new();
    let log = dir.open();
    for n in 1..=3 {
        log.append(start()).await.unwrap();
        assert_eq!(intact(&dir.path()), n);
    }
    let seqs = || lines(&dir.path()).iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs(), [1, 3, 4], "2 is the first checkpoint");
    drop(log);
    dir.open().append(start()).await.unwrap();
    assert_eq!(seqs(), [1, 3, 4, 6]);
    assert_eq!(intact(&dir.path()), 4);
}

#[tokio::test]
async fn a_worker_is_told_what_is_durable_and_nothing_stands_twice() {
    let dir = Dir::new();
    let log = dir.open();
    let ask = async |from, to| log.append_uses("w1".into(), None, (from..=to).map(used).collect()).await;
    assert_eq!(ask(1, 3).await, Ok(3));
    assert_eq!(ask(2, 5).await, Ok(5), "what is there already is skipped");
    let torn = [6, 8].map(used).to_vec();
    assert_eq!(log.append_uses("w1".into(), None, torn).await, Ok(6), "what stands behind a hole is not taken");
    assert_eq!(ask(1, 0).await, Ok(6), "an empty batch asks");
    drop(log);
    let log = dir.open();
    let ask = async |from, to| log.append_uses("w1".into(), None, (from..=to).map(used).collect()).await;
    assert_eq!(ask(4, 7).await, Ok(7), "the count outlives a restart");
    let seqs: Vec<_> = lines(&dir.path()).iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(lines(&dir.path())[0]["path"], "/\u{e9}\u{7f}", "no query value");
    assert!(std::fs::read(dir.path()).unwrap().iter().all(|b| b.is_ascii_graphic() || b" \n".contains(b)));
}

/// Somebody else has acknowledged what never came here: another broker in our place, or a log that was
/// set back.
#[tokio::test]
async fn a_worker_that_was_told_more_than_is_here_goes_on_after_a_gap() {
    let dir = Dir::new();
    let log = dir.open();
    let ask = async |from, to| log.append_uses("w1".into(), None, (from..=to).map(used).collect()).await;
    assert_eq!(ask(1, 3).await, Ok(3));
    assert_eq!(ask(9, 10).await, Ok(10), "it waits for this answer, and for no other");
    assert_eq!(ask(9, 11).await, Ok(11), "and goes on without another gap");
    drop(log);
    let lines = lines(&dir.path());
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["use", "use", "use", "gap", "use", "use", "use"]);
    assert!(lines[3]["reason"].as_str().unwrap().contains("of worker w1 between its numbers 3 and 9"), "{}", lines[3]);
    assert_eq!(intact(&dir.path()), 7);
}

#[tokio::test]
async fn a_worker_first_heard_of_in_the_middle_leaves_a_gap() {
    let dir = Dir::new();
    let log = dir.open();
    assert_eq!(log.append_uses("w1".into(), None, vec![used(5)]).await, Ok(5));
    let lines = lines(&dir.path());
    assert_eq!((&lines[0]["kind"], &lines[1]["seq"]), (&"gap".into(), &5.into()));
    assert!(lines[0]["reason"].as_str().unwrap().contains("worker w1 before its number 5"));
}

#[tokio::test]
async fn a_torn_end_is_moved_aside_and_recorded() {
    for torn in ["{\"timestamp\":\"20", "garbage\n", "garbage\nand {\"more"] {
        let dir = Dir::new();
        let log = dir.open();
        log.append(start()).await.unwrap();
        drop(log);
        let mut content = std::fs::read_to_string(dir.path()).unwrap();
        content.push_str(torn);
        std::fs::write(dir.path(), content).unwrap();
        let report = verify(&dir.path(), None).unwrap();
        assert_eq!(report.broken.map(|b| b.line), Some(3), "{torn:?}");
        let log = dir.open();
        log.append(start()).await.unwrap();
        assert_eq!(intact(&dir.path()), 3, "{torn:?}");
        let lines = lines(&dir.path());
        assert_eq!((&lines[1]["kind"], &lines[1]["seq"]), (&"gap".into(), &3.into()));
        let aside = std::fs::read_to_string(dir.0.path().join("audit.jsonl.torn")).unwrap();
        assert_eq!(aside, format!("{torn}\n"));
    }
}

#[tokio::test]
async fn the_first_changed_line_is_named() {
    let dir = Dir::new();
    let log = dir.open();
    for _ in 0..4 {
        log.append(start()).await.unwrap();
    }
    let content = std::fs::read_to_string(dir.path()).unwrap();
    let mut forged: Vec<_> = content.lines().map(str::to_owned).collect();
    forged[3] = forged[3].replace("\"start\"", "\"stop\" ");
    std::fs::write(dir.path(), forged.join("\n") + "\n").unwrap();
    let broken = verify(&dir.path(), None).unwrap().broken.unwrap();
    assert_eq!((broken.line, broken.why.to_string()), (4, "the line was changed".into()));
}

#[tokio::test]
async fn the_chain_runs_through_rotated_files() {
    let dir = Dir::new();
    let log = dir.open_rotating(700);
    for _ in 0..7 {
        log.append(start()).await.unwrap();
    }
    drop(log);
    let log = dir.open_rotating(700);
    log.append(start()).await.unwrap();
    let report = verify(&dir.path(), None).unwrap();
    assert_eq!((report.broken, report.lines - report.checkpoints), (None, 8));
    assert!(report.files.len() > 2, "{:?}", report.files);
    std::fs::remove_file(&report.files[0]).unwrap();
    assert!(verify(&dir.path(), None).unwrap().broken.is_some(), "a dropped beginning is seen");
}

#[tokio::test]
async fn concurrent_appends_are_each_durable() {
    let dir = Dir::new();
    let log = Arc::new(dir.open());
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { log.append(start()).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(intact(&dir.path()), 200);
}

#[tokio::test]
async fn a_file_that_is_disturbed_stops_all_until_it_can_be_written_again() {
    let dir = Dir::new();
    let log = dir.open();
    log.append(start()).await.unwrap();
    std::fs::remove_file(dir.path()).unwrap();
    std::fs::create_dir(dir.path()).unwrap();
    assert_eq!(log.append(start()).await, Err(Unavailable));
    assert_eq!(log.append_uses("w".into(), None, vec![used(1)]).await, Err(Unavailable));
    assert!(log.fault().is_some());
    std::fs::remove_dir(dir.path()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while log.fault().is_some() {
        assert!(Instant::now() < deadline, "recovers by itself");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(log.append_uses("w".into(), None, vec![used(1)]).await, Ok(1), "what was refused can be sent again");
    let lines = lines(&dir.path());
    assert_eq!(lines[0]["kind"], "gap");
    assert_eq!(verify(&dir.path(), None).unwrap().broken.map(|b| b.line), Some(1), "the removal shows");
    let head = lines[0]["prev"].as_str().unwrap().to_owned();
    assert_eq!(verify(&dir.path(), Some(head)).unwrap().broken, None);
}

#[tokio::test]
async fn a_cut_file_shows_as_a_broken_link() {
    let dir = Dir::new();
    let log = dir.open();
    for _ in 0..3 {
        log.append(start()).await.unwrap();
    }
    let content = std::fs::read_to_string(dir.path()).unwrap();
    let first = content.lines().next().unwrap();
    std::fs::write(dir.path(), format!("{first}\n{{\"half")).unwrap();
    assert_eq!(log.append(start()).await, Err(Unavailable));
    let deadline = Instant::now() + Duration::from_secs(10);
    while log.append(start()).await.is_err() {
        assert!(Instant::now() < deadline, "recovers by itself");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let broken = verify(&dir.path(), None).unwrap().broken.unwrap();
    assert_eq!((broken.line, broken.why), (2, Why::Chain(Broken::Unlinked)));
}

#[test]
fn links_shared_files_and_other_writers_are_refused() {
    let dir = Dir::new();
    let open = || dir.try_open(u64::MAX, RARELY).map(drop);
    let log = dir.open();
    assert!(matches!(open(), Err(FileError::InUse(_))));
    drop(log);
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o620)).unwrap();
    assert!(matches!(open(), Err(FileError::Exposed(_))));
    std::fs::rename(dir.path(), dir.0.path().join("other")).unwrap();
    std::os::unix::fs::symlink(dir.0.path().join("other"), dir.path()).unwrap();
    assert!(matches!(open(), Err(FileError::NotAFile(_))));
}

mod proof;
