//! What is taken away is gone at every worker before the operator is told so, or the bound is over.

use crate::world::{WORKER, World, until};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::time::{Duration, Instant};

/// A worker that polls and acknowledges what it hears, until it has heard of `cursor`.
async fn listen(world: &World, epoch: &str, mut after: u64, cursor: u64) -> Vec<Value> {
    let mut heard = Vec::new();
    while after < cursor {
        let answer = world.poll(epoch, after, 60_000).await;
        after = answer["cursor"].as_u64().unwrap();
        heard.extend(answer["changes"].as_array().unwrap().clone());
    }
    world.poll(epoch, after, 0).await;
    heard
}

async fn first_poll(world: &World) -> (String, u64) {
    let first = world.poll("", 0, 60_000).await;
    (first["epoch"].as_str().unwrap().to_owned(), first["cursor"].as_u64().unwrap())
}

#[tokio::test]
async fn a_revocation_returns_when_the_worker_has_acknowledged_it() {
    let world = World::new().await;
    let granted = world.plain_grant().await["granted"].clone();
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    let (epoch, cursor) = first_poll(&world).await;
    let (done, heard) = tokio::join!(
        world.operate("POST", "/v1/sessions/reviewer/revoke", Value::Null),
        listen(&world, &epoch, cursor, cursor + 1),
    );
    let done = done.json();
    assert_eq!((&done["applied"]["applied"], &done["applied"]["total"]), (&1.into(), &1.into()));
    assert_eq!((&done["applied"]["waiting"], &done["recorded"]), (&json!([]), &true.into()));
    assert_eq!(done["session"]["state"], "revoked");
    assert_eq!(heard, [json!({"cursor": cursor + 1, "session_id": granted["session_id"], "left": "nothing"})]);
    assert!(granted["as_of"].as_u64().unwrap() < cursor + 1, "the change voids what was granted before");
    let after = world.grant("api.a.test:443", Some(&placeholder), None).await;
    assert_eq!(after["denied"]["reason"], "session_expired");
    assert_eq!(world.records().pop().unwrap()["kind"], "revoke");
}

#[tokio::test]
async fn a_worker_that_is_silent_is_waited_for_until_it_is_stale() {
    // Long enough that a busy machine has asked before the worker is stale.
    let stale_after = Duration::from_secs(3);
    let world = World::with(|config| config.limits.stale_after = stale_after).await;
    first_poll(&world).await;
    let began = Instant::now();
    let body = json!({"access_mode": "read-only"});
    let done = world.operate("PUT", "/v1/sessions/reviewer/access-mode", body).await.json();
    assert_eq!((&done["applied"]["applied"], &done["applied"]["waiting"]), (&0.into(), &json!([WORKER])));
    assert!(began.elapsed() < 10 * stale_after, "the bound is stale_after, and the machine's slowness");
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-only");
}

/// Neither a database that somebody else holds, nor an operator who goes away, keeps a revocation from
/// the workers, or leaves it half done.
#[tokio::test]
async fn workers_are_told_before_the_disk_answers_and_whoever_stops_waiting() {
    let world = World::new().await;
    let (epoch, cursor) = first_poll(&world).await;
    let options = SqliteConnectOptions::new().filename(world.config.state_dir.join("attache.db"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    {
        let revoke = world.operate("POST", "/v1/sessions/reviewer/revoke", Value::Null);
        tokio::pin!(revoke);
        tokio::select! {
            answer = &mut revoke => panic!("answered {} while nothing could be stored", answer.status),
            heard = listen(&world, &epoch, cursor, cursor + 1) => assert_eq!(heard[0]["left"], "nothing"),
        }
        // Here the operator goes away.
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let recorded = || async { world.records().last().unwrap()["kind"] == "revoke" };
    until("the revocation is on record", recorded).await;
    let mut world = world;
    world.restart().await;
    assert_eq!(world.operate("GET", "/v1/sessions/reviewer", Value::Null).await.status, 404);
}

#[tokio::test]
async fn more_rights_do_not_wait_for_the_silent() {
    let world = World::with(|config| config.limits.stale_after = Duration::from_secs(3600)).await;
    first_poll(&world).await;
    let body = json!({"access_mode": "read-write"});
    let done = world.operate("PUT", "/v1/sessions/reviewer/access-mode", body).await.json();
    assert_eq!(done["applied"]["waiting"], json!([WORKER]));
    assert!(done["applied"]["took_ms"].as_u64().unwrap() < 60_000);
}

#[tokio::test]
async fn rights_are_taken_away_even_when_the_log_is_broken_but_never_given() {
    let world = World::new().await;
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    let set = async |mode: &str| {
        world.operate("PUT", "/v1/sessions/reviewer/access-mode", json!({"access_mode": mode})).await
    };
    world.break_audit();
    let narrowed = set("read-only").await;
    assert_eq!((narrowed.status, &narrowed.json()["recorded"]), (200, &false.into()));
    assert_eq!(set("read-write").await.status, 503);
    let create = world.operate("POST", "/v1/sessions", json!({"name": "n", "credentials": ["github"]})).await;
    assert_eq!(create.status, 503);
    assert_eq!(world.operate("GET", "/v1/sessions/n", Value::Null).await.status, 404);
    world.mend_audit();
    until("the log is mended", async || world.plain_grant().await["granted"].is_object()).await;
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-only");
    world.break_audit();
    assert_eq!(world.operate("POST", "/v1/sessions/reviewer/revoke", Value::Null).await.status, 200);
    world.mend_audit();
    until("the log is mended", async || world.ask("GET", "/readyz", b"").await.status == 200).await;
    let after = world.grant("api.a.test:443", Some(&placeholder), None).await;
    assert_eq!(after["denied"]["reason"], "session_expired");
}

#[tokio::test]
async fn a_secret_that_changes_voids_its_grants() {
    let world = World::new().await;
    let before = world.plain_grant().await["granted"].clone();
    let (epoch, cursor) = first_poll(&world).await;
    world.write_secret("github", "another-secret");
    let heard = listen(&world, &epoch, cursor, cursor + 1).await;
    assert_eq!(heard, [json!({"cursor": cursor + 1, "credential": "github"})], "noticed without a request");
    let after = world.plain_grant().await["granted"].clone();
    assert_ne!(before["lease"]["fingerprint"], after["lease"]["fingerprint"]);
    assert_eq!(after["injections"][0]["value"], "Bearer another-secret");
    assert_eq!(after["as_of"], cursor + 1);
}

#[tokio::test]
async fn a_grant_notices_a_changed_secret_ten_milliseconds_later() {
    let world = World::new().await;
    for n in 0..20 {
        // Same length, and often within one tick of the file system's clock.
        world.write_secret("github", &format!("secret-{n:04}"));
        world.until_a_look_is_due().await;
        let granted = world.plain_grant().await;
        assert_eq!(granted["granted"]["injections"][0]["value"], format!("Bearer secret-{n:04}"));
    }
}
