//! Workers that come and go, on a real log.

use super::*;
use crate::audit::key::AuditKey;
use crate::changes::Poll;
use crate::config::{AuditConfig, Checkpoints};
use std::path::PathBuf;

const STALE: Duration = Duration::from_millis(60);
/// Nobody is stale in this test.
const NEVER: Duration = Duration::from_secs(3600);
const TTL: Duration = Duration::from_secs(300);

struct Life {
    path: PathBuf,
    feed: Arc<Feed>,
    audit: Arc<AuditLog>,
    outstanding: Outstanding,
}

impl Life {
    fn begin(dir: &tempfile::TempDir) -> Self {
        Self::begin_at(dir, Now::read(), STALE)
    }

    fn begin_at(dir: &tempfile::TempDir, now: Now, stale: Duration) -> Self {
        let path = dir.path().join("audit.jsonl");
        let checkpoints = Checkpoints { records: 1000, every: LONGEST_USE };
        let config = AuditConfig { path: path.clone(), rotate_bytes: 2000, checkpoints, export: Vec::new() };
        let log = AuditLog::open(&config, &Name::parse("test").unwrap(), AuditKey::from_seed([1; 32])).unwrap();
        let (audit, feed) = (Arc::new(log), Arc::new(Feed::new("p".into(), stale).unwrap()));
        let outstanding = Outstanding::rebuild(&path, now, stale, feed.clone(), audit.clone()).unwrap();
        Self { path, feed, audit, outstanding }
    }

    async fn issue(&self, worker: &str, lease: &str) {
        let issue = Record {
            session: Name::parse("reviewer").ok(),
            credential: Name::parse("github").ok(),
            lease_id: Some(lease.into()),
            issued_to: Some(worker.into()),
            count: Some(5),
            ..Record::new(Kind::Issue, Now::read().wall_ms)
        };
        self.outstanding.issued(&issue, TTL);
        self.audit.append(issue).await.unwrap();
    }

    async fn poll(&self, worker: &str) {
        self.feed.poll(Poll { worker, epoch: "", after: 0, wait: Duration::ZERO }).await.unwrap();
    }

    /// The workers and leases that were told of, in the order of the log.
    fn told(&self) -> Vec<(String, String)> {
        let mut told = Vec::new();
        for opened in Files::of(&self.path).unwrap() {
            let (_, file) = opened.unwrap();
            for line in BufReader::new(file).lines() {
                let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
                if line["kind"] == "unaccounted" {
                    assert_eq!((&line["count"], &line["credential"]), (&5.into(), &"github".into()));
                    let text = |field: &str| line[field].as_str().unwrap().to_owned();
                    told.push((text("issued_to"), text("lease_id")));
                }
            }
        }
        told
    }
}

fn pairs(told: &[(&str, &str)]) -> Vec<(String, String)> {
    told.iter().map(|(worker, lease)| ((*worker).to_owned(), (*lease).to_owned())).collect()
}

async fn until_stale() {
    tokio::time::sleep(STALE * 2).await;
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_told_of_once_a_lease() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin_at(&dir, Now::read(), NEVER);
    life.issue("w0", "l-0").await;
    life.outstanding.look().await;
    assert_eq!(life.told(), [], "who has just been given a lease may be about to poll");
    life.outstanding.delivered().await;
    drop(life);
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    for (worker, lease) in [("w1", "l-1"), ("w1", "l-2"), ("w2", "l-3"), ("w3", "l-4")] {
        life.issue(worker, lease).await;
    }
    until_stale().await;
    life.poll("w2").await;
    life.outstanding.look().await;
    assert_eq!(life.told(), pairs(&[("w1", "l-1"), ("w1", "l-2"), ("w3", "l-4")]));
    // One that comes back and goes again has told of new leases only.
    life.poll("w1").await;
    life.issue("w1", "l-5").await;
    life.poll("w2").await;
    until_stale().await;
    life.poll("w2").await;
    life.outstanding.look().await;
    assert_eq!(life.told()[3..], pairs(&[("w1", "l-5")]));
}

#[tokio::test]
async fn issues_outlive_the_broker_and_what_was_told_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    for lease in ["l-1", "l-2", "l-3", "l-4"] {
        life.issue("w1", lease).await;
    }
    life.issue("w2", "l-5").await;
    drop(life);
    let life = Life::begin_at(&dir, Now::read(), NEVER);
    life.outstanding.look().await;
    assert_eq!(life.told(), [], "they may find this life yet");
    drop(life);
    let life = Life::begin(&dir);
    until_stale().await;
    life.poll("w2").await;
    life.outstanding.look().await;
    let told = pairs(&[("w1", "l-1"), ("w1", "l-2"), ("w1", "l-3"), ("w1", "l-4")]);
    assert_eq!(life.told(), told, "through rotated files");
    assert!(Files::of(&life.path).unwrap().count() > 1);
    drop(life);
    let life = Life::begin(&dir);
    until_stale().await;
    life.outstanding.look().await;
    assert_eq!(life.told().len(), 5);
    assert_eq!(life.told()[4..], pairs(&[("w2", "l-5")]));
    drop(life);
    let later = Now::read().plus(LONGEST_TTL + LONGEST_USE);
    assert!(Life::begin_at(&dir, later, STALE).outstanding.issues().is_empty());
}

#[tokio::test]
async fn workers_that_ended_in_order_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    life.issue("w1", "l-1").await;
    drop(life);
    let life = Life::begin(&dir);
    life.issue("w2", "l-2").await;
    life.outstanding.delivered().await;
    assert_eq!(life.told(), pairs(&[("w1", "l-1")]), "of another's, nobody knows that");
    let decision = Some(DELIVERED.to_owned());
    life.audit.append(Record { decision, ..Record::new(Kind::Stop, Now::read().wall_ms) }).await.unwrap();
    drop(life);
    let life = Life::begin(&dir);
    assert!(life.outstanding.issues().is_empty());
    life.issue("w3", "l-3").await;
    life.outstanding.ended().await;
    assert_eq!(life.told()[1..], pairs(&[("w3", "l-3")]), "and of one that was killed, at once");
}

#[tokio::test]
async fn what_the_log_did_not_take_is_told_of_later() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    life.issue("w1", "l-1").await;
    until_stale().await;
    let aside = dir.path().join("aside");
    let rotated = Files::of(&life.path).unwrap().count();
    std::fs::rename(&life.path, &aside).unwrap();
    std::fs::create_dir(&life.path).unwrap();
    std::io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(&aside).unwrap(), b"x").unwrap();
    life.outstanding.look().await;
    std::fs::remove_dir(&life.path).unwrap();
    std::fs::rename(&aside, &life.path).unwrap();
    assert_eq!((rotated, life.told_in(&life.path)), (1, 0));
    let deadline = Instant::now() + Duration::from_secs(10);
    while life.told_in(&life.path) == 0 {
        assert!(Instant::now() < deadline, "the log is written again");
        tokio::time::sleep(Duration::from_millis(20)).await;
        life.outstanding.look().await;
    }
}

impl Life {
    fn told_in(&self, path: &Path) -> usize {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.matches("\"kind\":\"unaccounted\"").count()
    }
}
