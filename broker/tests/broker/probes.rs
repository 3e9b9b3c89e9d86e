//! The door of probes and Prometheus: three pages for anybody, without a secret, and nothing else.

use crate::world::{Answer, OTHER_SECRET, SECRET, World, send};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn world() -> World {
    World::with(|config| config.listen.health = Some("127.0.0.1:0".parse().unwrap())).await
}

fn door(world: &World) -> SocketAddr {
    let runtime = std::fs::read_to_string(world.config.state_dir.join("runtime.json")).unwrap();
    let runtime: Value = serde_json::from_str(&runtime).unwrap();
    runtime["health"].as_str().expect("the door is announced").parse().unwrap()
}

async fn knock(world: &World, method: &str, path: &str) -> Answer {
    send(TcpStream::connect(door(world)).await.unwrap(), method, path, &[], b"").await
}

#[tokio::test]
async fn anybody_may_ask_how_the_broker_is_and_what_it_has_counted() {
    let world = world().await;
    world.plain_grant().await;
    assert_eq!(knock(&world, "GET", "/healthz").await.body, "ok\n");
    let ready = knock(&world, "GET", "/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()));
    let page = String::from_utf8(knock(&world, "GET", "/metrics").await.body.to_vec()).unwrap();
    assert!(page.contains("attache_grants_total{outcome=\"granted\",reason=\"\"} 1\n"), "{page}");
    assert!(page.contains("attache_connections{door=\"health\"} 1\n"), "{page}");
}

#[tokio::test]
async fn it_leads_to_nothing_else() {
    let world = world().await;
    let paths = ["/", "/v1/policy", "/v1/sessions", "/v1/grants", "/v1/credentials", "/metrics/", "/v1/changes"];
    for path in paths {
        for method in ["GET", "POST", "PUT"] {
            let answer = knock(&world, method, path).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(knock(&world, "POST", path).await.status, 405, "{path}");
    }
}

#[tokio::test]
async fn it_says_that_something_is_wrong_and_neither_where_nor_why() {
    let world = world().await;
    world.break_audit();
    world.plain_grant().await;
    let answer = knock(&world, "GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    let told = answer.json();
    let audit = told["dependencies"].as_array().unwrap().iter().find(|one| one["name"] == "audit").unwrap();
    assert_eq!((&audit["state"], &audit["reason"], &audit["fix"]), (&"failed".into(), &Value::Null, &Value::Null));
    let dir = world.config.state_dir.display().to_string();
    assert!(!told.to_string().contains(&dir), "{told}");
    let operator = world.operate("GET", "/readyz", Value::Null).await.json().to_string();
    assert!(operator.contains(&dir), "the operator hears where: {operator}");
    world.mend_audit();
}

#[tokio::test]
async fn it_tells_no_secret_no_placeholder_and_no_token() {
    let world = world().await;
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    world.plain_grant().await;
    world.grant("api.a.test:443", Some(SECRET), Some(OTHER_SECRET)).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let said = format!("{:?}", knock(&world, "GET", path).await.body);
        for never in [SECRET, OTHER_SECRET, &placeholder, &world.token()] {
            assert!(!said.contains(never), "{path}");
        }
    }
}

/// More who are silent than there are places hold nothing, and nobody asks twice on one connection.
#[tokio::test]
async fn nobody_holds_it() {
    let world = world().await;
    let answer = knock(&world, "GET", "/metrics").await;
    assert_eq!(answer.headers["connection"], "close");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(door(&world)).await.unwrap());
    }
    assert_eq!(knock(&world, "GET", "/healthz").await.status, 200);
    let mut nothing = Vec::new();
    let ended = timeout(Duration::from_secs(4), silent[0].read_to_end(&mut nothing)).await;
    assert!(ended.is_ok(), "the oldest had to make way");
    assert!(world.plain_grant().await["granted"].is_object(), "and other doors never notice");
}

#[tokio::test]
async fn by_default_there_is_none() {
    let world = World::new().await;
    let runtime = std::fs::read_to_string(world.config.state_dir.join("runtime.json")).unwrap();
    assert!(!runtime.contains("health"), "{runtime}");
}
