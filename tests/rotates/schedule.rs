//! By schedule: over restarts, and by clocks that jump.

use std::time::Duration;

use attache_tests::clock::Clock;
use attache_tests::stack::SOON;
use attache_tests::util;

use crate::service::{FIRST, Service, World, secret};

async fn world(clock: &Clock, rotation: &str) -> World {
    let service = Service::new();
    let command = service.command();
    let env = clock.env();
    let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    World::with(service, &format!("command: [{command}], {rotation}"), &env).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_rotated_by_itself_and_a_clock_that_jumps_brings_one_rotation_a_life() {
    let clock = Clock::right();
    let world = world(&clock, "every: 1h, overlap: 1s").await;
    let due = world.rotation()["next_ms"].as_u64().unwrap();
    assert!((3_590_000..3_610_000).contains(&(due - util::wall_ms())), "{due}");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(world.kept(), FIRST, "not due");
    clock.off_by(3_700);
    util::eventually(SOON, || world.kept() == secret(1)).await;
    world.settled().await;
    for hours in [3, 30, 300] {
        clock.off_by(hours * 3_700);
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    assert_eq!(world.service.made(), 1, "a jump is believed once");
    // Set right again, and even back, it does not wait for the time that was lost.
    clock.off_by(0);
    let hour = || world.rotation()["next_ms"].as_u64().unwrap().saturating_sub(util::wall_ms());
    util::eventually(SOON, || hour() <= 3_610_000).await;
    let told = world.records("renew");
    assert!(told.iter().all(|record| record["reason"] == "by schedule"), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_due_while_the_broker_was_away_is_rotated_after_its_start() {
    let clock = Clock::right();
    let world = world(&clock, "every: 1m, overlap: 1s").await;
    let before = world.rotation()["next_ms"].clone();
    world.broker.restart().await;
    assert_eq!(world.rotation()["next_ms"], before, "a restart postpones nothing");
    world.broker.kill();
    clock.off_by(90);
    world.broker.restart().await;
    // Within a twentieth of the time between two.
    util::eventually(3 * SOON, || world.kept() == secret(1)).await;
    world.settled().await;
    assert_eq!(world.service.made(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_shorten_an_overlap() {
    let world = World::new("overlap: 5s").await;
    assert_eq!(world.rotate(&[]).0, Some(0));
    let until = world.rotation()["retire_ms"].as_u64().unwrap();
    world.broker.restart().await;
    assert_eq!(world.rotation()["retire_ms"], until);
    while util::wall_ms() < until {
        assert_eq!(world.service.valid().len(), 2, "both are good");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_files_are_sealed_both_secrets_are_and_the_old_one_is_retired_all_the_same() {
    let service = Service::new();
    let rotation = format!("command: [{}], overlap: 3s", service.command());
    let key = "6b7e1f0f4d6c5b3a291807f6e5d4c3b2a19080706050403020100f0e0d0c0b0a";
    let seal = "state: {seal: {env: SEAL_KEY}}\n";
    let world = World::beside_this(service, &rotation, seal, &[("SEAL_KEY", key)]).await;
    assert_eq!(world.rotate(&[]).0, Some(0));
    assert_eq!(world.sides(), ["rot.retiring"]);
    for side in ["", ".retiring"] {
        let text = std::fs::read_to_string(world.beside(side)).expect("a file");
        assert!(text.starts_with("attache-sealed:v1:") && !text.contains("rot-secret"), "{side}: {text}");
    }
    world.broker.restart().await;
    util::eventually(3 * SOON, || world.service.valid() == [secret(1)] && world.sides().is_empty()).await;
    assert!(world.rotation()["error"].is_null(), "{}", world.rotation());
    world.nothing_leaked();
}
