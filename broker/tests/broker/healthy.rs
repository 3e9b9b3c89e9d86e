//! `/readyz` says of each thing that a grant depends on how it is, why, and what mends it.

use crate::world::{OTHER_SECRET, SECRET, World, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

async fn dependency(world: &World, name: &str) -> Value {
    let answer = world.operate("GET", "/readyz", Value::Null).await.json();
    let all = answer["dependencies"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not in {answer}")).clone()
}

fn is_told(dependency: &Value, reason: &str) {
    assert_eq!(dependency["state"], "failed", "{dependency}");
    assert!(dependency["reason"].as_str().unwrap().contains(reason), "{dependency}");
    assert!(!dependency["fix"].as_str().unwrap().is_empty(), "{dependency}");
}

/// The words of dependencies, and which of them are needed.
#[tokio::test]
async fn the_document_names_every_dependency_and_no_other() {
    let world = World::new().await;
    let answer = world.operate("GET", "/readyz", Value::Null).await.json();
    let told = answer["dependencies"].as_array().unwrap().iter().map(|one| {
        let name = one["name"].as_str().unwrap();
        let name = if name.starts_with("credential ") { "credential NAME" } else { name };
        (name.to_owned(), if one["needed"].as_bool().unwrap() { "yes" } else { "no" }.to_owned())
    });
    let page = include_str!("../../../docs/gateway.md");
    let table = page.split_once("| name | `failed` means | `needed` |\n").unwrap().1;
    let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let written = rows.map(|row| {
        let (name, needed) = (row.split('`').next().unwrap(), row.rsplit(" | ").next().unwrap());
        (name.to_owned(), needed.to_owned())
    });
    assert_eq!(written.collect::<BTreeSet<_>>(), told.collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn both_doors_say_of_everything_how_it_is() {
    let world = World::new().await;
    world.poll("", 0, 0).await;
    let asked = world.ask("GET", "/readyz", b"").await;
    let operated = world.operate("GET", "/readyz", Value::Null).await;
    assert_eq!((asked.status, &asked.body), (200, &operated.body));
    let answer = asked.json();
    assert_eq!((&answer["ready"], &answer["workers"]), (&true.into(), &1.into()));
    let all: Vec<_> = answer["dependencies"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(
        all,
        [
            "audit",
            "credentials",
            "state_dir",
            "database",
            "workers",
            "witness",
            "clock",
            "credential github",
            "credential other"
        ]
    );
    for one in answer["dependencies"].as_array().unwrap() {
        assert_eq!((&one["state"], &one["reason"], &one["fix"]), (&"ok".into(), &Value::Null, &Value::Null), "{one}");
    }
}

#[tokio::test]
async fn a_credential_without_a_secret_is_told_and_all_of_them_are_no_service() {
    let world = World::new().await;
    assert_eq!(dependency(&world, "workers").await["state"], "waiting", "nobody polls");
    std::fs::remove_file(world.secret_path("github")).unwrap();
    until("it is noticed", async || dependency(&world, "credential github").await["state"] == "failed").await;
    is_told(&dependency(&world, "credential github").await, "no source has it");
    assert_eq!(world.operate("GET", "/readyz", Value::Null).await.status, 200, "the other is granted");

    std::fs::write(world.secret_path("other"), "").unwrap();
    until("it is noticed", async || world.operate("GET", "/readyz", Value::Null).await.status == 503).await;
    is_told(&dependency(&world, "credential other").await, "is empty");
    is_told(&dependency(&world, "credentials").await, "none of 2");

    world.write_secret("github", SECRET);
    until("it is mended", async || world.operate("GET", "/readyz", Value::Null).await.status == 200).await;
    let body = world.operate("GET", "/readyz", Value::Null).await.body;
    for secret in [SECRET, OTHER_SECRET, &world.token()] {
        assert!(memchr::memmem::find(&body, secret.as_bytes()).is_none());
    }
}

#[tokio::test]
async fn a_state_directory_that_has_changed_is_told() {
    let world = World::new().await;
    let dir = &world.config.state_dir;
    set_permissions(dir, Permissions::from_mode(0o750)).unwrap();
    is_told(&dependency(&world, "state_dir").await, "chmod 700");
    set_permissions(dir, Permissions::from_mode(0o700)).unwrap();

    let token = world.token();
    std::fs::write(dir.join("data-plane.token"), "0".repeat(64)).unwrap();
    is_told(&dependency(&world, "state_dir").await, "data-plane.token");
    std::fs::write(dir.join("data-plane.token"), &token).unwrap();
    assert_eq!(dependency(&world, "state_dir").await["state"], "ok");

    let aside = world.temp.path().join("aside");
    std::fs::rename(dir, &aside).unwrap();
    std::fs::create_dir(dir).unwrap();
    set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
    let answer = world.ask_as(&token, "GET", "/readyz", b"").await.json();
    assert_eq!(answer["dependencies"][2]["name"], "state_dir");
    is_told(&answer["dependencies"][2], "no longer the directory");
    std::fs::remove_dir(dir).unwrap();
    std::fs::rename(&aside, dir).unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_told_and_grants_go_on() {
    let world = World::new().await;
    let file = world.config.state_dir.join("attache.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    is_told(&dependency(&world, "database").await, "database");
    assert_eq!(world.operate("GET", "/readyz", Value::Null).await.status, 200);
    lock.rollback().await.unwrap();
    until("it is well", async || dependency(&world, "database").await["state"] == "ok").await;
}
