//! A grant leaves for one live session, at a destination its credential is bound to, or not at all.

use crate::world::{NONCE, OTHER_SECRET, SECRET, WORKER, World};
use attache_broker::config::Config;
use attache_core::policy::MissingPlaceholder;
use serde_json::{Value, json};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

fn inject_without_placeholder(config: &mut Config, credential: &str) {
    let found = config.credentials.iter_mut().find(|c| c.name.as_str() == credential).unwrap();
    found.missing_placeholder = MissingPlaceholder::Inject;
}

async fn create(world: &World, name: &str, credentials: &[&str]) {
    create_bound(world, name, credentials, json!({})).await;
}

/// A session whose token must be shown, and then names it alone.
async fn create_by_token(world: &World, name: &str, credentials: &[&str]) {
    create_bound(world, name, credentials, json!({"session_token": "required"})).await;
}

async fn create_bound(world: &World, name: &str, credentials: &[&str], bind: Value) {
    let body = json!({
        "name": name, "credentials": credentials, "access_mode": "read-only", "ttl_ms": 60_000, "bind": bind,
    });
    let answer = world.operate("POST", "/v1/sessions", body).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
}

fn reason(answer: &Value) -> &str {
    assert!(answer["granted"].is_null(), "granted");
    answer["denied"]["reason"].as_str().unwrap()
}

#[tokio::test]
async fn a_grant_says_all_that_the_filter_needs() {
    let world = World::new().await;
    let one = world.plain_grant().await["granted"].clone();
    assert_eq!(one["session"], "reviewer");
    assert_eq!(one["credential"], "github");
    assert_eq!(one["access_mode"], "read-write");
    assert_eq!(one["max_unacked_uses"], 8192);
    assert_eq!(one["injections"], json!([{"header": "authorization", "value": format!("Bearer {SECRET}")}]));
    assert_eq!((&one["lease"]["ttl_ms"], &one["lease"]["refresh_after_ms"]), (&300_000.into(), &225_000.into()));
    let two = world.plain_grant().await["granted"].clone();
    assert_ne!(one["lease"]["id"], two["lease"]["id"], "each grant has a lease of its own");
    assert_eq!(one["lease"]["fingerprint"], two["lease"]["fingerprint"]);
    assert_eq!(one["as_of"], two["as_of"]);
}

#[tokio::test]
async fn a_grant_ends_with_its_session() {
    let world = World::new().await;
    create(&world, "short", &["other"]).await;
    let token = world.env("short", "ATTACHE_SESSION_TOKEN").await;
    let placeholder = placeholder_of(&world, "short", "other").await;
    let granted = world.grant("b.test:8443", Some(&placeholder), Some(&token)).await["granted"].clone();
    assert_eq!(granted["injections"], json!([{"query": "key", "value": OTHER_SECRET}]));
    assert_eq!(granted["access_mode"], "read-only");
    let ttl = granted["lease"]["ttl_ms"].as_u64().unwrap();
    assert!((50_000..=60_000).contains(&ttl), "{ttl}");
}

/// `other` exports nothing by default: its placeholder is exported under a name of the test's.
async fn placeholder_of(world: &World, session: &str, credential: &str) -> String {
    world.env(session, &format!("TEST_{}", credential.to_uppercase())).await
}

#[tokio::test]
async fn everything_else_is_refused_with_its_reason() {
    let world = World::with(|config| inject_without_placeholder(config, "other")).await;
    create(&world, "one", &["github"]).await;
    create_by_token(&world, "two", &["github", "other"]).await;
    create(&world, "free", &["github", "other"]).await;
    create_by_token(&world, "less", &["github"]).await;
    let github = world.env("one", "GITHUB_TOKEN").await;
    let one = world.env("one", "ATTACHE_SESSION_TOKEN").await;
    let two = world.env("two", "ATTACHE_SESSION_TOKEN").await;
    let twos = world.env("two", "GITHUB_TOKEN").await;
    let free = world.env("free", "ATTACHE_SESSION_TOKEN").await;
    let less = world.env("less", "ATTACHE_SESSION_TOKEN").await;
    create(&world, "gone", &["github"]).await;
    let gone = world.env("gone", "GITHUB_TOKEN").await;
    assert_eq!(world.operate("POST", "/v1/sessions/gone/revoke", Value::Null).await.status, 200);

    let forged = "ghp_ATTACHE0000000000000000000000000000";
    for (destination, placeholder, token, expected) in [
        ("api.a.test:443", None, None, "identity_required"),
        ("api.a.test:443", None, Some(&*one), "identity_required"),
        ("api.a.test:443", Some(forged), None, "placeholder_unknown"),
        ("api.a.test:443", Some(&*github), Some("forged"), "placeholder_unknown"),
        ("api.a.test:443", Some(&*github), Some(&*two), "evidence_conflict"),
        ("api.a.test:443", Some(&*one), None, "placeholder_misplaced"),
        ("api.a.test:443", Some(&*gone), None, "session_expired"),
        ("b.test:8443", Some(&*github), None, "placeholder_misplaced"),
        ("b.test:8443", None, Some(&*less), "credential_not_granted"),
        // It may use what is injected there, but nobody is known by a token that need not be shown.
        ("b.test:8443", None, Some(&*free), "identity_required"),
        ("api.a.test:443", Some(&*twos), None, "identity_required"),
        ("b.test:443", Some(&*github), None, "host_not_allowed"),
        ("api.a.test", Some(&*github), None, "host_not_allowed"),
    ] {
        let answer = world.grant(destination, placeholder, token).await;
        assert_eq!(reason(&answer), expected, "{destination} {placeholder:?} {token:?}");
    }
    assert_eq!(world.grant("api.a.test:443", Some(&github), Some(&one)).await["granted"]["session"], "one");
    let unasked = world.grant("b.test:8443", None, Some(&two)).await;
    assert_eq!(unasked["granted"]["credential"], "other", "the config injects without a placeholder there");
}

#[tokio::test]
async fn a_credential_taken_from_a_session_is_not_granted() {
    let mut world = World::new().await;
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    world.config.sessions[0].credentials = vec!["other".to_owned().try_into().unwrap()];
    world.restart().await;
    let answer = world.grant("api.a.test:443", Some(&placeholder), None).await;
    assert_eq!(reason(&answer), "credential_not_granted");
}

#[tokio::test]
async fn two_credentials_without_a_placeholder_are_one_too_many() {
    let world = World::with(|config| {
        inject_without_placeholder(config, "github");
        inject_without_placeholder(config, "other");
    })
    .await;
    create_by_token(&world, "both", &["github", "other"]).await;
    create_by_token(&world, "one", &["other"]).await;
    let both = world.env("both", "ATTACHE_SESSION_TOKEN").await;
    let one = world.env("one", "ATTACHE_SESSION_TOKEN").await;
    assert_eq!(reason(&world.grant("both.test:443", None, Some(&both)).await), "identity_required");
    assert_eq!(world.grant("both.test:443", None, Some(&one)).await["granted"]["credential"], "other");
}

#[tokio::test]
async fn a_secret_that_is_missing_or_unfit_is_not_granted() {
    let world = World::new().await;
    let path = world.secret_path("github");
    type Spoil = fn(&World);
    let unfit: &[(&str, Spoil)] = &[
        ("open to others", |w| set_permissions(w.secret_path("github"), Permissions::from_mode(0o644)).unwrap()),
        ("with a line break", |w| w.write_secret("github", "two\nlines")),
        ("empty", |w| w.write_secret("github", "")),
        ("absent", |w| std::fs::remove_file(w.secret_path("github")).unwrap()),
    ];
    for (what, spoil) in unfit {
        spoil(&world);
        world.until_a_look_is_due().await;
        assert_eq!(reason(&world.plain_grant().await), "source_unavailable", "{what}");
        let standings = world.operate("GET", "/v1/credentials", Value::Null).await;
        let error = standings.json()[0]["error"].as_str().unwrap().to_owned();
        assert!(!error.is_empty() && !error.contains("lines"), "{error}");
        let _ = std::fs::remove_file(&path);
        world.write_secret("github", SECRET);
        world.until_a_look_is_due().await;
        assert!(world.plain_grant().await["granted"].is_object(), "mended by itself after {what}");
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_not_repeated() {
    let world = World::new().await;
    let good = json!({"nonce": NONCE, "worker": WORKER, "destination": "x", "evidence": {}});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string()
    };
    let text = good.to_string();
    let bodies = [
        String::new(),
        "null".into(),
        "[".repeat(10_000),
        format!("{}1{}", "{\"evidence\":".repeat(5_000), "}".repeat(5_000)),
        format!("{text}{text}"),
        text.replacen('{', "{\"nonce\":\"s3cret\",", 1),
        text.replace("\"evidence\":{}", "\"evidence\":{\"placeholder\":\"s3cret\"}"),
        with("more", "s3cret".into()),
        with("nonce", "s3cret".into()),
        with("nonce", "0".repeat(33).into()),
        with("worker", "s3cret".into()),
        with("worker", "../../..".into()),
        with("evidence", json!({"placeholder": 7})),
        with("destination", Value::Null),
    ];
    for body in bodies {
        let answer = world.ask("POST", "/v1/grants", body.as_bytes()).await;
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 400, "{body:.80} {shown}");
        assert!(!shown.contains("s3cret") && shown.len() < 100, "{shown}");
    }
    let long = format!("{text}{}", " ".repeat(64 * 1024));
    assert_eq!(world.ask("POST", "/v1/grants", long.as_bytes()).await.status, 413);
    assert!(world.plain_grant().await["granted"].is_object(), "and the broker lives");
}
