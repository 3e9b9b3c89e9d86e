//! The oracle finds each violation: a scene in which all adds up, and one thing wrong at a time.

mod asked;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{Oracle, Violation};
use crate::ca::client_trusting;
use crate::secrets::Secrets;
use crate::upstream::{Part, RECORDED_AS, Reply, Upstream};
use crate::{Agent, Ca, util};

const SECRET: &str = "ghp_the-real-one-0123456789";
const HOST: &str = "api.github.com";
const SOON: Duration = Duration::from_secs(5);

struct Scene {
    oracle: Oracle,
    upstream: Upstream,
    audit: PathBuf,
    _dir: TempDir,
}

impl Scene {
    async fn set() -> Self {
        let dir = util::temp_dir();
        let audit = dir.path().join("audit.jsonl");
        let secrets = Secrets::new([("github", SECRET)]);
        let upstream = Upstream::plain().start().await;
        let oracle = Oracle::new(&secrets);
        oracle.audit(&audit);
        oracle.upstream("github", &upstream, &[("github", "api.github.com:80")]);
        Self { oracle, upstream, audit, _dir: dir }
    }

    fn write(&self, record: &Value) {
        self.append(&format!("{record}\n"));
    }

    fn append(&self, text: &str) {
        let mut log = std::fs::OpenOptions::new();
        let mut log = log.create(true).append(true).open(&self.audit).expect("the log opens");
        log.write_all(text.as_bytes()).expect("the log is writable");
    }

    /// What the filter would send.
    async fn hit(&self, id: &str) {
        let (bearer, known) = (format!("Bearer {SECRET}"), self.upstream.requests().len());
        let headers = [("authorization", bearer.as_str()), ("x-request-id", id)];
        Agent::new().get(self.upstream.addr(), HOST, "/user?page=2", &headers).await;
        self.upstream.wait_for(known + 1, SOON).await;
    }

    fn found(&self) -> Vec<Violation> {
        self.oracle.violations()
    }

    /// An agent receives this as the body of an answer.
    async fn receive(&self, reply: Reply) {
        self.upstream.answer_with(move |_| reply.clone());
        self.oracle.agent().get(self.upstream.addr(), HOST, "/", &[]).await;
    }
}

fn issue() -> Value {
    let at = util::wall_ms() - 1;
    json!({"kind": "issue", "timestamp": at, "session_id": "s1", "credential": "github", "lease_id": "l1",
        "session": "agent", "destination": "api.github.com:80", "issued_to": "w1", "access_mode": "read-write",
        "fingerprint": "f", "ttl_ms": 60_000})
}

fn used() -> Value {
    json!({"kind": "use", "request_id": "r1", "session_id": "s1", "credential": "github", "lease_id": "l1",
        "session": "agent", "worker": "w1", "access_mode": "read-write", "fingerprint": "f",
        "decision": "forward", "auth_injected": true, "authority": HOST, "destination": "api.github.com:80",
        "method": "GET", "path": "/user"})
}

fn with(mut record: Value, member: &str, value: impl Into<Value>) -> Value {
    record[member] = value.into();
    record
}

/// A scene with one hit and these records around it.
async fn scene(before: &[Value], after: &[Value]) -> Scene {
    let scene = Scene::set().await;
    before.iter().for_each(|record| scene.write(record));
    scene.hit("r1").await;
    after.iter().for_each(|record| scene.write(record));
    scene
}

#[tokio::test]
async fn a_scene_in_which_everything_adds_up_passes() {
    let scene = scene(&[issue()], &[used()]).await;
    scene.receive(Reply::new(200).body("nothing to see")).await;
    scene.oracle.reconcile().await;
}

#[tokio::test]
async fn a_strict_use_without_an_intent_of_its_own_before_it_is_found() {
    let strict = || with(issue(), "count", 0);
    let used = || with(used(), "intent", 7);
    let mut intent = with(used(), "kind", "intent");
    (intent["issued_to"], intent["worker"]) = ("w1".into(), "broker".into());
    let good = scene(&[strict(), intent.clone()], &[used()]).await;
    assert_eq!(good.found(), []);
    let other = |member: &str, value: Value| with(intent.clone(), member, value);
    for (before, after) in [
        (vec![strict()], vec![used()]),
        (vec![strict()], vec![intent.clone(), used()]),
        (vec![strict(), intent.clone(), intent.clone()], vec![used()]),
        (vec![strict(), other("request_id", "r2".into())], vec![used()]),
        (vec![strict(), other("lease_id", "l2".into())], vec![used()]),
        (vec![strict(), other("intent", 8.into())], vec![used()]),
        (vec![strict(), other("issued_to", "w2".into())], vec![used()]),
        (vec![issue(), intent.clone()], vec![used()]),
    ] {
        let found = scene(&before, &after).await.found();
        assert!(matches!(&found[..], [Violation::Unannounced { .. }]), "{before:#?} {found:?}");
    }
}

#[tokio::test]
async fn timestamps_in_rfc_3339_count() {
    let at = humantime::format_rfc3339_millis(SystemTime::now() - Duration::from_millis(500)).to_string();
    scene(&[with(issue(), "timestamp", at)], &[used()]).await.oracle.reconcile().await;
    let past = scene(&[with(issue(), "timestamp", "2020-01-01T00:00:00.5Z")], &[used()]).await;
    assert!(matches!(&past.found()[..], [Violation::Expired { .. }]), "{:?}", past.found());
}

#[tokio::test]
async fn a_hit_without_records_is_found() {
    let bare = scene(&[issue()], &[]).await;
    assert!(matches!(&bare.found()[..], [Violation::Unrecorded { .. }]), "{:?}", bare.found());
    let unissued = scene(&[], &[used()]).await;
    assert!(matches!(&unissued.found()[..], [Violation::Unissued { .. }]), "{:?}", unissued.found());
}

#[tokio::test]
async fn a_hit_without_an_audit_log_is_found() {
    let scene = Scene::set().await;
    scene.hit("r1").await;
    assert!(matches!(&scene.found()[..], [Violation::Unrecorded { .. }]));
}

#[tokio::test]
async fn a_hit_that_cannot_be_identified_is_found() {
    let scene = Scene::set().await;
    let path = format!("/?key={SECRET}");
    Agent::new().get(scene.upstream.addr(), HOST, &path, &[]).await;
    assert!(matches!(&scene.found()[..], [Violation::Unidentified { .. }]), "{:?}", scene.found());
}

#[tokio::test]
async fn issue_records_of_another_lease_session_or_credential_do_not_count() {
    for member in ["lease_id", "session_id", "credential"] {
        let other = scene(&[with(issue(), member, "another")], &[used()]).await;
        assert!(matches!(&other.found()[..], [Violation::Unissued { .. }]), "{member}: {:?}", other.found());
    }
}

#[tokio::test]
async fn records_written_twice_are_found() {
    let twice = scene(&[issue(), issue()], &[used()]).await;
    assert!(matches!(&twice.found()[..], [Violation::IssuedTwice { records: 2, .. }]), "{:?}", twice.found());
    let twice = scene(&[issue()], &[used(), used()]).await;
    assert!(matches!(&twice.found()[..], [Violation::RecordedTwice { records: 2, .. }]), "{:?}", twice.found());
}

#[tokio::test]
async fn an_issue_record_that_came_too_late_is_found() {
    let after = scene(&[], &[issue(), used()]).await;
    let [Violation::IssuedLate { how, .. }] = &after.found()[..] else { panic!("{:?}", after.found()) };
    assert!(how.contains("when the request arrived"));
    let future = scene(&[with(issue(), "timestamp", "2999-01-01T00:00:00Z")], &[used()]).await;
    let [Violation::IssuedLate { how, .. }] = &future.found()[..] else { panic!("{:?}", future.found()) };
    assert!(how.contains("timestamp"));
    let undated = scene(&[with(issue(), "timestamp", Value::Null)], &[used()]).await;
    assert!(matches!(&undated.found()[..], [Violation::IssuedLate { .. }]));
}

#[tokio::test]
async fn a_use_record_that_says_something_else_is_found() {
    let wrong = [
        ("decision", json!("refuse")),
        ("auth_injected", json!(false)),
        ("destination", json!("evil.test:80")),
        ("method", json!("POST")),
        ("path", json!("/other")),
    ];
    for (member, value) in wrong {
        // The issue record tells the same tale.
        let issue = if member == "destination" { with(issue(), member, value.clone()) } else { issue() };
        let scene = scene(&[issue], &[with(used(), member, value)]).await;
        let found = scene.found();
        let [Violation::Misrecorded { field, .. }] = &found[..] else { panic!("{member}: {found:?}") };
        assert_eq!(*field, member);
    }
    let undestined = with(with(used(), "destination", Value::Null), "authority", "evil.test");
    let scene = scene(&[with(issue(), "destination", Value::Null)], &[undestined]).await;
    assert!(matches!(&scene.found()[..], [Violation::Misrecorded { field: "authority", .. }]));
}

#[tokio::test]
async fn a_second_hit_under_one_record_is_found() {
    let scene = scene(&[issue()], &[used()]).await;
    scene.hit("r1").await;
    let found = scene.found();
    assert!(matches!(&found[..], [Violation::SentTwice { hits: 2, .. }]), "{found:?}");
}

#[tokio::test]
async fn a_credential_at_an_upstream_it_is_not_bound_to_is_found() {
    let scene = scene(&[issue()], &[used()]).await;
    let evil = Upstream::plain().start().await;
    scene.oracle.upstream("evil", &evil, &[("another", "api.github.com:80")]);
    let body = SECRET.as_bytes();
    Agent::new().request(evil.addr(), "POST", HOST, "/", &[("x-request-id", "r2")], body).await;
    let found = scene.found();
    assert!(matches!(&found[..], [Violation::Astray { .. }, Violation::Unrecorded { .. }]), "{found:?}");
}

/// Whatever the records say: what they agree on is compared with the test's own table.
#[tokio::test]
async fn a_credential_for_another_authority_name_or_door_is_found() {
    const OTHER: &str = "uploads.github.com";
    let bearer = format!("Bearer {SECRET}");
    let headers = [("authorization", bearer.as_str()), ("x-request-id", "r1")];
    let ca = Ca::new();
    for (authority, sni, door, expected) in [
        (HOST, HOST, HOST, None),
        ("api.github.com:443", HOST, HOST, None),
        ("evil.test", HOST, HOST, Some("another authority")),
        ("api.github.com:8443", HOST, HOST, Some("another authority")),
        (HOST, OTHER, HOST, Some("TLS with another name")),
        (HOST, HOST, OTHER, Some("another cluster's connection")),
        (OTHER, OTHER, OTHER, Some("another authority")),
    ] {
        let scene = Scene::set().await;
        let upstream = Upstream::tls(&ca, &[HOST, OTHER]).doors([HOST, OTHER]).start().await;
        let bound = [("github", "api.github.com:443"), ("another", "uploads.github.com:443")];
        scene.oracle.upstream("TLS", &upstream, &bound);
        let place = format!("{}:443", authority.split(':').next().unwrap_or_default());
        scene.write(&with(issue(), "destination", place.clone()));
        let trusting = client_trusting(&ca.pem_path(), &["http/1.1"]);
        let mut agent = Agent::new().h1_tls(upstream.door(door), sni, trusting).await;
        agent.request("GET", authority, "/user", &headers, b"").await.expect("an answer");
        scene.write(&with(used(), "destination", place));
        let found: Vec<_> = scene.found();
        match (&found[..], expected) {
            ([], None) => {}
            ([Violation::Astray { how, .. }, ..], Some(expected)) => assert_eq!(*how, expected),
            _ => panic!("{authority} {sni} {door}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn an_issue_for_something_else_than_the_use_is_found() {
    for (member, field) in [
        ("destination", "destination"),
        ("issued_to", "issued_to"),
        ("session", "session"),
        ("access_mode", "access_mode"),
        ("fingerprint", "fingerprint"),
    ] {
        let scene = scene(&[with(issue(), member, "another")], &[used()]).await;
        let found = scene.found();
        assert!(
            matches!(&found[..], [Violation::Misissued { field: own, .. }] if *own == field),
            "{member}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_hit_on_a_lease_that_was_over_is_found() {
    let old = with(with(issue(), "timestamp", util::wall_ms() - 61_000), "ttl_ms", 50_000);
    let over = scene(&[old], &[used()]).await;
    assert!(matches!(&over.found()[..], [Violation::Expired { late_ms: 10_900.., .. }]), "{:?}", over.found());
    let endless = scene(&[with(issue(), "ttl_ms", Value::Null)], &[used()]).await;
    assert!(endless.found().contains(&Violation::Endless { lease: "l1".into() }), "{:?}", endless.found());
}

#[tokio::test]
async fn records_in_rotated_files_count() {
    let scene = Scene::set().await;
    scene.write(&issue());
    let rotate = |n: u32| std::fs::rename(&scene.audit, scene.audit.with_file_name(format!("audit.jsonl.{n}")));
    rotate(1).expect("rotated");
    scene.hit("r1").await;
    scene.write(&used());
    rotate(2).expect("rotated");
    scene.oracle.reconcile().await;
    std::fs::remove_file(scene.audit.with_file_name("audit.jsonl.1")).expect("ours");
    assert!(matches!(&scene.found()[..], [Violation::Unissued { .. }]), "{:?}", scene.found());
}

#[tokio::test]
async fn an_issue_that_came_after_the_request_is_found_in_rotated_files_too() {
    let scene = Scene::set().await;
    scene.write(&json!({"kind": "start", "padding": "x".repeat(1_000)}));
    std::fs::rename(&scene.audit, scene.audit.with_file_name("audit.jsonl.1")).expect("rotated");
    scene.hit("r1").await;
    scene.write(&issue());
    scene.write(&used());
    assert!(matches!(&scene.found()[..], [Violation::IssuedLate { .. }]), "{:?}", scene.found());
}

#[tokio::test]
#[should_panic(expected = "unwatched")]
async fn an_upstream_that_nobody_watched_cannot_be_watched_afterwards() {
    let (scene, late) = (Scene::set().await, Upstream::plain().start().await);
    Agent::new().get(late.addr(), HOST, "/", &[]).await;
    scene.oracle.upstream("late", &late, &[]);
}

#[tokio::test]
async fn a_secret_that_an_agent_received_is_found_in_every_form() {
    let mut gzip = Vec::new();
    GzEncoder::new(SECRET.as_bytes(), Compression::best()).read_to_end(&mut gzip).expect("compressed");
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (front, back) = SECRET.split_at(7);
    let replies = [
        ("plain", Reply::new(200).body(SECRET)),
        ("plain", Reply::new(200).field("x-echo", SECRET)),
        ("plain", Reply::new(200).body(front).body(back).chunked()),
        ("plain", Reply::new(200).field("content-encoding", "gzip").body(gzip)),
        ("base64", Reply::new(200).body(STANDARD.encode(format!("x-access-token:{SECRET}")))),
        ("hex", Reply::new(200).body(hex)),
        ("percent-encoded", Reply::new(200).body(percent)),
        ("plain", Reply::new(200).body(SECRET.replace('-', "\\u002d").replace('_', "%5f"))),
        ("plain", Reply::new(200).chunked().body(SECRET.replace('-', "%2D")).trailer("grpc-message", "x")),
        ("base64", Reply::new(200).body(STANDARD.encode(format!("u:{SECRET}")).replace('=', "%3D\r\n"))),
    ];
    for (expected, reply) in replies {
        let scene = Scene::set().await;
        scene.receive(reply.clone()).await;
        let found = scene.found();
        let [Violation::Leak { form, .. }] = &found[..] else { panic!("{reply:?}: {found:?}") };
        assert_eq!(*form, expected);
    }
}

#[tokio::test]
async fn a_secret_in_compressed_headers_of_http2_is_found() {
    let scene = Scene::set().await;
    let reply = Reply::new(200).field("x-echo", SECRET).body(&SECRET[..9]).body(&SECRET[9..]);
    scene.upstream.answer_with(move |_| reply.clone());
    let mut agent = scene.oracle.agent().h2(scene.upstream.addr()).await;
    agent.request("GET", HOST, "/", &[], b"").await.expect("an answer");
    let found = scene.found();
    assert!(matches!(&found[..], [Violation::Leak { .. }]), "{found:?}");
}

#[tokio::test]
async fn a_secret_in_a_log_a_text_or_the_audit_is_found() {
    let scene = scene(&[issue()], &[with(used(), "hint", SECRET)]).await;
    let log = scene.audit.with_file_name("envoy.log");
    std::fs::write(&log, format!("[debug] authorization: {SECRET}")).expect("the log is writable");
    scene.oracle.log("Envoy's log", &log);
    scene.oracle.text("the config dump", format!("{{\"inline_string\": \"{SECRET}\"}}"));
    let found = scene.found();
    let places = found.iter().map(|violation| match violation {
        Violation::Leak { place, .. } => place.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(places.collect::<Vec<_>>(), ["Envoy's log", "the audit log", "the config dump"]);
}

#[tokio::test]
async fn requests_without_an_answer_are_found_unless_excused_or_given_up() {
    let scene = Scene::set().await;
    let agent = scene.oracle.agent();
    let ask = |addr: SocketAddr| {
        let agent = agent.clone();
        async move {
            let mut connection = agent.h1(addr).await;
            connection.send("GET /hang HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
            connection
        }
    };
    let mut waiting = ask(scene.upstream.addr()).await;
    assert!(matches!(&scene.found()[..], [Violation::Unanswered { why: None, .. }]));
    waiting.response(Duration::from_millis(50)).await.expect_err("it hangs");
    assert!(matches!(&scene.found()[..], [Violation::Unanswered { why: Some(_), .. }]));
    scene.oracle.excuse("/hang");
    assert_eq!(scene.found(), []);
    scene.upstream.answer_with(|_| Reply::reset());
    let mut dropped = agent.h1(scene.upstream.addr()).await;
    dropped.request("GET", HOST, "/dropped", &[], b"").await.expect_err("closed without a word");
    assert!(matches!(&scene.found()[..], [Violation::Unanswered { why: Some(_), .. }]));
    ask(scene.upstream.addr()).await.abort();
    assert_eq!(scene.found().len(), 1);
}

/// The filter ends a stream and says in the record of its use why; nothing else may break one off.
#[tokio::test]
async fn an_answer_that_was_cut_off_on_purpose_is_explained_by_its_record() {
    let own = with(used(), "reason", "session_expired");
    for (record, explained) in [
        (own.clone(), true),
        (used(), false),
        (with(own.clone(), "reason", ""), false),
        (with(own.clone(), "request_id", "r2"), false),
        (with(own, "kind", "deny"), false),
    ] {
        let scene = Scene::set().await;
        let cut = Reply::new(200).field(RECORDED_AS, "r1").body("begun").part(Part::Reset).chunked();
        scene.upstream.answer_with(move |_| cut.clone());
        scene.oracle.agent().h1(scene.upstream.addr()).await.request("GET", HOST, "/cut", &[], b"").await.ok();
        scene.write(&record);
        let cut_off = |one: &Violation| matches!(one, Violation::Unanswered { .. });
        assert_eq!(scene.found().iter().any(cut_off), !explained, "{record}: {:?}", scene.found());
    }
}

#[tokio::test]
async fn an_answer_that_is_reset_or_cut_off_needs_an_excuse() {
    let cut = Reply::new(200).body("begun").part(Part::Reset).chunked();
    for reply in [Reply::reset(), cut.clone()] {
        let scene = Scene::set().await;
        scene.upstream.answer_with(move |_| reply.clone());
        let mut h2 = scene.oracle.agent().h2(scene.upstream.addr()).await;
        h2.request("GET", HOST, "/reset-h2", &[], b"").await.ok();
        let mut raw = scene.oracle.agent().raw_h2(scene.upstream.addr()).await;
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/reset-raw"), (":authority", HOST)];
        let stream = raw.headers(&fields, true).await;
        raw.response(stream, SOON).await.ok();
        let found = scene.found();
        let unanswered = |one: &Violation| matches!(one, Violation::Unanswered { why: Some(_), .. });
        assert!(found.len() == 2 && found.iter().all(unanswered), "{found:?}");
        scene.oracle.excuse("/reset-");
        assert_eq!(scene.found(), []);
    }
    for whole in [true, false] {
        let scene = Scene::set().await;
        let reply = cut.clone();
        scene.upstream.answer_with(move |_| reply.clone());
        let mut h1 = scene.oracle.agent().h1(scene.upstream.addr()).await;
        h1.send("GET /cut-h1 HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
        if whole {
            assert!(!h1.response(SOON).await.expect("a head").complete);
        } else {
            h1.head(SOON).await.expect("a head");
            while h1.piece(SOON).await.expect("in time").is_some() {}
        }
        let found = scene.found();
        let [Violation::Unanswered { why: Some(why), .. }] = &found[..] else { panic!("{found:?}") };
        assert!(why.contains("cut off"), "{why}");
    }
}

#[tokio::test]
async fn a_forged_chain_is_found() {
    let seal = |record: &str, prev: &str| {
        let open = format!("{},\"prev\":\"{prev}\"", record.strip_suffix('}').expect("an object"));
        let hash: String = Sha256::digest(&open).iter().map(|byte| format!("{byte:02x}")).collect();
        (format!("{open},\"hash\":\"{hash}\"}}\n"), hash)
    };
    let (first, hash) = seal("{\"kind\":\"start\"}", &"0".repeat(64));
    let (second, next) = seal("{\"kind\":\"deny\"}", &hash);
    let (third, _) = seal("{\"kind\":\"stop\"}", &next);
    let broken = |lines: &[&str]| {
        let lines = lines.concat();
        async move {
            let scene = Scene::set().await;
            scene.append(&lines);
            scene.found()
        }
    };
    assert_eq!(broken(&[&first, &second, &third, "{\"torn"]).await, []);
    let changed = second.replace("deny", "uses");
    let tampered: [&[&str]; 4] = [
        &[&first, &changed, &third],
        &[&first, &third],
        &[&second, &third],
        &[&first, "{\"kind\":\"use\"}\n", &second],
    ];
    for lines in tampered {
        assert!(matches!(&broken(lines).await[..], [Violation::AuditBroken { .. }, ..]), "{lines:?}");
    }
    assert!(matches!(&broken(&["not json\n"]).await[..], [Violation::AuditBroken { line: 1, .. }]));
}

#[tokio::test]
#[should_panic(expected = "holds the secret of github")]
async fn reconciling_gives_a_readable_account() {
    let scene = Scene::set().await;
    scene.receive(Reply::new(200).body(SECRET)).await;
    scene.oracle.reconcile().await;
}

#[tokio::test]
async fn reconciling_waits_for_records_that_are_on_their_way() {
    let scene = scene(&[issue()], &[]).await;
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.write(&used());
    };
    tokio::join!(scene.oracle.reconcile(), late);
}
