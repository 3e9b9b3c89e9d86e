//! The operator's door: private, and without a single secret behind it.

use crate::world::{OTHER_SECRET, SECRET, World, mode};
use serde_json::{Value, json};

#[tokio::test]
async fn only_the_owner_can_reach_the_socket() {
    let world = World::new().await;
    assert_eq!(mode(&world.config.listen.control), 0o600);
    assert_eq!(mode(&world.config.state_dir), 0o700);
}

#[tokio::test]
async fn sessions_are_made_shown_and_ended() {
    let world = World::new().await;
    let wish = json!({"name": "made", "credentials": ["other", "github", "other"], "ttl_ms": 60_000});
    let made = world.operate("POST", "/v1/sessions", wish).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!((&made["access_mode"], &made["state"]), (&"read-write".into(), &"live".into()));
    assert_eq!((&made["credentials"], &made["declared"]), (&json!(["github", "other"]), &false.into()));
    assert_eq!(world.records().pop().unwrap()["decision"], "create");
    let names = |sessions: Value| sessions.as_array().unwrap().iter().map(|s| s["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(world.operate("GET", "/v1/sessions", Value::Null).await.json()), ["reviewer", "made"]);
    assert_eq!(world.operate("GET", "/v1/sessions/made", Value::Null).await.json()["id"], made["id"]);
    assert_eq!(world.operate("POST", "/v1/sessions/made/revoke", Value::Null).await.status, 200);
    assert_eq!(world.operate("POST", "/v1/sessions/made/revoke", Value::Null).await.status, 404);
    assert_eq!(world.operate("GET", "/v1/sessions/made", Value::Null).await.status, 404);
}

#[tokio::test]
async fn without_a_record_no_session_is_made() {
    let mut world = World::new().await;
    world.break_audit();
    let wish = json!({"name": "made", "credentials": ["github"]});
    assert_eq!(world.operate("POST", "/v1/sessions", wish.clone()).await.status, 503);
    let count =
        async |world: &World| world.operate("GET", "/v1/sessions", Value::Null).await.json().as_array().unwrap().len();
    assert_eq!(count(&world).await, 1, "not even one that is over");
    world.mend_audit();
    world.restart().await;
    assert_eq!(count(&world).await, 1, "nor was it stored");
    assert_eq!(world.operate("POST", "/v1/sessions", wish).await.status, 201);
}

#[tokio::test]
async fn an_agents_environment_holds_placeholders_and_urls() {
    let world = World::new().await;
    let env = world.operate("GET", "/v1/sessions/reviewer/env", Value::Null).await;
    let text = String::from_utf8_lossy(&env.body).into_owned();
    assert!(!text.contains(SECRET) && !text.contains(OTHER_SECRET));
    assert!(world.env("reviewer", "GITHUB_TOKEN").await.starts_with("ghp_ATTACHE"));
    assert_eq!(world.env("reviewer", "GITHUB_API_URL").await, "http://127.0.0.1:3030/api.a.test/v3");
    assert_eq!(world.env("reviewer", "ATTACHE_SESSION_TOKEN").await.len(), 60);
}

#[tokio::test]
async fn credentials_are_listed_by_fingerprint() {
    let world = World::new().await;
    let answer = world.operate("GET", "/v1/credentials", Value::Null).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET));
    let github = answer.json()[0].clone();
    assert_eq!((&github["name"], &github["error"]), (&"github".into(), &Value::Null));
    assert_eq!(github["fingerprint"], world.plain_grant().await["granted"]["lease"]["fingerprint"]);
    assert_eq!(github["source"], format!("file {}", world.secret_path("github").display()));
    assert_eq!(github["destinations"], json!(["api.a.test:443", "both.test:443"]));
}

#[tokio::test]
async fn nonsense_is_refused_with_what_to_do() {
    let world = World::new().await;
    let good = json!({"name": "n", "credentials": ["github"]});
    let with = |field: &str, value: Value| {
        let mut wish = good.clone();
        wish[field] = value;
        wish
    };
    for (wish, status) in [
        (with("name", "../x".into()), 400),
        (with("name", "reviewer".into()), 409),
        (with("credentials", json!([])), 400),
        (with("credentials", json!(["none"])), 409),
        (with("access_mode", "admin".into()), 400),
        (with("ttl_ms", 0.into()), 400),
        (with("ttl_ms", json!(-1)), 400),
        (with("more", 1.into()), 400),
        (good.clone(), 201),
        (good.clone(), 409),
    ] {
        assert_eq!(world.operate("POST", "/v1/sessions", wish.clone()).await.status, status, "{wish}");
    }
    let long = json!({"name": "n", "credentials": ["github".repeat(20_000)]});
    assert_eq!(world.operate("POST", "/v1/sessions", long).await.status, 413);
    for (method, path, status) in [
        ("GET", "/v1/sessions/..%2f..", 400),
        ("GET", "/v1/sessions/none", 404),
        ("GET", "/v1/sessions/none/env", 404),
        ("DELETE", "/v1/sessions/reviewer", 405),
        ("GET", "/v1/grants", 404),
    ] {
        assert_eq!(world.operate(method, path, Value::Null).await.status, status, "{method} {path}");
    }
    let missing = world.operate("GET", "/v1/sessions/none", Value::Null).await.json();
    assert_eq!(missing["error"], "no live session is called none: see `attache session list --all`");
}
