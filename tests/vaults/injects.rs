//! From a vault to the upstream, through a real Envoy.

use std::time::{Duration, Instant};

use attache_tests::stack::{Plan, Stack};
use attache_tests::{Attache, Reply, util};
use serde_json::{Value, json};

use crate::connect::{self, Connect};
use crate::infisical::{self, Infisical};

/// How long what must come may take.
const SOON: Duration = Duration::from_secs(20);
const LOGIN: &str = "POST /api/v1/auth/universal-auth/login";

/// What the upstream gets from a session that shows this placeholder.
async fn hit(stack: &Stack<Attache>, host: &str, placeholder: &str) -> String {
    let answer = stack.get(host, "/", placeholder).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stack.upstream().requests().last().and_then(|hit| hit.header("authorization")).expect("a hit")
}

/// Waits until it gets this, for so long.
async fn until_hit(stack: &Stack<Attache>, (host, placeholder): (&str, &str), secret: &str, most: Duration) {
    let end = Instant::now() + most;
    while hit(stack, host, placeholder).await != format!("Bearer {secret}") {
        assert!(Instant::now() < end, "never picked up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn says(stack: &Stack<Attache>) -> String {
    std::fs::read_to_string(stack.broker.log_path()).expect("the broker's log")
}

async fn metrics(stack: &Stack<Attache>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let stream = tokio::net::UnixStream::connect(&stack.config.listen.control).await;
    let mut stream = stream.expect("the operators' door");
    let head = b"GET /metrics HTTP/1.1\r\nhost: attache\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.expect("a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

fn infisical_asked_each(there: &Infisical, refresh: &str) -> String {
    format!(
        "sources:\n  infisical:\n    address: 'http://{}'\n    project: {}\n    environment: prod\n    refresh: {refresh}\n\
         \x20   auth: {{universal: {{client_id: {}, client_secret: {{env: CLIENT_SECRET}}}}}}\n",
        there.addr,
        infisical::PROJECT,
        infisical::CLIENT_ID
    )
}

fn credential(host: &str, source: &str, variable: &str) -> String {
    format!(
        "{{source: {source}, inject: bearer, destinations: [{{host: {host}.extra.test, upstream: DIAL}}], agent_env: \
         {{{variable}: placeholder}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_infisical_is_injected_by_one_login_and_its_next_value_takes_its_place_within_refresh() {
    const FIRST: &str = "the-first-secret-of-infisical-0123456789";
    const SECOND: &str = "the-second-secret-of-infisical-987654321";
    const OTHER: &str = "the-secret-of-a-folder-of-infisical-0123";
    let there = Infisical::start().await;
    there.put("prod", "/", "APP_TOKEN", FIRST);
    there.put("staging", "/apps", "APP_TOKEN", OTHER);
    let sources = infisical_asked_each(&there, "1s");
    let elsewhere = "{infisical: {name: APP_TOKEN, path: /apps, environment: staging}}";
    let stack = Plan::default()
        .credential("app", FIRST, &credential("app", "{infisical: {name: APP_TOKEN}}", "APP"))
        .credential("folder", OTHER, &credential("folder", elsewhere, "FOLDER"))
        .session("{name: s, credentials: [app, folder]}")
        .extra(&sources)
        .env("CLIENT_SECRET", infisical::CLIENT_SECRET)
        .env("ATTACHE_LOG", "trace")
        .start()
        .await;
    stack.site.secrets.add("app", SECOND);
    let (app, folder) = (stack.broker.exported("s", "APP"), stack.broker.exported("s", "FOLDER"));
    assert_eq!(hit(&stack, "app.extra.test", &app).await, format!("Bearer {FIRST}"));
    assert_eq!(hit(&stack, "folder.extra.test", &folder).await, format!("Bearer {OTHER}"));
    there.put("prod", "/", "APP_TOKEN", SECOND);
    // A second, and however long a busy machine takes for the rest.
    until_hit(&stack, ("app.extra.test", &app), SECOND, Duration::from_secs(5)).await;
    assert_eq!(hit(&stack, "folder.extra.test", &folder).await, format!("Bearer {OTHER}"));
    assert_eq!(there.asked(LOGIN), 1, "one login for both, and for all questions");
    let listed = stack.broker.json(&["credential", "list"]);
    let places: Vec<_> = listed.as_array().expect("a list").iter().filter_map(|one| one["source"].as_str()).collect();
    assert!(places.contains(&"infisical prod:/APP_TOKEN"), "{places:?}");
    assert!(places.contains(&"infisical staging:/apps/APP_TOKEN"), "{places:?}");
    let page = metrics(&stack).await;
    let counted = page.lines().any(|line| {
        let of = "attache_source_questions_total{kind=\"infisical\",result=\"secret\"} ";
        line.strip_prefix(of).is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count >= 3))
    });
    assert!(counted, "{page}");
    stack.reconcile().await;
    stack.broker.signal("TERM");
    util::eventually(SOON, || !there.world().revoked.is_empty()).await;
    let log = says(&stack);
    assert!(!log.contains(infisical::CLIENT_SECRET) && !log.contains("a-token-that-nobody-may-see"));
}

/// The service takes another secret from now on; its source has that, and is asked once an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_service_rejects_is_asked_for_once_and_recorded_and_nothing_is_sent_twice() {
    const FIRST: &str = "the-secret-of-before-of-infisical-012345";
    const SECOND: &str = "the-secret-of-after-of-infisical-9876543";
    let there = Infisical::start().await;
    there.put("prod", "/", "APP_TOKEN", FIRST);
    let sources = infisical_asked_each(&there, "1h");
    let stack = Plan::default()
        .credential("app", FIRST, &credential("app", "{infisical: {name: APP_TOKEN}}", "APP"))
        .session("{name: s, credentials: [app]}")
        .extra(&sources)
        .env("CLIENT_SECRET", infisical::CLIENT_SECRET)
        .start()
        .await;
    stack.site.secrets.add("app", SECOND);
    let app = stack.broker.exported("s", "APP");
    hit(&stack, "app.extra.test", &app).await;
    let asked_for = || there.world().asked.iter().filter(|asked| asked.contains("APP_TOKEN")).count();
    let asked = asked_for();
    let get = async || stack.get("app.extra.test", "/", &app).await.status;
    let takes = |secret: &'static str| {
        stack.upstream().answer_with(move |asked| {
            let shown = asked.fields.text("authorization").unwrap_or_default();
            Reply::new(if shown == format!("Bearer {secret}") { 200 } else { 401 })
        });
    };
    let renewals = || {
        let log = std::fs::read_to_string(&stack.config.audit.path).expect("the log");
        let records = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
        records.filter(|record| record["kind"] == "renew").collect::<Vec<_>>()
    };

    there.put("prod", "/", "APP_TOKEN", SECOND);
    takes(SECOND);
    let sent = stack.upstream().requests().len();
    assert_eq!(get().await, 401, "what the service says of it is the agent's");
    assert_eq!(stack.upstream().requests().len(), sent + 1, "nothing is sent again");
    let end = Instant::now() + SOON;
    while get().await != 200 {
        assert!(Instant::now() < end, "never picked up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(asked_for(), asked + 1, "once, however many uses were rejected");
    util::eventually(SOON, || renewals().len() == 1).await;
    let renewal = &renewals()[0];
    assert_eq!((&renewal["credential"], &renewal["reason"]), (&json!("app"), &json!("an upstream answered 401")));
    assert!(renewal["fingerprint"].is_string() && renewal["fingerprint"] != renewal["replaced"], "{renewal}");

    // An agent that has a service answer 401 has nobody ask for the same thing over and over.
    takes("what nobody has");
    for _ in 0..20 {
        assert_eq!(get().await, 401);
    }
    stack.reconcile().await;
    assert_eq!((asked_for(), renewals().len()), (asked + 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_connect_is_injected_and_one_reading_of_an_item_serves_all_its_fields() {
    const FIRST: &str = "the-first-secret-of-connect-0123456789";
    const SECOND: &str = "the-second-secret-of-connect-987654321";
    const OTHER: &str = "the-secret-of-a-section-of-connect-0123";
    let there = Connect::start().await;
    there.put(0, FIRST);
    there.put(1, OTHER);
    let sources = format!(
        "sources:\n  onepassword:\n    refresh: 1s\n    connect: {{address: 'http://{}', token: {{env: \
         CONNECT_TOKEN}}}}\n",
        there.addr
    );
    let plan = Plan::default()
        .credential("app", FIRST, &credential("app", "{onepassword: 'op://Private/GitHub/token'}", "APP"))
        .credential("part", OTHER, &credential("part", "{onepassword: 'op://Private/GitHub/Tokens/deploy'}", "PART"))
        .session("{name: s, credentials: [app, part]}")
        .extra(&sources)
        .env("CONNECT_TOKEN", connect::TOKEN)
        .env("ATTACHE_LOG", "trace");
    let stack = plan.start().await;
    stack.site.secrets.add("app", SECOND);
    let (app, part) = (stack.broker.exported("s", "APP"), stack.broker.exported("s", "PART"));
    assert_eq!(hit(&stack, "app.extra.test", &app).await, format!("Bearer {FIRST}"));
    assert_eq!(hit(&stack, "part.extra.test", &part).await, format!("Bearer {OTHER}"));
    there.put(0, SECOND);
    until_hit(&stack, ("app.extra.test", &app), SECOND, Duration::from_secs(5)).await;
    assert_eq!(hit(&stack, "part.extra.test", &part).await, format!("Bearer {OTHER}"));
    let items = format!("/v1/vaults/{}/items", connect::VAULT);
    assert_eq!((there.asked("/v1/vaults?"), there.asked(&format!("{items}?"))), (1, 1), "names are remembered");
    let listed = stack.broker.json(&["credential", "list"]);
    let places: Vec<_> = listed.as_array().expect("a list").iter().filter_map(|one| one["source"].as_str()).collect();
    assert!(places.contains(&"1password op://Private/GitHub/Tokens/deploy"), "{places:?}");
    assert!(metrics(&stack).await.contains("attache_source_questions_total{kind=\"onepassword\",result=\"secret\"}"));
    stack.reconcile().await;
    assert!(!says(&stack).contains(connect::TOKEN));
}

#[test]
fn doctor_says_where_there_is_nothing_to_log_in_with_and_asks_nobody() {
    use std::os::unix::fs::PermissionsExt;
    let dir = util::temp_dir();
    let (config, secrets) = (dir.path().join("attache.yaml"), dir.path().join("state/default/secrets"));
    // Nobody listens there.
    let yaml = "state_dir: state\nsources:\n  infisical: {address: 'http://127.0.0.1:9', project: p, environment: e, \
                auth: {universal: {client_id: c, client_secret: {file: infisical}}}}\n  onepassword: {connect: {address: \
                'http://127.0.0.1:9', token: {file: connect}}}\ncredentials:\n  one: {source: {infisical: {name: T}}, \
                inject: bearer, destinations: [{host: a.test}]}\n  two: {source: {onepassword: 'op://v/i/f'}, inject: \
                bearer, destinations: [{host: b.test}]}\n";
    std::fs::write(&config, yaml).expect("the config");
    std::fs::create_dir_all(&secrets).expect("directories");
    for private in secrets.ancestors().take(3) {
        std::fs::set_permissions(private, PermissionsExt::from_mode(0o700)).expect("private");
    }
    let run = |args: &[&str]| {
        let output = attache_tests::attache::run(&config, args);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let checked = run(&["check"]);
    assert!(
        checked.contains("from    infisical e:/T") && checked.contains("from    1password op://v/i/f"),
        "{checked}"
    );
    let examined = run(&["doctor"]);
    for place in ["infisical e:/T", "1password op://v/i/f"] {
        assert!(examined.contains(&format!("nothing to log in with for {place}: file ")), "{examined}");
    }
    for file in ["infisical", "connect"] {
        std::fs::write(secrets.join(file), "something\n").expect("a secret");
        std::fs::set_permissions(secrets.join(file), PermissionsExt::from_mode(0o600)).expect("private");
    }
    let examined = run(&["doctor"]);
    assert!(!examined.contains("nothing to log in with"), "{examined}");
}
