//! What is open when rights are taken away: it is cut where it may go on no longer, and nothing
//! else is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attache_tests::agent::{H1, H2, H2Exchange, Response, Unanswered, head};
use attache_tests::oracle::{Audit, Record};
use attache_tests::stack::{Plan, SOON};
use attache_tests::upstream::{Held, Part, Progress};
use attache_tests::util::eventually;
use attache_tests::{Attache, Reply, Stack};
use serde_json::Value;

use super::{HOST, applied_everywhere, session, start};

/// Streams of each kind that a crowd has open: enough for the kernel to give some to each worker.
const EACH: usize = 6;
const LFS: &str = "application/vnd.git-lfs+json";
const CUT: &str = "wasmcustom.attache.cut";
const RETRIED: &str = "wasmcustom.attache.retried";
const ACTIVE: &str = "http.attache.downstream_rq_active";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_on_a_revoked_session_is_cut_and_nothing_else() {
    let stack = start(Plan::default()).await;
    let downloads = endless(&stack);
    let mut revoked = Crowd::open(&stack, "revoked", 4 * EACH, &downloads).await;
    let mut other = Crowd::open(&stack, "other", 8 * EACH, &downloads).await;
    let took = applied_everywhere(&stack.broker.json(&["session", "revoke", "revoked"]));
    let told = Instant::now();
    // When the command returns Envoy has done it: no worker acknowledges first.
    assert_eq!(stack.envoy.stat(ACTIVE).await, Some(4 * EACH as u64));
    // Both ends see it, uploads and downloads alike.
    eventually(SOON, || downloads.left() == 2 * EACH && aborted(&stack) == 2 * EACH).await;
    println!("{} streams cut; applied in {took} ms, seen by the upstream {:?} after", 4 * EACH, told.elapsed());
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    revoked.downloads_are_cut().await;
    revoked.uploads_are_refused(401, "session_expired").await;
    // The streams of another session on the same workers go on, both ways, to their end.
    downloads.go();
    other.all_end_well().await;

    let cut = uses(&stack, "revoked", 4 * EACH).await;
    assert!(cut.iter().all(|record| record.text("reason") == "session_expired"), "{cut:#?}");
    let workers: BTreeSet<_> = cut.iter().map(|record| record.text("worker")).collect();
    assert_eq!(workers.len(), 2, "both workers had some");
    assert!(uses(&stack, "other", 4 * EACH).await.iter().all(|record| record.text("reason").is_empty()));
    assert_eq!(stack.envoy.wait_stat(CUT, |cut| cut > 0, SOON).await, 4 * EACH as u64);
    assert_eq!(stack.envoy.wait_stat(ACTIVE, |active| active == 0, SOON).await, 0);
    assert_eq!(stack.get(HOST, "/bytes/1", &other.placeholder).await.status, 200, "the VMs are well");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_only_read_keeps_its_reads() {
    let stack = start(Plan::default()).await;
    let downloads = endless(&stack);
    let mut crowd = Crowd::open(&stack, "agent", 4 * EACH, &downloads).await;
    // Here the body says whether it reads.
    let mut reads = batch(&stack, &crowd.placeholder, "download").await;
    let mut writes = batch(&stack, &crowd.placeholder, "upload").await;
    eventually(SOON, || downloads.waiting() == 2 * EACH + 2).await;
    applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", "read-only"]));
    eventually(SOON, || aborted(&stack) == 2 * EACH && downloads.left() == 1).await;
    is_cut(writes.response(SOON).await);
    // Told once more, and given more: nothing is left that could be cut.
    applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", "read-only"]));
    applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", "read-write"]));
    assert_eq!(downloads.left(), 1);
    downloads.go();
    crowd.downloads_end_well().await;
    crowd.uploads_are_refused(403, "read_only").await;
    ends_well(reads.response(SOON).await);
    let records = uses(&stack, "agent", 4 * EACH + 2).await;
    let reason = |method: &str| -> BTreeSet<_> {
        records.iter().filter(|record| record.text("method") == method).map(|record| record.text("reason")).collect()
    };
    assert_eq!((reason("GET"), reason("PUT")), (["".into()].into(), ["read_only".into()].into()));
    assert_eq!(reason("POST"), ["".into(), "read_only".into()].into());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_open_streams_are_cut_at_once() {
    const STREAMS: usize = 200;
    let stack = start(Plan::default()).await;
    let downloads = endless(&stack);
    let bearer = format!("Bearer {}", session(&stack, "agent", &[]));
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut h2 = stack.agent().h2(stack.proxy).await;
        for _ in 0..STREAMS / 4 {
            streams.push(h2.start(head("GET", HOST, "/", &[("authorization", &bearer)]), true).await.expect("begun"));
        }
        connections.push(h2);
    }
    eventually(SOON, || downloads.waiting() == STREAMS).await;
    let took = applied_everywhere(&stack.broker.json(&["session", "revoke", "agent"]));
    let told = Instant::now();
    eventually(SOON, || downloads.left() == STREAMS).await;
    println!("{STREAMS} streams cut; applied in {took} ms, seen by the upstream {:?} after", told.elapsed());
    for stream in streams {
        is_cut(stream.response(SOON).await);
    }
    let records = uses(&stack, "agent", STREAMS).await;
    assert!(records.iter().all(|record| record.text("reason") == "session_expired"));
    // The connections stand, and so do the VMs.
    let bearer = format!("Bearer {}", stack.placeholder("reader", "github"));
    downloads.go();
    for h2 in &mut connections {
        let answer = h2.request("GET", HOST, "/", &[("authorization", &bearer)], b"").await.expect("an answer");
        assert!(answer.status == 200 && answer.complete);
    }
    assert_eq!(stack.envoy.stat("wasm.attache.gate.vm_reload_success").await, Some(0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_time_comes_is_cut_too() {
    const TTL: Duration = Duration::from_millis(1_500);
    let stack = start(Plan::default()).await;
    let downloads = endless(&stack);
    let asked = Instant::now();
    let placeholder = session(&stack, "brief", &["--ttl", "1500ms"]);
    let mut stream = Download::over_h1(&stack, &placeholder).await;
    eventually(SOON, || downloads.waiting() == 1).await;
    eventually(SOON, || downloads.left() == 1).await;
    let lived = asked.elapsed();
    println!("a session of {TTL:?} was cut after {lived:?}");
    assert!(lived >= TTL, "{lived:?}");
    is_cut(stream.end().await);
    assert_eq!(uses(&stack, "brief", 1).await[0].text("reason"), "session_expired");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_cuts_nothing() {
    let stack = start(Plan::default()).await;
    let downloads = endless(&stack);
    let mut crowd = Crowd::open(&stack, "agent", 4 * EACH, &downloads).await;
    let before = stack.broker.json(&["credential", "list"]);
    stack.site.keep("github_token", &format!("{}x", attache_tests::stack::GITHUB));
    eventually(SOON, || stack.broker.json(&["credential", "list"]) != before).await;
    // Whoever has acknowledged this has heard of the new secret.
    applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "agent", "read-write"]));
    assert_eq!((downloads.left(), aborted(&stack)), (0, 0));
    downloads.go();
    crowd.all_end_well().await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_away_while_nobody_could_tell_is_cut_after_a_restart() {
    let stack = start(Plan::default().session("{name: guest, credentials: [github]}")).await;
    let downloads = endless(&stack);
    let (ends, stays) = (stack.placeholder("guest", "github"), session(&stack, "other", &[]));
    let mut cut = Download::over_h2(&stack, &ends).await;
    let mut other = Download::over_h1(&stack, &stays).await;
    eventually(SOON, || downloads.waiting() == 2).await;
    stack.broker.kill();
    let config = std::fs::read_to_string(stack.site.config_path()).expect("the config");
    let without: String =
        config.lines().filter(|line| !line.contains("guest")).map(|line| format!("{line}\n")).collect();
    std::fs::write(stack.site.config_path(), without).expect("the config");
    stack.broker.restart().await;
    eventually(SOON, || downloads.left() == 1).await;
    is_cut(cut.end().await);
    downloads.go();
    ends_well(other.end().await);
    assert_eq!(uses(&stack, "guest", 1).await[0].text("reason"), "session_expired");
    stack.reconcile().await;
}

/// The first life's changes had got further than those of the second: what is open is older all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_after_a_restart_cuts_what_was_open_before_it() {
    let stack = start(Plan::default()).await;
    let downloads = endless(&stack);
    let (ends, stays) = (session(&stack, "ends", &[]), session(&stack, "stays", &[]));
    for mode in ["read-only", "read-write"].repeat(5) {
        applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "stays", mode]));
    }
    let mut cut = Download::over_h2(&stack, &ends).await;
    let mut other = Download::over_h1(&stack, &stays).await;
    eventually(SOON, || downloads.waiting() == 2).await;
    stack.broker.kill();
    stack.broker.restart().await;
    // Until the worker follows the new life.
    let follows = || {
        stack.broker.json(&["session", "set-access-mode", "stays", "read-write"])["applied"]["applied"] == super::VMS
    };
    eventually(SOON, follows).await;
    assert_eq!((downloads.left(), aborted(&stack)), (0, 0), "a restart takes nothing away");
    applied_everywhere(&stack.broker.json(&["session", "revoke", "ends"]));
    eventually(SOON, || downloads.left() == 1).await;
    is_cut(cut.end().await);
    downloads.go();
    ends_well(other.end().await);
    assert_eq!(uses(&stack, "ends", 1).await[0].text("reason"), "session_expired");
    stack.reconcile().await;
}

/// Envoy fails three times to reset it, as the test build has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_envoy_did_not_end_is_ended_later() {
    let stack = start(Plan::default().with_traps()).await;
    let downloads = endless(&stack);
    let (_h2, cut) = revoked_while(&stack, &downloads, "fail_end").await;
    eventually(SOON, || downloads.left() == 1).await;
    is_cut(cut.response(SOON).await);
    assert_eq!(stack.envoy.wait_stat(RETRIED, |retried| retried >= 3, SOON).await, 3, "until it did");
    assert_eq!(stack.envoy.wait_stat(CUT, |cut| cut > 0, SOON).await, 1);
    assert_eq!(uses(&stack, "agent", 1).await[0].text("reason"), "session_expired");
    stack.reconcile().await;
}

/// A download whose session is revoked amid it, where the test build does this.
async fn revoked_while(stack: &Stack<Attache>, downloads: &Held, trap: &str) -> (H2, H2Exchange) {
    let bearer = format!("Bearer {}", session(stack, "agent", &[]));
    let mut h2 = stack.agent().h2(stack.proxy).await;
    let lines = [("authorization", bearer.as_str()), ("x-attache-trap", trap)];
    let begun = h2.start(head("GET", HOST, "/down", &lines), true).await.expect("begun");
    eventually(SOON, || downloads.waiting() == 1).await;
    stack.broker.json(&["session", "revoke", "agent"]);
    (h2, begun)
}

/// Nor does more of its answer go on meanwhile: what comes first ends it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_on_of_a_stream_that_envoy_has_yet_to_end() {
    let stack = start(Plan::default().with_traps()).await;
    let downloads = endless(&stack);
    let (_h2, cut) = revoked_while(&stack, &downloads, "fail_end_for_ever").await;
    // Envoy fails to end it, until it is asked no more.
    stack.envoy.wait_stat(RETRIED, |retried| retried == 19, SOON).await;
    assert_eq!(downloads.left(), 0);
    downloads.go();
    is_cut(cut.response(SOON).await);
    assert_eq!(stack.envoy.wait_stat(CUT, |cut| cut > 0, SOON).await, 1);
    assert_eq!(uses(&stack, "agent", 1).await[0].text("reason"), "session_expired");
    stack.reconcile().await;
}

/// A request that cannot be acted for when its grant is there, as the test build has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_woken_is_answered_and_recorded() {
    let stack = start(Plan::default().with_traps()).await;
    let bearer = format!("Bearer {}", session(&stack, "agent", &[]));
    let lines = [("authorization", bearer.as_str()), ("x-attache-trap", "fail_wake")];
    let begun = Instant::now();
    let answer = stack.agent().get(stack.proxy, HOST, "/woken", &lines).await;
    assert_eq!((answer.status, super::verdict(&answer).as_str()), (503, "internal"), "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(10), "not by Envoy's timeout");
    assert_eq!(stack.envoy.wait_stat(RETRIED, |retried| retried > 0, SOON).await, 1);
    let path = stack.dir().join("state/default/audit.jsonl");
    let denied = || Audit::read(Some(&path)).0.of_kind("deny").filter(|r| r.text("path") == "/woken").count();
    eventually(SOON, || denied() == 1).await;
    assert!(stack.upstream().requests().iter().all(|request| request.path_text() != "/woken"), "it went nowhere");
    stack.reconcile().await;
}

/// Kills the broker and starts it on another config, which says this in the place of that.
async fn restart_with(stack: &Stack<Attache>, before: &str, after: &str) {
    stack.broker.kill();
    let config = std::fs::read_to_string(stack.site.config_path()).expect("the config");
    assert!(config.contains(before), "{config}");
    std::fs::write(stack.site.config_path(), config.replace(before, after)).expect("the config");
    stack.broker.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_in_the_next_config_cuts_the_writes_that_are_open() {
    for (before, after) in [
        ("{host: api.github.com, upstream", "{host: api.github.com, access_mode: read-only, upstream"),
        ("    preset: github\n", "    preset: github\n    access_mode: read-only\n"),
    ] {
        let stack = start(Plan::default()).await;
        let downloads = endless(&stack);
        let mut crowd = Crowd::open(&stack, "agent", 4 * EACH, &downloads).await;
        restart_with(&stack, before, after).await;
        eventually(SOON, || aborted(&stack) == 2 * EACH).await;
        assert_eq!(downloads.left(), 0, "reads go on");
        downloads.go();
        crowd.downloads_end_well().await;
        crowd.uploads_are_refused(403, "read_only").await;
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_config_does_not_name_any_more_is_cut() {
    for (before, after, reason) in [
        ("{host: api.custom.test, paths", "{host: another.custom.test, paths", "host_not_allowed"),
        ("paths: [/v1/]", "paths: [/v2/]", "credential_not_granted"),
    ] {
        let stack = start(Plan::default()).await;
        let downloads = endless(&stack);
        let key = format!("Key {}", stack.placeholder("writer", "custom"));
        let mut agent = stack.agent().h2(stack.proxy).await;
        let lines = [("x-custom-key", key.as_str())];
        let cut = agent.start(head("GET", "api.custom.test", "/v1/down", &lines), true).await.expect("begun");
        let mut other = Download::over_h2(&stack, &session(&stack, "other", &[])).await;
        eventually(SOON, || downloads.waiting() == 2).await;
        restart_with(&stack, before, after).await;
        eventually(SOON, || downloads.left() == 1).await;
        is_cut(cut.response(SOON).await);
        downloads.go();
        ends_well(other.end().await);
        assert_eq!(uses(&stack, "writer", 1).await[0].text("reason"), reason);
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_open_at_a_worker_that_is_out_of_touch() {
    const STALE_AFTER: Duration = Duration::from_secs(2);
    let stack = start(Plan::default().limit("stale_after: 2s")).await;
    let downloads = endless(&stack);
    let mut stream = Download::over_h2(&stack, &session(&stack, "agent", &[])).await;
    eventually(SOON, || downloads.waiting() == 1).await;
    stack.broker.signal("STOP");
    let stopped = Instant::now();
    eventually(SOON, || downloads.left() == 1).await;
    let lived = stopped.elapsed();
    println!("cut {lived:?} after the broker stopped; stale after {STALE_AFTER:?}");
    // Counted from when the last answered poll was sent, which may have been held for a third.
    assert!(lived >= STALE_AFTER / 2, "{lived:?}");
    is_cut(stream.end().await);
    stack.broker.signal("CONT");
    assert_eq!(uses(&stack, "agent", 1).await[0].text("reason"), "stale");
    stack.reconcile().await;
}

/// From now on answers begin and do not end before they are let go.
fn endless(stack: &Stack<Attache>) -> Arc<Held> {
    let held = Arc::new(Held::default());
    let part = Part::Held(Arc::clone(&held));
    stack.upstream().answer_with(move |_| {
        let events = Reply::new(200).field("content-type", "text/event-stream").chunked();
        events.body("data: first\n\n").part(part.clone()).body("data: last\n\n")
    });
    held
}

/// A question that is a read or a write by its body, asked whole.
async fn batch(stack: &Stack<Attache>, placeholder: &str, operation: &str) -> H1 {
    let mut agent = stack.agent().h1(stack.proxy).await;
    let body = format!(r#"{{"operation":"{operation}"}}"#);
    let lines = format!("Host: github.com\r\nAuthorization: Bearer {placeholder}\r\nContent-Length: {}", body.len());
    let head = format!("POST /o/r/info/lfs/objects/batch HTTP/1.1\r\n{lines}\r\nContent-Type: {LFS}\r\n\r\n");
    agent.send(head + &body).await.expect("sent");
    agent
}

/// How many requests the upstream has seen end before their end.
fn aborted(stack: &Stack<Attache>) -> usize {
    stack.upstream().requests().iter().filter(|request| request.progress == Progress::Aborted).count()
}

fn is_cut(answer: Result<Response, Unanswered>) {
    match answer {
        Ok(answer) => assert!(!answer.complete && !answer.text().contains("last"), "{answer:#?}"),
        Err(why) => assert!(matches!(why, Unanswered::Closed | Unanswered::Reset(_)), "{why}"),
    }
}

fn ends_well(answer: Result<Response, Unanswered>) {
    let answer = answer.unwrap_or_else(|why| panic!("{why}"));
    assert!(answer.status == 200 && answer.complete && answer.text().contains("last"), "{answer:#?}");
}

/// The records of a session's uses: exactly so many, when all have come.
async fn uses(stack: &Stack<Attache>, session: &str, n: usize) -> Vec<Record> {
    let path = stack.dir().join("state/default/audit.jsonl");
    let read = || -> Vec<Record> {
        let (audit, _) = Audit::read(Some(&path));
        audit.of_kind("use").filter(|record| record.text("session") == session).cloned().collect()
    };
    eventually(SOON, || read().len() >= n).await;
    // Records of one request travel together: a second one would be here, or come with the next.
    let records = read();
    assert_eq!(records.len(), n, "{records:#?}");
    assert!(records.iter().all(|r| r.text("decision") == "forward" && r.json["auth_injected"] == Value::Bool(true)));
    records
}

/// An agent that reads what does not end.
enum Download {
    H1(H1),
    /// The connection, which closes when it is dropped, and the stream.
    H2(#[expect(dead_code)] H2, Option<H2Exchange>),
}

impl Download {
    async fn over_h1(stack: &Stack<Attache>, placeholder: &str) -> Self {
        let mut agent = stack.agent().h1(stack.proxy).await;
        let head = format!("GET /down HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {placeholder}\r\n\r\n");
        agent.send(head).await.expect("sent");
        Self::H1(agent)
    }

    async fn over_h2(stack: &Stack<Attache>, placeholder: &str) -> Self {
        let mut agent = stack.agent().h2(stack.proxy).await;
        let bearer = format!("Bearer {placeholder}");
        let exchange = agent.start(head("GET", HOST, "/down", &[("authorization", &bearer)]), true).await;
        Self::H2(agent, Some(exchange.expect("begun")))
    }

    async fn end(&mut self) -> Result<Response, Unanswered> {
        match self {
            Self::H1(agent) => agent.response(SOON).await,
            Self::H2(_, exchange) => exchange.take().expect("ends once").response(SOON).await,
        }
    }
}

/// An agent that has sent half of its body.
enum Upload {
    H1(H1),
    /// As a download's.
    H2(#[expect(dead_code)] H2, Option<H2Exchange>),
}

impl Upload {
    async fn over_h1(stack: &Stack<Attache>, placeholder: &str) -> Self {
        let mut agent = stack.agent().h1(stack.proxy).await;
        let lines = format!("Host: {HOST}\r\nAuthorization: Bearer {placeholder}\r\nTransfer-Encoding: chunked");
        agent.send(format!("PUT /up HTTP/1.1\r\n{lines}\r\n\r\n")).await.expect("sent");
        agent.send_chunk(&[b'x'; 64 << 10]).await.expect("sent");
        Self::H1(agent)
    }

    async fn over_h2(stack: &Stack<Attache>, placeholder: &str) -> Self {
        let mut agent = stack.agent().h2(stack.proxy).await;
        let bearer = format!("Bearer {placeholder}");
        let exchange = agent.start(head("PUT", HOST, "/up", &[("authorization", &bearer)]), false).await;
        let mut exchange = exchange.expect("begun");
        exchange.data(&[b'x'; 32 << 10], false).await.expect("sent");
        Self::H2(agent, Some(exchange))
    }

    /// Sends the rest, as far as anybody takes it.
    async fn end(&mut self) -> Result<Response, Unanswered> {
        match self {
            Self::H1(agent) => {
                agent.send_chunk(b"").await.ok();
                agent.response(SOON).await
            }
            Self::H2(_, exchange) => {
                let mut exchange = exchange.take().expect("ends once");
                exchange.data(b"", true).await.ok();
                exchange.response(SOON).await
            }
        }
    }
}

/// What one session has open: downloads and uploads, over both protocols.
struct Crowd {
    placeholder: String,
    downloads: Vec<Download>,
    uploads: Vec<Upload>,
}

impl Crowd {
    /// Opens a session's streams; `all` are open at the upstream then, those of others included.
    async fn open(stack: &Stack<Attache>, name: &str, all: usize, held: &Held) -> Self {
        let placeholder = session(stack, name, &[]);
        let mut crowd = Self { placeholder, downloads: Vec::new(), uploads: Vec::new() };
        for _ in 0..EACH {
            crowd.downloads.push(Download::over_h1(stack, &crowd.placeholder).await);
            crowd.downloads.push(Download::over_h2(stack, &crowd.placeholder).await);
            crowd.uploads.push(Upload::over_h1(stack, &crowd.placeholder).await);
            crowd.uploads.push(Upload::over_h2(stack, &crowd.placeholder).await);
        }
        let half_sent = || stack.upstream().requests().iter().filter(|request| request.body_len > 0).count();
        eventually(SOON, || held.waiting() == all / 2 && half_sent() == all / 2).await;
        crowd
    }

    async fn downloads_are_cut(&mut self) {
        for download in &mut self.downloads {
            is_cut(download.end().await);
        }
    }

    /// Whose answer has not begun yet is told why.
    async fn uploads_are_refused(&mut self, status: u16, reason: &str) {
        for upload in &mut self.uploads {
            let answer = upload.end().await.unwrap_or_else(|why| panic!("{why}"));
            let said = answer.header("x-attache-reason");
            assert_eq!((answer.status, said.as_deref()), (status, Some(reason)), "{answer:#?}");
        }
    }

    async fn downloads_end_well(&mut self) {
        for download in &mut self.downloads {
            ends_well(download.end().await);
        }
    }

    async fn all_end_well(&mut self) {
        self.downloads_end_well().await;
        for upload in &mut self.uploads {
            ends_well(upload.end().await);
        }
    }
}
