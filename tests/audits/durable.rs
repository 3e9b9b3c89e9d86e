//! On disk means on disk: what the broker asks of the system, seen from outside, and what it does when
//! the disk has no more room.

use std::net::SocketAddr;
use std::time::Duration;

use attache_core::refusal::Reason;
use attache_tests::disk::{self, Disk};
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Agent, Attache, Response, Stack, refusal, util};
use tokio::time::Instant;

use crate::{assert_gapless, with_requests};

/// How often is asked whether grants leave again.
const STEP: Duration = Duration::from_millis(50);

/// One line of a trace, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The log was written to: records of these kinds.
    Written { issue: bool, using: bool },
    /// The log's file was synced.
    Synced,
    /// A grant went out.
    Granted,
    /// Uses were acknowledged.
    Acknowledged,
}

/// `strace -y` tells what each descriptor is. A call that another thread's call interrupts stands in
/// two lines, and has happened with the second.
fn step(line: &str, syncing: &mut Vec<String>) -> Option<Step> {
    let (thread, call) = line.split_once(' ')?;
    let call = call.trim_start();
    let is_log = call.split_once('>').is_some_and(|(head, _)| head.ends_with("/audit.jsonl"));
    let sync = call.starts_with("fdatasync(") || call.starts_with("fsync(");
    if sync && is_log {
        if call.ends_with("= 0") {
            return Some(Step::Synced);
        }
        syncing.push(thread.to_owned());
        return None;
    }
    if (call.contains("fdatasync resumed") || call.contains("fsync resumed")) && call.ends_with("= 0") {
        let at = syncing.iter().position(|waiting| waiting == thread)?;
        syncing.remove(at);
        return Some(Step::Synced);
    }
    let says = |text: &str| call.contains(&text.replace('"', r#"\""#));
    if is_log && call.starts_with("write") {
        return Some(Step::Written { issue: says(r#""kind":"issue""#), using: says(r#""kind":"use""#) });
    }
    match () {
        () if says(r#""granted":{"#) => Some(Step::Granted),
        () if says(r#"{"acked":"#) && !says(r#"{"acked":0"#) => Some(Step::Acknowledged),
        () => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_synced_before_anybody_is_told() {
    let dir = util::temp_dir();
    let trace = dir.path().join("trace");
    let calls = "trace=fdatasync,fsync,write,writev,sendto,sendmsg";
    // -D: the broker is our child, not strace's.
    let plan = Plan::default().under(["strace", "-D", "-f", "-y", "-s", "4096", "-e", calls, "-o"]);
    let stack = plan.under([trace.to_str().expect("a plain path")]).start().await;
    for (session, credential, host, path) in [
        ("writer", "github", "api.github.com", "/user"),
        ("reader", "github", "api.github.com", "/user"),
        ("writer", "custom", "api.custom.test", "/v1/x"),
    ] {
        let answer = stack.get(host, path, &stack.placeholder(session, credential)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    with_requests(&stack, 3).await;
    let steps = || {
        let text = std::fs::read(&trace).unwrap_or_default();
        let mut syncing = Vec::new();
        String::from_utf8_lossy(&text).lines().filter_map(|line| step(line, &mut syncing)).collect::<Vec<_>>()
    };
    let told = |steps: &[Step]| {
        steps.iter().filter(|step| **step == Step::Granted).count() == 3 && steps.contains(&Step::Acknowledged)
    };
    util::eventually(SOON, || told(&steps())).await;

    // Whatever was written and not synced when somebody was told.
    let (mut issue, mut using) = (false, false);
    for (at, step) in steps().iter().enumerate() {
        match step {
            Step::Written { issue: one, using: other } => (issue, using) = (issue || *one, using || *other),
            Step::Synced => (issue, using) = (false, false),
            Step::Granted => assert!(!issue, "step {at}: a grant left before its record was synced: {:#?}", steps()),
            Step::Acknowledged => assert!(!using, "step {at}: told before the uses were synced: {:#?}", steps()),
        }
    }
    let written = steps();
    let issued = written.iter().filter(|step| matches!(step, Step::Written { issue: true, .. })).count();
    assert!(
        issued >= 1 && written.iter().any(|step| matches!(step, Step::Written { using: true, .. })),
        "{written:#?}"
    );
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_lets_no_grant_leave_until_there_is_room() {
    if !Disk::may_be_mounted() {
        util::skipped("only root can mount a small disk: run this test as root");
        return;
    }
    let stack = Plan::default().disk(16 << 20).data_plane(([127, 0, 0, 1], util::free_port()).into()).start().await;
    let custom = stack.placeholder("writer", "custom");
    assert_eq!(stack.get("api.custom.test", "/v1/x", &custom).await.status, 200);
    with_requests(&stack, 1).await;
    assert_eq!(health(&stack).await.status, 200);

    // Nothing is given out that cannot be noted first: agents have theirs by then.
    let (github, askers) = (stack.placeholder("writer", "github"), askers(&stack));
    let filler = stack.dir().join("state/filler");
    disk::fill(&filler);
    let begun = Instant::now();
    // The last page of the log may have room for a few records more.
    let mut answer = stack.get("api.github.com", "/user", &github).await;
    for (host, placeholder) in askers {
        if answer.status == 200 {
            answer = stack.get(host, "/user", &placeholder).await;
        }
    }
    refusal::expect(&answer, Reason::BrokerUnavailable);
    // It tries again by itself, and may find room for the word that it was broken, but for no more.
    let mut sick = health(&stack).await;
    while sick.status != 503 {
        assert!(begun.elapsed() < SOON, "health is red: {}", sick.text());
        // Whoever asks shows that there is none.
        stack.get("github.com", "/user", &github).await;
        tokio::time::sleep(STEP).await;
        sick = health(&stack).await;
    }
    assert!(sick.text().contains("No space left on device"), "{}", sick.text());
    assert_eq!(stack.broker.cli(&["audit", "verify"]).status.code(), Some(0), "what stands in the log is whole");

    std::fs::remove_file(&filler).expect("ours");
    let end = Instant::now() + SOON;
    while stack.get("uploads.github.com", "/user", &github).await.status != 200 {
        assert!(Instant::now() < end, "grants leave again by themselves");
        // Each refusal is a record, too: asking without a pause would fill the disk again.
        tokio::time::sleep(STEP).await;
    }
    assert_eq!(health(&stack).await.status, 200);
    let sent = stack.agent().ledger().transcripts().len();
    let all = with_requests(&stack, sent).await;
    assert!(all.iter().any(|record| record.text("kind") == "gap"), "the log says that it was broken");
    assert_gapless(&all);
    assert_eq!(stack.broker.cli(&["audit", "verify"]).status.code(), Some(0));
    stack.reconcile().await;
}

/// Askers whom no cache knows.
fn askers(stack: &Stack<Attache>) -> Vec<(&'static str, String)> {
    let sessions = ["writer", "reader"].map(|session| stack.placeholder(session, "github"));
    let hosts = ["github.com", "uploads.github.com", "api.github.com"];
    sessions.iter().flat_map(|placeholder| hosts.map(|host| (host, placeholder.clone()))).collect()
}

/// The broker's own word on its health.
async fn health(stack: &Stack<Attache>) -> Response {
    let token = std::fs::read_to_string(stack.config.state_dir.join("data-plane.token")).expect("the token");
    let bearer = format!("Bearer {}", token.trim());
    let runtime = std::fs::read(stack.config.state_dir.join("runtime.json")).expect("an announcement");
    let runtime: serde_json::Value = serde_json::from_slice(&runtime).expect("JSON");
    let door: SocketAddr = runtime["data_plane"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    Agent::new().get(door, "broker", "/readyz", &[("authorization", &bearer)]).await
}
