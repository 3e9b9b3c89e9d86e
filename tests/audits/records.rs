//! What a record says, and that there is one for each request.

use std::collections::BTreeSet;

use attache_tests::fake_broker::Endpoint;
use attache_tests::oracle::Record;
use attache_tests::stack::{Plan, SOON};
use attache_tests::util;

use crate::{assert_gapless, log, numbers, of_requests, records, with_requests};

/// In every line, whatever it records.
const ALWAYS: [&str; 13] = [
    "timestamp",
    "instance",
    "session_id",
    "service",
    "method",
    "path",
    "auth_injected",
    "response_code",
    "duration_ms",
    "kind",
    "seq",
    "worker",
    "prev",
];

/// Beside those, in the record of a forwarded request.
const OF_A_USE: [&str; 11] = [
    "request_id",
    "session",
    "authority",
    "destination",
    "decision",
    "access_mode",
    "credential",
    "lease_id",
    "fingerprint",
    "evidence",
    "hash",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_has_its_fields_and_says_what_happened() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    let answer = stack.send("POST", "api.github.com", "/repos?token=never-logged", &placeholder, b"{}").await;
    assert_eq!(answer.status, 200);
    assert_eq!(stack.get("api.github.com", "/user", "ghp_ATTACHEunknownunknownunknownunknown0").await.status, 401);
    stack.broker.json(&["session", "set-access-mode", "writer", "read-only"]);
    stack.broker.json(&["session", "create", "short", "--credential", "github"]);
    stack.broker.json(&["session", "revoke", "short"]);
    with_requests(&stack, 2).await;
    stack.broker.signal("TERM");
    util::eventually(SOON, || !stack.broker.alive()).await;

    let all = records(&stack);
    for record in &all {
        let line = &record.json;
        assert!(ALWAYS.iter().all(|field| line.get(field).is_some()), "{line}");
        assert_eq!(line["instance"], "default");
        assert!(record.at_ms().is_some_and(|at| at.abs_diff(util::wall_ms()) < 60_000), "{line}");
    }
    let one = |kind: &str, decision: &str| -> Record {
        let fits = |record: &&Record| record.text("kind") == kind && record.text("decision") == decision;
        all.iter().find(fits).unwrap_or_else(|| panic!("no record {kind} {decision} in {all:#?}")).clone()
    };

    let used = one("use", "forward");
    assert!(OF_A_USE.iter().all(|field| used.json.get(field).is_some()), "{}", used.json);
    for (field, value) in [
        ("service", "github"),
        ("session", "writer"),
        ("method", "POST"),
        ("path", "/repos"),
        ("auth_injected", "true"),
        ("response_code", "200"),
        ("authority", "api.github.com"),
        ("destination", "api.github.com:443"),
        ("access_mode", "read-write"),
        ("credential", "github"),
        ("evidence", "placeholder"),
    ] {
        assert_eq!(used.text(field), value, "{field}");
    }
    let hit = &stack.upstream().requests()[0];
    assert_eq!(hit.request_id(), Some(used.text("request_id")), "one id from end to end");

    let issued = one("issue", "");
    for field in ["session_id", "session", "credential", "lease_id", "fingerprint", "destination", "evidence"] {
        assert_eq!(issued.text(field), used.text(field), "{field}");
    }
    assert_eq!(issued.text("issued_to"), used.text("worker"));
    assert_eq!(issued.text("ttl_ms"), "300000", "the default `grant_ttl`");
    assert!(hit.witness_len.expect("a witness") >= issued.end, "it was on disk when the request arrived");

    let denied = one("deny", "refuse");
    assert_eq!((denied.text("reason").as_str(), denied.text("response_code").as_str()), ("placeholder_unknown", "401"));
    assert_eq!((denied.text("auth_injected").as_str(), denied.text("credential").as_str()), ("false", ""));

    for (kind, decision, session) in [
        ("mode", "declare", "writer"),
        ("mode", "set", "writer"),
        ("mode", "create", "short"),
        ("revoke", "end", "short"),
    ] {
        let record = one(kind, decision);
        assert_eq!((record.text("session").as_str(), record.text("worker").as_str()), (session, "broker"));
    }
    let kinds: Vec<_> = all.iter().map(|record| record.text("kind")).collect();
    assert_eq!((kinds[0].as_str(), &kinds[kinds.len() - 2..]), ("start", &["stop".into(), "checkpoint".into()][..]));
    assert!(!std::fs::read_to_string(log(&stack)).expect("a log").contains("never-logged"), "no query value");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_number_their_own_records() {
    let stack = Plan::default().workers(2).start().await;
    let good = stack.placeholder("writer", "github");
    let mut sent = 0;
    // The kernel chooses the worker of a connection: until both had one.
    loop {
        for _ in 0..10 {
            assert_eq!(stack.get("api.github.com", "/user", &good).await.status, 200);
            assert_eq!(stack.get("api.github.com", "/user", "nothing").await.status, 401);
        }
        sent += 20;
        let all = with_requests(&stack, sent).await;
        assert_eq!(of_requests(&all).count(), sent, "one record a request");
        if numbers(&all).keys().filter(|worker| *worker != "broker").count() == 2 {
            break;
        }
        assert!(sent < 400, "both workers get connections");
    }
    let all = records(&stack);
    assert_gapless(&all);
    let issues: Vec<_> = all.iter().filter(|record| record.text("kind") == "issue").collect();
    let leases: BTreeSet<String> = issues.iter().map(|issue| issue.text("lease_id")).collect();
    let served: BTreeSet<String> = issues.iter().map(|issue| issue.text("issued_to")).collect();
    assert_eq!((leases.len(), served.len()), (issues.len(), 2), "leases of its own for each worker");
    for used in all.iter().filter(|record| record.text("kind") == "use") {
        let lease = issues.iter().find(|issue| issue.text("lease_id") == used.text("lease_id")).expect("its issue");
        assert_eq!(lease.text("issued_to"), used.text("worker"), "a worker uses what was issued to it");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_travel_in_batches() {
    const REQUESTS: usize = 200;
    let stack = Plan::default().start_with_fake().await;
    let bearer = format!("Bearer {}", stack.placeholder());
    let mut agent = stack.agent().h1(stack.proxy).await;
    for _ in 0..REQUESTS {
        let answer = agent.request("GET", "api.github.com", "/user", &[("authorization", &bearer)], b"").await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let held = stack.broker.wait_records(REQUESTS, SOON).await;
    let numbers: Vec<u64> = held.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=REQUESTS as u64).collect::<Vec<_>>());
    let calls = stack.broker.calls(Endpoint::Audit);
    assert!(calls <= REQUESTS / 4, "{REQUESTS} records took {calls} calls");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_could_steer_a_terminal_are_escaped() {
    // Envoy's normalisation would percent-encode such bytes; an operator may have switched it off.
    let plan = Plan::default().edit(|bootstrap| {
        let listener = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let manager = bootstrap.pointer_mut(listener).expect("a connection manager");
        manager["normalize_path"] = false.into();
        manager["merge_slashes"] = false.into();
    });
    let stack = plan.start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let odd: [(&[u8], &[u8]); 3] = [
        (b"api.github.com", b"/\xff\xfe\xc3\xa9?q=\xff"),
        (b"api.github.com\xff", b"/user"),
        (b"api.github.com", b"/\xe2\x80\xae\"\\,\"kind\":\"use\"/\xc2\x9b31m"),
    ];
    stack.site.oracle.excuse(r"api.github.com\xff");
    for (authority, path) in odd {
        let fields: [(&[u8], &[u8]); 5] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", authority),
            (b":path", path),
            (b"authorization", bearer.as_bytes()),
        ];
        let mut agent = stack.agent().raw_h2(stack.proxy).await;
        let stream = agent.headers(&fields, true).await;
        // Whatever it is answered, it is not forgotten; or Envoy closes the connection before any filter sees it.
        agent.response(stream, SOON).await.ok();
    }
    assert_eq!(stack.get("api.github.com", "/last", &stack.placeholder("writer", "github")).await.status, 200);
    let end = |all: &[Record]| all.iter().any(|record| record.text("path") == "/last");
    let all = util::eventually_some(SOON, || Some(records(&stack)).filter(|all| end(all))).await;
    let seen: Vec<&Record> = of_requests(&all).filter(|record| record.text("path") != "/last").collect();
    assert!(seen.len() >= 2, "the filter sees such requests");
    for record in seen {
        let bytes =
            |field: &str| record.text(field).chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect();
        let (authority, path): (Vec<u8>, Vec<u8>) = (bytes("authority"), bytes("path"));
        let sent = odd.iter().any(|(sent_authority, sent_path)| {
            let before_query = sent_path.split(|byte| *byte == b'?').next().unwrap_or_default();
            authority == *sent_authority && path == before_query
        });
        assert!(sent, "byte by byte what was sent: {}", record.json);
    }
    let text = std::fs::read(log(&stack)).expect("a log");
    assert!(text.iter().all(|byte| *byte == b'\n' || (0x20..0x7f).contains(byte)), "one line of ASCII a record");
    let uses = all.iter().filter(|record| record.text("kind") == "use").count();
    assert_eq!(uses, stack.upstream().requests().len(), "no record was talked into being");
    let tail = String::from_utf8(stack.broker.cli(&["audit", "tail", "-n", "100"]).stdout).expect("text");
    assert!(tail.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "nor does `audit tail` steer it: {tail:?}");
    stack.reconcile().await;
}
