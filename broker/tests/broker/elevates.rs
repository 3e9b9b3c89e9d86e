//! More rights for a time end by themselves, whatever happens in between.

use crate::world::{WORKER, World, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn reading(world: &World) {
    world.operate("PUT", "/v1/sessions/reviewer/access-mode", json!({"access_mode": "read-only"})).await;
}

async fn elevate(world: &World, ms: u64) -> Value {
    let wish = json!({"access_mode": "read-write", "for_ms": ms});
    let done = world.operate("PUT", "/v1/sessions/reviewer/access-mode", wish).await;
    assert_eq!(done.status, 200, "{:?}", done.body);
    done.json()
}

async fn session(world: &World) -> Value {
    world.operate("GET", "/v1/sessions/reviewer", Value::Null).await.json()
}

fn modes(world: &World) -> Vec<(String, String)> {
    let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
    let records = world.records();
    let modes = records.iter().filter(|record| record["kind"] == "mode" && record["session"] == "reviewer");
    modes.map(|record| (text(record, "decision"), text(record, "access_mode"))).collect()
}

fn ends_with(found: &[(String, String)], expected: &[(&str, &str)]) -> bool {
    let found: Vec<_> = found.iter().map(|(decision, mode)| (decision.as_str(), mode.as_str())).collect();
    found.ends_with(expected)
}

const BOTH_EDGES: [(&str, &str); 3] = [("set", "read-only"), ("elevate", "read-write"), ("revert", "read-only")];

#[tokio::test]
async fn an_elevation_ends_by_itself_and_both_edges_are_on_record() {
    let world = World::new().await;
    reading(&world).await;
    // A worker that follows and acknowledges whatever it hears.
    let heard = async {
        let first = world.poll("", 0, 0).await;
        let (epoch, mut after) = (first["epoch"].as_str().unwrap().to_owned(), first["cursor"].as_u64().unwrap());
        let target = after + 2;
        while after < target {
            after = world.poll(&epoch, after, 60_000).await["cursor"].as_u64().unwrap();
        }
        world.poll(&epoch, after, 0).await;
    };
    let elevated = async {
        let began = Instant::now();
        let done = elevate(&world, 3_000).await;
        assert_eq!(done["session"]["access_mode"], "read-write");
        let left = done["session"]["elevated_ms"].as_u64().unwrap();
        assert!((1..=3_000).contains(&left), "{left}");
        let granted = world.plain_grant().await["granted"].clone();
        if began.elapsed() < Duration::from_secs(3) {
            assert_eq!(granted["access_mode"], "read-write");
        }
        assert!(granted["lease"]["ttl_ms"].as_u64().unwrap() <= 3_000, "no lease outlives it: {granted}");
        until("the end is on record", async || ends_with(&modes(&world), &BOTH_EDGES)).await;
        assert!(began.elapsed() >= Duration::from_secs(3), "not before its time");
    };
    tokio::join!(heard, elevated);
    let now = session(&world).await;
    assert_eq!((&now["access_mode"], &now["elevated_ms"]), (&"read-only".into(), &Value::Null));
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-only");
    let records = world.records();
    let edge = |decision: &str| records.iter().find(|r| r["decision"] == decision).unwrap()["reason"].clone();
    assert!(edge("elevate").as_str().unwrap().starts_with("until 20"));
    assert_eq!(edge("elevate"), edge("revert"), "both name the same moment");
    let workers = world.operate("GET", "/v1/workers", Value::Null).await.json();
    assert_eq!((&workers[0]["id"], &workers[0]["behind"]), (&WORKER.into(), &0.into()), "told, and acknowledged");
}

#[tokio::test]
async fn an_elevation_outlives_a_restart_and_its_end_does_too() {
    let mut world = World::new().await;
    reading(&world).await;
    elevate(&world, 3_600_000).await;
    world.restart().await;
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-write", "in force still");
    let left = session(&world).await["elevated_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "a restart extends nothing: {left}");

    elevate(&world, 300).await;
    world.stop().await;
    tokio::time::sleep(Duration::from_millis(301)).await;
    world.start().await;
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-only");
    until("the end is on record", async || ends_with(&modes(&world), &[("revert", "read-only")])).await;
    let edges = modes(&world).iter().filter(|(decision, _)| decision == "revert").count();
    world.restart().await;
    world.plain_grant().await;
    assert_eq!((edges, modes(&world).iter().filter(|(decision, _)| decision == "revert").count()), (1, 1), "once");
}

#[tokio::test]
async fn what_an_operator_does_later_overrides_an_elevation() {
    let world = World::new().await;
    let set = async |mode: &str| {
        let wish = json!({"access_mode": mode});
        world.operate("PUT", "/v1/sessions/reviewer/access-mode", wish).await.json()["session"].clone()
    };
    set("read-only").await;
    elevate(&world, 3_600_000).await;
    let narrowed = set("read-only").await;
    assert_eq!((&narrowed["access_mode"], &narrowed["elevated_ms"]), (&"read-only".into(), &Value::Null));
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-only");

    elevate(&world, 200).await;
    let widened = set("read-write").await;
    assert_eq!((&widened["access_mode"], &widened["elevated_ms"]), (&"read-write".into(), &Value::Null));
    set("read-only").await;
    elevate(&world, 200).await;
    let longer = elevate(&world, 3_600_000).await;
    assert!(longer["session"]["elevated_ms"].as_u64().unwrap() > 3_000_000, "a longer one replaces a shorter");
    // Until well after the shorter ones are over: neither of them ends what came later.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(session(&world).await["access_mode"], "read-write");

    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    world.operate("POST", "/v1/sessions/reviewer/revoke", Value::Null).await;
    assert_eq!(world.grant("api.a.test:443", Some(&placeholder), None).await["denied"]["reason"], "session_expired");
}

#[tokio::test]
async fn the_end_of_each_elevation_is_told_whatever_the_log_does() {
    let world = World::new().await;
    reading(&world).await;
    let wish = json!({"name": "second", "credentials": ["github"], "access_mode": "read-only"});
    let second = world.operate("POST", "/v1/sessions", wish).await.json()["id"].clone();
    let first = session(&world).await["id"].clone();
    let first_poll = world.poll("", 0, 0).await;
    let (epoch, mut after) = (first_poll["epoch"].as_str().unwrap().to_owned(), 0);
    for (name, ms) in [("reviewer", 500), ("second", 1_500)] {
        let wish = json!({"access_mode": "read-write", "for_ms": ms});
        let done = world.operate("PUT", &format!("/v1/sessions/{name}/access-mode"), wish).await;
        assert_eq!(done.status, 200, "{:?}", done.body);
    }
    world.break_audit();
    // The record of the first end cannot be written, and is tried for ever.
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !told.contains(&second) {
        assert!(Instant::now() < deadline, "told of {told:?}");
        let news = world.poll(&epoch, after, 1_000).await;
        after = news["cursor"].as_u64().unwrap();
        let narrowed = news["changes"].as_array().unwrap().iter().filter(|change| change["left"] == "reads");
        told.extend(narrowed.map(|change| change["session_id"].clone()));
    }
    assert!(told.contains(&first));
    let ready = world.operate("GET", "/readyz", Value::Null).await;
    assert_eq!(ready.status, 503, "the log was broken all the time");
    world.mend_audit();
    let reverted = || {
        let records = world.records();
        records.iter().filter(|record| record["decision"] == "revert").map(|r| r["session_id"].clone()).collect()
    };
    until("both ends are on record", async || {
        let found: Vec<Value> = if world.config.audit.path.is_file() { reverted() } else { Vec::new() };
        found.contains(&first) && found.contains(&second)
    })
    .await;
}

#[tokio::test]
async fn an_elevation_that_gives_nothing_is_refused_with_what_to_do() {
    let world = World::new().await;
    let wish = async |wish: Value| {
        let answer = world.operate("PUT", "/v1/sessions/reviewer/access-mode", wish).await;
        (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    let (status, why) = wish(json!({"access_mode": "read-write", "for_ms": 1000})).await;
    assert!(status == 409 && why.contains("set it to read-only, then elevate it"), "{why}");
    reading(&world).await;
    assert_eq!(wish(json!({"access_mode": "read-write", "for_ms": 0})).await.0, 400);
    assert_eq!(wish(json!({"access_mode": "read-write", "for_ms": u64::MAX})).await.0, 400);
    assert_eq!(wish(json!({"access_mode": "read-only", "for_ms": 1000})).await.0, 400);
    world.break_audit();
    assert_eq!(wish(json!({"access_mode": "read-write", "for_ms": 60_000})).await.0, 503, "no record, no rights");
    assert_eq!(session(&world).await["access_mode"], "read-only");
}

#[tokio::test]
async fn the_most_restrictive_of_session_credential_and_destination_holds() {
    let world = World::with(|config| {
        let github = config.credentials.iter_mut().find(|credential| credential.name.as_str() == "github").unwrap();
        github.destinations[0].access_mode = attache_core::policy::AccessMode::ReadOnly;
    })
    .await;
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    let mode = async |destination: &str| {
        world.grant(destination, Some(&placeholder), None).await["granted"]["access_mode"].clone()
    };
    assert_eq!((mode("api.a.test:443").await, mode("both.test:443").await), ("read-only".into(), "read-write".into()));
    let issued: Vec<_> = world.records().into_iter().filter(|record| record["kind"] == "issue").collect();
    assert_eq!(issued[0]["access_mode"], "read-only", "the record says what went out");
    reading(&world).await;
    assert_eq!((mode("api.a.test:443").await, mode("both.test:443").await), ("read-only".into(), "read-only".into()));
    elevate(&world, 3_600_000).await;
    assert_eq!((mode("api.a.test:443").await, mode("both.test:443").await), ("read-only".into(), "read-write".into()));
}
