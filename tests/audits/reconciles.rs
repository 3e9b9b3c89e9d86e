//! The broker holds Envoy's access log against the filters' records: what only Envoy saw is recorded,
//! once, and what both saw is not.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use attache_tests::agent::head;
use attache_tests::oracle::Record;
use attache_tests::stack::{CUSTOM, GITHUB, Plan, QUERY, SOON};
use attache_tests::{Attache, Stack, Upstream, util};
use serde_json::{Value, json};

use crate::{of_requests, records, with_requests};

/// How long a line waits for its record and a record for its line, and some more.
const WINDOW: Duration = Duration::from_secs(25);

/// The records that the witness made.
fn told(stack: &Stack<Attache>) -> Vec<Record> {
    let all = records(stack).into_iter();
    all.filter(is_by_envoy).collect()
}

fn is_by_envoy(record: &Record) -> bool {
    !record.text("details").is_empty()
}

/// The page at a path of the operators' door.
fn page(stack: &Stack<Attache>, path: &str) -> String {
    let mut socket = UnixStream::connect(stack.dir().join("state/default/control.sock")).expect("the operators' door");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("a question");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

fn metric(stack: &Stack<Attache>, name: &str) -> u64 {
    let page = page(stack, "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("attache_witness_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().expect("a number")
}

/// Waits until the broker has compared so many requests, and nothing is left to compare.
async fn compared(stack: &Stack<Attache>, requests: u64) {
    util::eventually(WINDOW, || metric(stack, "explained_total") >= requests && metric(stack, "waiting") == 0).await;
    assert_eq!(metric(stack, "explained_total"), requests);
}

/// Sends what is no good request, and reads what Envoy answers.
async fn raw(stack: &Stack<Attache>, text: &str) -> u16 {
    let mut agent = stack.agent().h1(stack.proxy).await;
    agent.send(text).await.expect("a request is sent");
    agent.response(SOON).await.expect("an answer").status
}

/// Waits for as many records of the witness, and returns them.
async fn witnessed(stack: &Stack<Attache>, n: usize) -> Vec<Record> {
    util::eventually_some(WINDOW, || Some(told(stack)).filter(|all| all.len() >= n)).await
}

fn manager(bootstrap: &mut Value) -> &mut Value {
    let manager = bootstrap.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    manager.expect("the connection manager")
}

/// What sends the access log to the broker.
fn sender(bootstrap: &mut Value) -> &mut Value {
    let logs = manager(bootstrap)["access_log"].as_array_mut().expect("access logs");
    logs.iter_mut().find(|log| log["name"] == "envoy.access_loggers.open_telemetry").expect("one to the broker")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_answers_by_itself_is_recorded_once() {
    let stack = Plan::default().start().await;
    let long = format!("GET /long HTTP/1.1\r\nHost: api.github.com\r\nx-long: {}\r\n\r\n", "l".repeat(70_000));
    assert_eq!(raw(&stack, "GET user\r\n\r\n").await, 400);
    assert_eq!(raw(&stack, "GET /old?key=hidden HTTP/1.0\r\nHost: api.github.com\r\n\r\n").await, 426);
    assert_eq!(raw(&stack, &long).await, 431);
    let under = "GET /under HTTP/1.1\r\nHost: api.github.com\r\nx_under: 1\r\n\r\n";
    assert_eq!(raw(&stack, under).await, 400);
    let escaped = "GET /a%2fb?key=hidden HTTP/1.1\r\nHost: api.github.com\r\n\r\n";
    assert_eq!(raw(&stack, escaped).await, 400);
    // Both after them, and nobody waits for more than this.
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    assert!([200, 503].contains(&stack.agent().get(stack.proxy, "anything", "/health", &[]).await.status));
    compared(&stack, 1).await;

    let all = witnessed(&stack, 5).await;
    let mut statuses: Vec<_> = all.iter().map(|record| record.text("response_code")).collect();
    statuses.sort();
    assert_eq!(statuses, ["400", "400", "400", "426", "431"], "{all:#?}");
    for record in &all {
        for (field, value) in [("kind", "deny"), ("decision", "refuse"), ("reason", "not_decided")] {
            assert_eq!(record.text(field), value, "{}", record.json);
        }
        assert!(is_by_envoy(record) && record.text("auth_injected") == "false", "{}", record.json);
        assert!(record.at_ms().is_some_and(|at| at.abs_diff(util::wall_ms()) < 60_000), "{}", record.json);
        assert!(!record.json.to_string().contains("hidden"), "{}", record.json);
    }
    // As far as Envoy read them.
    let by = |details: &str| all.iter().find(|record| record.text("details") == details).expect(details);
    assert_eq!(by("low_version").text("response_code"), "426");
    let slash = by("path_normalization_failed");
    assert_eq!((slash.text("path"), slash.text("authority")), ("/a/b".into(), "api.github.com".into()));
    assert_eq!(metric(&stack, "found_total"), 5);
    assert!(page(&stack, "/readyz").starts_with("HTTP/1.1 200"), "nothing is wrong with that");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_down_is_no_blind_spot() {
    let stack = Plan::default().with_traps().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let trap = [("authorization", bearer.as_str()), ("x-attache-trap", "request_headers")];
    let mut sent = Vec::new();
    for round in 0..2 {
        let path = format!("/trap/{round}");
        assert_eq!(stack.agent().get(stack.proxy, "api.github.com", &path, &trap).await.status, 503);
        sent.push(path);
        // Until the VM is back: some of these it never sees.
        for number in 0.. {
            let path = format!("/user/{round}/{number}");
            let answer = stack.agent().get(stack.proxy, "api.github.com", &path, &trap[..1]).await;
            sent.push(path);
            if answer.status == 200 {
                break;
            }
            assert!(number < 1_000, "the VM does not come back: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The next trap takes along what is not delivered: here, nothing.
        with_requests(&stack, sent.len()).await;
    }
    let all = with_requests(&stack, sent.len()).await;
    let mut recorded: Vec<_> = of_requests(&all).map(|record| record.text("path")).collect();
    recorded.sort();
    sent.sort();
    assert_eq!(recorded, sent, "each exactly once");
    let by_envoy = told(&stack);
    assert!(by_envoy.iter().any(|record| record.text("path") == "/trap/0"), "{by_envoy:#?}");
    assert!(by_envoy.iter().all(|record| record.text("reason") == "not_decided"), "{by_envoy:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_saw_is_not_told_twice() {
    let stack = Plan::default().workers(2).start().await;
    let (writer, reader) = (stack.placeholder("writer", "github"), stack.placeholder("reader", "github"));
    let query = stack.placeholder("writer", "query");
    assert_eq!(stack.get("api.github.com", "/user?hidden=1", &writer).await.status, 200);
    assert_eq!(stack.send("POST", "api.github.com", "/repos", &reader, b"{}").await.status, 403);
    assert_eq!(stack.get("query.custom.test", &format!("/q?key={query}"), &query).await.status, 200);
    assert_eq!(stack.get("nowhere.test", "/", &writer).await.status, 403);
    // One request id for many requests, and one that is no text.
    for id in ["mine", "mine", "m\u{fc}ne"] {
        let lines = [("authorization", &*format!("Bearer {writer}")), ("x-request-id", id)];
        assert_eq!(stack.agent().get(stack.proxy, "api.github.com", "/user", &lines).await.status, 200);
    }
    let mut h2 = stack.agent().h2(stack.proxy).await;
    let bearer = format!("Bearer {writer}");
    let lines = [("authorization", bearer.as_str())];
    for method in ["GET", "POST"] {
        let exchange = h2.start(head(method, "api.github.com", "/user", &lines), true).await.expect("sent");
        assert_eq!(exchange.response(SOON).await.expect("an answer").status, 200);
    }
    compared(&stack, 9).await;

    // Two that leave while the broker is still: before any record of theirs can come.
    let stranger = format!("Bearer {}", stack.placeholder("reader", "custom"));
    stack.broker.signal("STOP");
    let mut h1 = stack.agent().h1(stack.proxy).await;
    let request = format!("GET /v1/held HTTP/1.1\r\nHost: api.custom.test\r\nAuthorization: {stranger}\r\n\r\n");
    h1.send(&request).await.expect("sent");
    let held = h2.start(head("GET", "api.custom.test", "/v1/held", &[("authorization", &stranger)]), true).await;
    let held = held.expect("sent");
    stack.envoy.wait_stat("http.attache.downstream_rq_active", |open| open == 2, SOON).await;
    h1.abort();
    held.reset();
    stack.envoy.wait_stat("http.attache.downstream_rq_active", |open| open == 0, SOON).await;
    stack.broker.signal("CONT");
    with_requests(&stack, 11).await;
    compared(&stack, 11).await;

    assert_eq!(told(&stack).len(), 0, "{:#?}", told(&stack));
    assert_eq!((metric(&stack, "found_total"), metric(&stack, "lost_total")), (0, 0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_is_told_again_and_tells_nothing_false() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    compared(&stack, 1).await;
    stack.broker.kill();
    // A cached grant, with nobody there: of both the record comes, and of neither a line.
    for _ in 0..2 {
        assert_eq!(stack.get("api.github.com", "/meanwhile", &placeholder).await.status, 200);
    }
    stack.envoy.wait_stat("access_logs.open_telemetry_access_log.attache.logs_dropped", |n| n >= 2, SOON).await;
    stack.broker.restart().await;
    with_requests(&stack, 3).await;
    assert_eq!(raw(&stack, "GET /old HTTP/1.0\r\nHost: api.github.com\r\n\r\n").await, 426);
    util::eventually(SOON, || metric(&stack, "found_total") == 1).await;
    let since = std::time::Instant::now();
    let placeholder = stack.placeholder("writer", "github");
    while stack.get("api.github.com", "/after", &placeholder).await.status != 200 {
        assert!(since.elapsed() < SOON, "grants leave again");
    }
    util::eventually(WINDOW, || metric(&stack, "waiting") == 0 && metric(&stack, "explained_total") > 0).await;
    assert_eq!(metric(&stack, "lost_total"), 0, "what ended before is not missed");
    let all = told(&stack);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!((all[0].text("details"), all[0].text("response_code")), ("low_version".into(), "426".into()));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_lost_are_counted() {
    // An Envoy that loses the lines of requests with this header.
    let stack = Plan::default().edit(|bootstrap| {
        let present = json!({"header_filter": {"header": {"name": "x-unwitnessed", "invert_match": true, "present_match": true}}});
        sender(bootstrap)["filter"] = present;
    });
    let stack = stack.start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let lines = [("authorization", bearer.as_str()), ("x-unwitnessed", "1")];
    for shown in [1, 2, 2] {
        assert_eq!(stack.agent().get(stack.proxy, "api.github.com", "/user", &lines[..shown]).await.status, 200);
    }
    let gap = util::eventually_some(WINDOW, || records(&stack).into_iter().find(|record| record.text("kind") == "gap"));
    let gap = gap.await;
    assert!(gap.text("reason").contains("2 requests on record have no line"), "{}", gap.json);
    assert_eq!((metric(&stack, "lost_total"), metric(&stack, "found_total")), (2, 0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_goes_by_the_filter_raises_an_alarm() {
    // Somebody switches the gate off on one route, and takes away what would have held the request.
    let plan = Plan::default().edit(|bootstrap| {
        let manager = manager(bootstrap);
        let filters = manager["http_filters"].as_array_mut().expect("filters");
        filters.retain(|filter| filter["name"] != "attache.assertion");
        for host in manager["route_config"]["virtual_hosts"].as_array_mut().expect("hosts") {
            let own = host["name"] == "api.custom.test:443";
            // The gateway's own host has a tree.
            for route in host["routes"].as_array_mut().into_iter().flatten() {
                let settings = route["typed_per_filter_config"].as_object_mut();
                settings.and_then(|settings| settings.remove("attache.assertion"));
                if own && route.get("route").is_some() {
                    let off =
                        json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
                    route["typed_per_filter_config"]["attache.gate"] = off;
                    route["match"].as_object_mut().expect("a match").remove("filter_state");
                }
            }
        }
    });
    let stack = plan.start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    compared(&stack, 1).await;
    assert!(page(&stack, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(stack.agent().get(stack.proxy, "api.custom.test", "/v1/past?key=hidden", &[]).await.status, 200);

    let all = witnessed(&stack, 1).await;
    let [record] = &all[..] else { panic!("{all:#?}") };
    for (field, value) in [
        ("kind", "unaccounted"),
        ("decision", "forward"),
        ("reason", "not_decided"),
        ("path", "/v1/past"),
        ("authority", "api.custom.test"),
        ("response_code", "200"),
        ("count", "1"),
    ] {
        assert_eq!(record.text(field), value, "{field} of {}", record.json);
    }
    assert_eq!(record.text("upstream"), stack.upstream().door("api.custom.test").to_string());
    let health = page(&stack, "/readyz");
    let (_, body) = health.split_once("\r\n\r\n").expect("a body");
    let health: Value = serde_json::from_str(body).expect("JSON");
    let all = health["dependencies"].as_array().expect("dependencies");
    let witness = all.iter().find(|one| one["name"] == "witness").expect("the witness");
    assert_eq!(witness["state"], "failed", "{witness}");
    assert!(witness["reason"].as_str().is_some_and(|reason| reason.contains("api.custom.test:443")), "{witness}");
    let log = std::fs::read_to_string(stack.broker.log_path()).expect("a log");
    assert!(log.contains("a request reached an upstream without a decision"), "{log}");
    assert!(!log.contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_whose_record_was_lost_is_told_with_its_lease() {
    let stack = Plan::default().with_traps().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let trap = [("authorization", bearer.as_str()), ("x-attache-trap", "delete")];
    assert_eq!(stack.agent().get(stack.proxy, "api.github.com", "/lost", &trap).await.status, 200);
    let all = witnessed(&stack, 1).await;
    let [record] = &all[..] else { panic!("{all:#?}") };
    let issued = records(&stack);
    let issue = issued.iter().find(|record| record.text("kind") == "issue").expect("an issue");
    for field in ["lease_id", "session", "session_id", "credential", "fingerprint", "destination", "evidence"] {
        assert_eq!(record.text(field), issue.text(field), "{field}");
    }
    for (field, value) in [("kind", "unaccounted"), ("decision", "forward"), ("path", "/lost"), ("count", "1")] {
        assert_eq!(record.text(field), value, "{field} of {}", record.json);
    }
    assert!(page(&stack, "/readyz").starts_with("HTTP/1.1 200"), "it was decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_holds_a_credential_or_a_query() {
    let broker = Upstream::plain().start().await;
    let endpoint = broker.endpoint();
    let stack = Plan::default().edit(move |bootstrap| {
        let mut log = json!({
            "name": "elsewhere", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "elsewhere", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}]},
        });
        let sent = &mut sender(bootstrap)["typed_config"];
        if let Some(by_grpc) = sent.get_mut("common_config") {
            by_grpc["grpc_service"]["envoy_grpc"]["cluster_name"] = json!("elsewhere");
            let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            log["typed_extension_protocol_options"] = json!({options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }});
        } else {
            sent["http_service"]["http_uri"]["cluster"] = json!("elsewhere");
        }
        bootstrap["static_resources"]["clusters"].as_array_mut().expect("clusters").push(log);
    });
    let stack = stack.start().await;
    for (credential, host, path) in [
        ("github", "api.github.com", "/user?hidden=in-the-query"),
        ("custom", "api.custom.test", "/v1/x"),
        ("query", "query.custom.test", "/q?page=in-the-query"),
    ] {
        let placeholder = stack.placeholder("writer", credential);
        assert_eq!(stack.get(host, path, &placeholder).await.status, 200, "{host}");
    }
    let lines = || -> Vec<u8> { broker.requests().into_iter().flat_map(|sent| sent.body.to_vec()).collect() };
    let holds = |lines: &[u8], text: &str| memchr::memmem::find(lines, text.as_bytes()).is_some();
    util::eventually(SOON, || ["/user", "/v1/x", "query.custom.test"].iter().all(|it| holds(&lines(), it))).await;
    for foreign in [GITHUB, CUSTOM, QUERY, "qu%2541ry", "in-the-query", "ATTACHE", "key=", "authorization"] {
        assert!(!holds(&lines(), foreign), "{foreign} in the access log");
    }
}
