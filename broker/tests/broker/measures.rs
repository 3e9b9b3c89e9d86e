//! `/metrics` counts what happens, says what the documents say it does, and tells nothing of anybody.

use crate::world::{OTHER_SECRET, SECRET, World, until};
use attache_broker::config::{Config, DeclaredSession, Rotation, Rotator};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn metrics(world: &World) -> String {
    let answer = world.operate("GET", "/metrics", Value::Null).await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// What a sample has now; 0 if it is not there yet.
async fn sample(world: &World, name: &str) -> f64 {
    let text = metrics(world).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn what_happens_is_counted() {
    let mut world = World::new().await;
    const GRANTED: &str = r#"attache_grants_total{outcome="granted",reason=""}"#;
    const UNKNOWN: &str = r#"attache_grants_total{outcome="denied",reason="placeholder_unknown"}"#;
    world.plain_grant().await;
    world.grant("api.a.test:443", Some("ghp_nobodys"), None).await;
    assert_eq!((sample(&world, GRANTED).await, sample(&world, UNKNOWN).await), (1.0, 1.0));
    assert_eq!(sample(&world, "attache_grant_seconds_count").await, 2.0);
    world.way("nowhere.test", 443, "nobodys").await;
    const STRANGER: &str = r#"attache_tunnels_total{outcome="denied",reason="placeholder_unknown"}"#;
    assert_eq!((sample(&world, STRANGER).await, sample(&world, "attache_tunnel_seconds_count").await), (1.0, 1.0));
    assert_eq!(sample(&world, r#"attache_leases_issued_total{credential="github"}"#).await, 1.0);
    assert_eq!(sample(&world, r#"attache_leases_issued_total{credential="other"}"#).await, 0.0);
    let records = world.records().len();
    assert_eq!(sample(&world, "attache_audit_records_total").await, records as f64);
    assert!(sample(&world, "attache_audit_sync_seconds_count").await >= 2.0, "one for the start, one for the grant");
    assert_eq!(sample(&world, "attache_audit_queue").await, 0.0, "nobody waits");

    assert_eq!(sample(&world, "attache_sessions_live").await, 1.0);
    let body = json!({"name": "made", "credentials": ["github"], "access_mode": "read-only"});
    world.operate("POST", "/v1/sessions", body).await;
    let elevation = json!({"access_mode": "read-write", "for_ms": 60_000});
    world.operate("PUT", "/v1/sessions/made/access-mode", elevation).await;
    assert_eq!(sample(&world, "attache_sessions_elevated").await, 1.0);
    world.operate("POST", "/v1/sessions/made/revoke", Value::Null).await;
    assert_eq!(sample(&world, "attache_sessions_live").await, 1.0);
    assert!(sample(&world, r#"attache_connections{door="control"}"#).await >= 1.0, "this one");

    // The next life counts from zero.
    world.restart().await;
    assert_eq!(sample(&world, GRANTED).await, 0.0);
}

#[tokio::test]
async fn many_declared_sessions_are_recorded_together() {
    let world = World::with(|config| {
        let [one, ..] = &config.sessions[..] else { panic!("a session is declared") };
        let name = |number| attache_core::names::Name::parse(&format!("declared-{number}")).unwrap();
        let more: Vec<_> = (0..200).map(|number| DeclaredSession { name: name(number), ..one.clone() }).collect();
        config.sessions.extend(more);
    });
    let world = world.await;
    let declared = world.records().iter().filter(|record| record["decision"] == "declare").count();
    assert_eq!(declared, 201);
    let synced = sample(&world, "attache_audit_sync_seconds_count").await;
    assert!(synced < 100.0, "{synced} waits for the disk");
}

#[tokio::test]
async fn a_change_is_timed_until_a_worker_has_applied_it() {
    let world = World::new().await;
    let told = world.poll("", 0, 0).await;
    let (epoch, cursor) = (told["epoch"].as_str().unwrap(), told["cursor"].as_u64().unwrap());
    assert_eq!(sample(&world, "attache_workers").await, 1.0);
    const COUNT: &str = "attache_change_applied_seconds_count";
    // The command waits for the worker, which hears of the change and acknowledges it, twice.
    let (reloaded, ()) = tokio::join!(world.operate("POST", "/v1/credentials/github/reload", Value::Null), async {
        until("the change is told", async || world.poll(epoch, cursor, 1_000).await["cursor"] == cursor + 1).await;
        assert_eq!(sample(&world, COUNT).await, 0.0, "told, and not acknowledged");
        world.poll(epoch, cursor + 1, 0).await;
        world.poll(epoch, cursor + 1, 0).await;
    });
    assert_eq!(reloaded.status, 200);
    assert_eq!(sample(&world, COUNT).await, 1.0, "once a worker and change");
}

#[tokio::test]
async fn what_is_broken_is_counted() {
    let world = World::new().await;
    const ERRORS: &str = r#"attache_source_errors_total{credential="github"}"#;
    const USABLE: &str = r#"attache_credential_usable{credential="github"}"#;
    assert_eq!((sample(&world, ERRORS).await, sample(&world, USABLE).await), (0.0, 1.0));
    std::fs::remove_file(world.secret_path("github")).unwrap();
    until("it is noticed", async || sample(&world, ERRORS).await == 1.0).await;
    assert_eq!(sample(&world, USABLE).await, 0.0);
    world.write_secret("github", SECRET);
    until("it is mended", async || sample(&world, USABLE).await == 1.0).await;

    world.break_audit();
    world.plain_grant().await;
    assert_eq!(sample(&world, "attache_audit_writable").await, 0.0);
    assert!(sample(&world, "attache_audit_faults_total").await >= 1.0);
    world.mend_audit();
    until("it writes again", async || sample(&world, "attache_audit_writable").await == 1.0).await;
    assert_eq!(sample(&world, "attache_audit_queue").await, 0.0, "what was refused waits no longer");
}

#[tokio::test]
async fn the_documents_name_every_metric_and_no_other() {
    let day = std::time::Duration::from_secs(86_400);
    let everything = |config: &mut Config| {
        let file = config.credentials[0].lookup[0].file().unwrap().to_owned();
        let by = Rotator::Command { argv: vec!["/bin/false".to_owned()], env: Vec::new() };
        let rotation = Rotation { file, every: Some(day), overlap: day / 24, timeout: day / 1440, by };
        config.credentials[0].rotation = Some(rotation);
        config.spans = Some("http://127.0.0.1:9/v1/traces".into());
    };
    let mut world = World::stopped();
    everything(&mut world.config);
    // A JWT says itself when it ends.
    let part = |json: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
    world.write_secret("other", &format!("{}.{}.c2ln", part(r#"{"alg":"ES256"}"#), part(r#"{"exp":4102444800}"#)));
    world.start().await;
    world.plain_grant().await;
    world.way("nowhere.test", 443, "nobodys").await;
    assert_eq!(world.operate("GET", "/v1/ca", Value::Null).await.status, 200);
    let text = metrics(&world).await;
    let of = |what: &str| {
        let lines = text.lines().filter_map(move |line| line.strip_prefix("# ")?.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect::<BTreeSet<_>>()
    };
    let (types, helps) = (of("TYPE "), of("HELP "));
    let shown = types.iter().map(|(name, kind)| {
        let (_, help) = helps.iter().find(|(helped, _)| helped == name).unwrap();
        let ending = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("| `{name}{ending}` | {kind} | {} |", help.trim_end_matches('.'))
    });
    let shown: BTreeSet<_> = shown.collect();
    let page = include_str!("../../../docs/metrics.md");
    let (_, of_broker) = page.split_once("## What the broker tells\n").unwrap();
    let of_broker = of_broker.split("\n## ").next().unwrap();
    let rows = of_broker.lines().filter(|line| line.starts_with("| `"));
    // The last column, of labels, is for people.
    let rows: BTreeSet<_> =
        rows.filter_map(|row| Some(format!("{} |", row.trim_end_matches('|').rsplit_once(" | ")?.0))).collect();
    assert_eq!(rows, shown);
    assert!(text.contains("attache_credential_expires_timestamp_seconds{credential=\"other\"} 4102444800\n"), "{text}");
    assert!(!text.contains("attache_credential_expires_timestamp_seconds{credential=\"github\"}"), "nobody says when");
}

#[tokio::test]
async fn a_worker_that_falls_silent_and_one_that_lags_are_told() {
    let world = World::with(|config| config.limits.stale_after = std::time::Duration::from_secs(1)).await;
    world.poll("", 0, 0).await;
    assert_eq!(sample(&world, "attache_workers_behind").await, 0.0);
    world.write_secret("github", &SECRET.replace("real", "more"));
    until("it lags", async || sample(&world, "attache_workers_behind").await == 1.0).await;
    until("it is lost", async || sample(&world, "attache_workers_lost_total").await == 1.0).await;
    assert_eq!((sample(&world, "attache_workers").await, sample(&world, "attache_workers_behind").await), (0.0, 0.0));
}

#[tokio::test]
async fn what_has_left_and_what_the_process_takes_is_told() {
    let world = World::new().await;
    assert_eq!(sample(&world, "attache_leases_outstanding").await, 0.0);
    world.plain_grant().await;
    assert_eq!(sample(&world, "attache_leases_outstanding").await, 1.0);
    assert_eq!(sample(&world, "attache_state_sealed").await, 0.0);
    let began = sample(&world, "process_start_time_seconds").await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&began), "{began} and {now}");
    let version = format!("attache_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(sample(&world, &version).await, 1.0);
}

#[tokio::test]
async fn no_secret_no_placeholder_and_no_session_is_told() {
    let world = World::new().await;
    let (placeholder, token) =
        (world.env("reviewer", "GITHUB_TOKEN").await, world.env("reviewer", "ATTACHE_SESSION_TOKEN").await);
    let granted = world.plain_grant().await["granted"].clone();
    world.grant("api.a.test:443", Some(SECRET), None).await;
    world.grant("api.a.test:443", Some(&placeholder), Some(OTHER_SECRET)).await;
    let asked = world.ask("GET", "/metrics", b"").await;
    assert_eq!(asked.status, 200);
    assert!(asked.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    let told = [String::from_utf8(asked.body.to_vec()).unwrap(), metrics(&world).await].concat();
    let facts = ["session_id", "session"].map(|fact| granted[fact].as_str().unwrap().to_owned());
    let lease = ["id", "fingerprint"].map(|fact| granted["lease"][fact].as_str().unwrap().to_owned());
    let mut never = vec![SECRET.to_owned(), OTHER_SECRET.to_owned(), placeholder, token, world.token()];
    never.extend(facts.into_iter().chain(lease));
    for text in never {
        assert!(!told.contains(&text), "{text}");
    }
}
