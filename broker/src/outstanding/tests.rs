//! Workers that come and go, on a real log.

use super::*;
use crate::audit::key::AuditKey;
use crate::changes::Poll;
use crate::config::{AuditConfig, Checkpoints};
use attache_core::wire::{Intent, UseRecord};
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
        let past = Past::read(&path, now).unwrap();
        let outstanding = Outstanding::new(past, stale, feed.clone(), audit.clone());
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
    life.issue("worker-0", "l-0").await;
    life.outstanding.look().await;
    assert_eq!(life.told(), [], "who has just been given a lease may be about to poll");
    life.outstanding.delivered().await;
    drop(life);
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    for (worker, lease) in [("worker-1", "l-1"), ("worker-1", "l-2"), ("worker-2", "l-3"), ("worker-3", "l-4")] {
        life.issue(worker, lease).await;
    }
    until_stale().await;
    life.poll("worker-2").await;
    life.outstanding.look().await;
    assert_eq!(life.told(), pairs(&[("worker-1", "l-1"), ("worker-1", "l-2"), ("worker-3", "l-4")]));
    // One that comes back and goes again has told of new leases only.
    life.poll("worker-1").await;
    life.issue("worker-1", "l-5").await;
    life.poll("worker-2").await;
    until_stale().await;
    life.poll("worker-2").await;
    life.outstanding.look().await;
    assert_eq!(life.told()[3..], pairs(&[("worker-1", "l-5")]));
}

#[tokio::test]
async fn issues_outlive_the_broker_and_what_was_told_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    for lease in ["l-1", "l-2", "l-3", "l-4"] {
        life.issue("worker-1", lease).await;
    }
    life.issue("worker-2", "l-5").await;
    drop(life);
    let life = Life::begin_at(&dir, Now::read(), NEVER);
    life.outstanding.look().await;
    assert_eq!(life.told(), [], "they may find this life yet");
    drop(life);
    let life = Life::begin(&dir);
    until_stale().await;
    life.poll("worker-2").await;
    life.outstanding.look().await;
    let told = pairs(&[("worker-1", "l-1"), ("worker-1", "l-2"), ("worker-1", "l-3"), ("worker-1", "l-4")]);
    assert_eq!(life.told(), told, "through rotated files");
    assert!(Files::of(&life.path).unwrap().count() > 1);
    drop(life);
    let life = Life::begin(&dir);
    until_stale().await;
    life.outstanding.look().await;
    assert_eq!(life.told().len(), 5);
    assert_eq!(life.told()[4..], pairs(&[("worker-2", "l-5")]));
    drop(life);
    let later = Now::read().plus(LONGEST_TTL + LONGEST_USE);
    assert!(Life::begin_at(&dir, later, STALE).outstanding.open().issues.is_empty());
}

#[tokio::test]
async fn workers_that_ended_in_order_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    life.issue("worker-1", "l-1").await;
    drop(life);
    let life = Life::begin(&dir);
    life.issue("worker-2", "l-2").await;
    life.outstanding.delivered().await;
    assert_eq!(life.told(), pairs(&[("worker-1", "l-1")]), "of another's, nobody knows that");
    let decision = Some(DELIVERED.to_owned());
    life.audit.append(Record { decision, ..Record::new(Kind::Stop, Now::read().wall_ms) }).await.unwrap();
    drop(life);
    let life = Life::begin(&dir);
    assert!(life.outstanding.open().issues.is_empty());
    life.issue("worker-3", "l-3").await;
    life.outstanding.ended().await;
    assert_eq!(life.told()[1..], pairs(&[("worker-3", "l-3")]), "and of one that was killed, at once");
}

#[tokio::test]
async fn what_the_log_did_not_take_is_told_of_later() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    life.issue("worker-1", "l-1").await;
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

impl Life {
    /// Announces a request as the data plane does.
    async fn announce(&self, worker: &str, lease: &str, intent: u64) {
        let record = intent_of(worker, lease, intent);
        self.outstanding.announced(&record);
        self.audit.append(record).await.unwrap();
    }

    /// Records what became of requests as the data plane does.
    async fn ended(&self, worker: &str, kind: &str, seqs_and_intents: &[(u64, u64)]) {
        let records: Vec<_> = seqs_and_intents.iter().map(|(seq, intent)| use_of(kind, *seq, *intent)).collect();
        let ended = announced_in(&records).into_iter().map(|(_, intent)| intent).collect();
        self.audit.append_uses(worker.into(), None, records).await.unwrap();
        self.outstanding.ended_uses((worker, None), &ended);
    }

    /// The intents that were told of, each with its worker and its count.
    fn told_intents(&self) -> Vec<(String, u64, u64)> {
        let mut told = Vec::new();
        for opened in Files::of(&self.path).unwrap() {
            for line in BufReader::new(opened.unwrap().1).lines() {
                let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
                if line["kind"] == "unaccounted" {
                    assert_eq!((&line["request_id"], &line["path"]), (&"r".into(), &"/pay".into()));
                    let number = |field: &str| line[field].as_u64().unwrap();
                    told.push((line["issued_to"].as_str().unwrap().to_owned(), number("intent"), number("count")));
                }
            }
        }
        told
    }
}

fn intent_of(worker: &str, lease: &str, intent: u64) -> Record {
    Record::of_intent(Intent {
        nonce: "0".repeat(32),
        worker: worker.into(),
        intent,
        at_ms: Now::read().wall_ms,
        request_id: "r".into(),
        method: "POST".into(),
        authority: "pay.test".into(),
        path: "/pay?query=value".into(),
        evidence: "placeholder".into(),
        destination: "pay.test:443".into(),
        service: "pay".into(),
        session_id: "s-1".into(),
        session: Name::parse("reviewer").unwrap(),
        access_mode: AccessMode::ReadWrite,
        credential: Name::parse("pay").unwrap(),
        lease_id: lease.into(),
        fingerprint: "f".into(),
    })
}

fn use_of(kind: &str, seq: u64, intent: u64) -> UseRecord {
    let record = serde_json::json!({
        "seq": seq, "kind": kind, "at_ms": 0, "duration_ms": 0, "request_id": "r", "method": "POST", "path": "/pay",
        "authority": "pay.test", "decision": "forward", "response_code": 0, "auth_injected": kind == "use",
        "evidence": "placeholder", "intent": intent,
    });
    serde_json::from_value(record).unwrap()
}

#[tokio::test]
async fn of_what_was_announced_exactly_what_has_no_record_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin_at(&dir, Now::read(), NEVER);
    let issue =
        Record { count: Some(0), lease_id: Some("l-1".into()), ..Record::new(Kind::Issue, Now::read().wall_ms) };
    life.outstanding.issued(&issue, TTL);
    life.audit.append(issue).await.unwrap();
    for (worker, intent) in [("worker-1", 1), ("worker-1", 2), ("worker-1", 3), ("worker-2", 1), ("worker-2", 3)] {
        life.announce(worker, "l-1", intent).await;
    }
    // Announced twice, as its lease changed; and one that the log did not take.
    life.announce("worker-1", "l-2", 1).await;
    life.outstanding.announced(&intent_of("worker-2", "l-2", 3));
    life.outstanding.not_announced(&intent_of("worker-2", "l-2", 3));
    life.ended("worker-1", "use", &[(1, 1)]).await;
    life.ended("worker-2", "deny", &[(1, 1)]).await;
    let open = |life: &Life| life.outstanding.open().issues.iter().map(|issue| issue.facts.intent).collect::<Vec<_>>();
    assert_eq!(open(&life), [Some(2), Some(3), Some(3)], "nothing of the lease");
    drop(life);
    // The log says the same to the next life.
    for intent in [2, 3] {
        let life = Life::begin_at(&dir, Now::read(), NEVER);
        life.outstanding.look().await;
        assert_eq!(life.told_intents(), [], "their workers may live");
        assert_eq!(open(&life), [Some(2), Some(3), Some(3)][intent as usize - 2..]);
        life.ended("worker-1", "use", &[(intent, intent)]).await;
        drop(life);
    }
    let life = Life::begin_at(&dir, Now::read(), NEVER);
    life.outstanding.ended().await;
    assert_eq!(life.told_intents(), [("worker-2".into(), 3, 1)], "nothing of the lease, nothing of the others");
    life.outstanding.ended().await;
    drop(life);
    let life = Life::begin(&dir);
    until_stale().await;
    life.outstanding.look().await;
    assert_eq!(life.told_intents().len(), 1, "once");
}

#[tokio::test]
async fn only_the_next_life_after_workers_that_have_ended_has_none_that_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let record = async |kind, decision: Option<&str>| {
        let decision = decision.map(str::to_owned);
        let life = Life::begin(&dir);
        life.audit.append(Record { decision, ..Record::new(kind, Now::read().wall_ms) }).await.unwrap();
    };
    let has_none = || Past::read(&dir.path().join("audit.jsonl"), Now::read()).unwrap().has_no_workers();
    let steps = [
        (Kind::Start, None, false),
        (Kind::Stop, Some(DELIVERED), false),
        (Kind::Start, None, true),
        // This one was killed, and its workers may have lived on.
        (Kind::Start, None, false),
        (Kind::Stop, None, false),
        (Kind::Start, None, false),
    ];
    for (step, (kind, decision, expected)) in steps.into_iter().enumerate() {
        record(kind, decision).await;
        assert_eq!(has_none(), expected, "step {step}");
    }
}

#[tokio::test]
async fn an_intent_that_its_record_has_overtaken_is_not_outstanding() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(&dir);
    life.ended("worker-1", "deny", &[(1, 8)]).await;
    life.announce("worker-1", "l-1", 8).await;
    life.announce("worker-2", "l-1", 8).await;
    let open = |life: &Life| life.outstanding.open().issues.iter().map(|issue| issue.facts.clone()).collect::<Vec<_>>();
    assert!(matches!(&open(&life)[..], [other] if other.issued_to.as_deref() == Some("worker-2")));
    drop(life);
    let life = Life::begin(&dir);
    assert!(matches!(&open(&life)[..], [other] if other.issued_to.as_deref() == Some("worker-2")));
}

#[tokio::test]
async fn an_envoy_that_is_granted_without_end_pushes_off_none_of_anothers_leases() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin_at(&dir, Now::read(), NEVER);
    let lease = |from: &str, lease: &str| {
        let (lease_id, asked_by) = (Some(lease.to_owned()), Some(from.to_owned()));
        let issued_to = Some("0000000a".to_owned());
        life.outstanding
            .issued(&Record { lease_id, asked_by, issued_to, ..Record::new(Kind::Issue, Now::read().wall_ms) }, TTL);
    };
    lease("modest", "first");
    (0..10).for_each(|n| lease("greedy", &n.to_string()));
    let mut open = life.outstanding.open();
    let mut excess = super::excess(&open.issues, 8);
    assert_eq!(excess, HashMap::from([("greedy".to_owned(), 3)]));
    open.issues.retain(|issue| !takes(&mut excess, issue));
    let left: Vec<_> = open.issues.iter().filter_map(|issue| issue.facts.lease_id.as_deref()).collect();
    assert_eq!(left, ["first", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(super::excess(&open.issues, 8).is_empty());
}
