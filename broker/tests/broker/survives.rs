//! A restart changes nothing that was promised, and two brokers never share a state.

use crate::world::{World, mode};
use attache_broker::StartError;
use attache_broker::sources::Environment;
use attache_broker::state_dir::{StateDirError, announced};
use serde_json::json;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[tokio::test]
async fn placeholders_modes_and_the_token_survive_the_epoch_does_not() {
    let mut world = World::new().await;
    let body = json!({"name": "made", "credentials": ["github"], "access_mode": "read-only"});
    world.operate("POST", "/v1/sessions", body).await;
    world.operate("PUT", "/v1/sessions/reviewer/access-mode", json!({"access_mode": "read-only"})).await;
    let before = (world.token(), world.env("reviewer", "GITHUB_TOKEN").await, world.env("made", "GITHUB_TOKEN").await);
    let epoch = world.poll("", 0, 0).await["epoch"].clone();
    world.restart().await;
    let after = (world.token(), world.env("reviewer", "GITHUB_TOKEN").await, world.env("made", "GITHUB_TOKEN").await);
    assert_eq!(before, after);
    assert_eq!(world.plain_grant().await["granted"]["access_mode"], "read-only");
    assert_ne!(world.poll("", 0, 0).await["epoch"], epoch);
}

#[tokio::test]
async fn a_second_broker_is_refused_and_the_first_unharmed() {
    let world = World::new().await;
    let second = attache_broker::start(world.config.clone(), &Environment::default()).await;
    let Err(StartError::StateDir(error @ StateDirError::InUse { .. })) = second else { panic!("started") };
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert!(world.plain_grant().await["granted"].is_object());
}

#[tokio::test]
async fn a_state_that_others_can_reach_is_refused_with_the_fix() {
    let mut world = World::new().await;
    world.stop().await;
    let refused = async |path: &Path, fix: u32| {
        let good = mode(path);
        set_permissions(path, Permissions::from_mode(good | 0o040)).unwrap();
        let error = attache_broker::start(world.config.clone(), &Environment::default()).await.err().unwrap();
        let text = error.to_string();
        assert!(text.ends_with(&format!("chmod {fix:o} {}", path.display())), "{text}");
        set_permissions(path, Permissions::from_mode(good)).unwrap();
    };
    let dir = world.config.state_dir.clone();
    refused(&dir, 0o700).await;
    for file in ["instance.key", "data-plane.token", "attache.db", "lock"] {
        refused(&dir.join(file), 0o600).await;
    }
    world.start().await;
}

#[tokio::test]
async fn a_damaged_line_in_the_log_stops_no_start_and_is_told_once() {
    let mut world = World::new().await;
    world.plain_grant().await;
    world.stop().await;
    let path = world.config.audit.path.clone();
    let mut log = std::fs::read(&path).unwrap();
    let at = memchr::memmem::find(&log, b"\"kind\":\"issue\"").unwrap();
    let line = 1 + log[..at].iter().filter(|byte| **byte == b'\n').count();
    // No UTF-8, in the record of an issue that may be outstanding.
    log[at + 20] = 0xff;
    std::fs::write(&path, &log).unwrap();
    let damage = |world: &World| {
        let told = std::fs::read(&world.config.audit.path).unwrap();
        let told = String::from_utf8_lossy(&told).into_owned();
        let gaps = told.lines().filter(|line| line.contains("\"kind\":\"gap\"") && line.contains("is damaged"));
        gaps.map(str::to_owned).collect::<Vec<_>>()
    };
    world.start().await;
    assert!(world.plain_grant().await["granted"].is_object());
    let told = damage(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&format!("line {line} of {}", path.display())), "{told:?}");
    world.restart().await;
    assert_eq!(damage(&world).len(), 1, "told once");
}

#[tokio::test]
async fn what_stands_in_a_rotated_files_place_is_refused_and_not_waited_for() {
    let mut world = World::new().await;
    world.stop().await;
    let mut aside = world.config.audit.path.clone().into_os_string();
    aside.push(".1");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, Path::new(&aside), fifo, 0o600.into(), 0).unwrap();
    let error = attache_broker::start(world.config.clone(), &Environment::default()).await.err().unwrap().to_string();
    assert!(error.contains("audit.jsonl.1 is not a regular file"), "{error}");
    std::fs::remove_file(&aside).unwrap();
    world.start().await;
}

#[tokio::test]
async fn what_is_announced_is_true_and_withdrawn_at_the_end() {
    let mut world = World::new().await;
    let runtime = announced(&world.config.state_dir).unwrap().unwrap();
    assert_eq!(runtime.pid, std::process::id());
    assert!(tokio::net::TcpStream::connect(&runtime.data_plane).await.is_ok());
    assert_eq!((&runtime.control, &runtime.audit), (&world.config.listen.control, &world.config.audit.path));
    world.stop().await;
    assert_eq!(announced(&world.config.state_dir).unwrap(), None);
    assert!(tokio::net::TcpStream::connect(&runtime.data_plane).await.is_err());
    assert!(!world.config.listen.control.exists());
}

#[tokio::test]
async fn held_polls_and_idle_connections_do_not_delay_the_end() {
    let mut world = World::new().await;
    let epoch = world.poll("", 0, 0).await["epoch"].as_str().unwrap().to_owned();
    let runtime = announced(&world.config.state_dir).unwrap().unwrap();
    let idle = tokio::net::TcpStream::connect(&runtime.data_plane).await.unwrap();
    let path = format!("/v1/changes?worker=0123abcd&epoch={epoch}&after=0&wait_ms=60000");
    let bearer = format!("Bearer {}", world.token());
    let stream = tokio::net::TcpStream::connect(&runtime.data_plane).await.unwrap();
    let poll = tokio::spawn(async move {
        crate::world::send(stream, "GET", &path, &[("authorization", &bearer)], b"").await.status
    });
    tokio::task::yield_now().await;
    let began = std::time::Instant::now();
    world.stop().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    // Answered if it had arrived, turned away if not: never left hanging.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(8), poll).await.expect("ends");
    drop(idle);
}
