//! A secret that was put aside is kept, and comes back by a command, sealed or not; and what somebody has written
//! while a rotation was under way is not overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use attache_tests::stack::SOON;
use attache_tests::util;
use serde_json::Value;

use crate::service::{FIRST, Service, World, runs, secret};

const MEANWHILE: &str = "rot-secret-of-somebody-else-0123456789";

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("private");
}

/// With files that are sealed, or not.
async fn world(is_sealed: bool) -> World {
    let service = Service::new();
    let key = service.path("seal.key");
    private(&key, &"6b".repeat(32));
    let rotation = format!("command: [{}], overlap: 1h", service.command());
    let seal = if is_sealed { format!("state: {{seal: {{file: {}}}}}\n", key.display()) } else { String::new() };
    World::beside_this(service, &rotation, &seal, &[]).await
}

/// As it lies on the disk; no secret is to be read there where files are sealed.
fn lies(world: &World, side: &str, is_sealed: bool) -> String {
    let path = world.beside(side);
    assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(path).expect("a file");
    assert_eq!(text.starts_with("attache-sealed:v1:"), is_sealed, "{side}: {text}");
    assert_eq!(text.contains("rot-secret"), !is_sealed, "{side}: {text}");
    text
}

fn fingerprint(world: &World) -> String {
    let done = world.broker.json(&["credential", "reload", "rot"]);
    done["credential"]["fingerprint"].as_str().unwrap_or_else(|| panic!("{done:#}")).to_owned()
}

/// A rotation that is under way while somebody writes another secret.
async fn overtaken(world: &World) {
    world.service.block("made");
    let (config, args) = (world.dir.path().join("attache.yaml"), ["credential", "rotate", "rot"]);
    let asked = std::thread::spawn(move || attache_tests::attache::run(&config, &args));
    world.service.waits("made").await;
    let (good, said) = world.attache(&["credential", "set", "rot"], MEANWHILE);
    assert!(good && said.contains("rot has a rotation") && said.contains("rot.rejected"), "{said}");
    world.service.unblock("made");
    let done = asked.join().expect("it ends");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("somebody has changed the secret meanwhile"), "{said}");
    assert!(said.contains("attache credential set NAME --from rejected"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_while_a_new_secret_is_made_stays_and_the_new_one_is_put_aside_and_can_be_taken() {
    for is_sealed in [false, true] {
        let world = world(is_sealed).await;
        // Told though it is no round number of failures.
        std::fs::write(world.service.path("fail"), "").unwrap();
        for _ in 0..2 {
            assert_eq!(world.rotate(&[]).0, Some(1));
        }
        std::fs::remove_file(world.service.path("fail")).unwrap();
        let first = fingerprint(&world);
        overtaken(&world).await;
        assert_eq!(world.sides(), ["rot.rejected"], "nor is there an old one to be retired");
        let (kept, aside) = (lies(&world, "", is_sealed), lies(&world, ".rejected", is_sealed));
        if !is_sealed {
            assert_eq!((kept.as_str(), aside.as_str()), (MEANWHILE, secret(1).as_str()));
        }
        let theirs = fingerprint(&world);
        assert_ne!(theirs, first);
        let alarms = world.records("alarm");
        assert_eq!(alarms.len(), 3, "{alarms:?}");
        assert!(alarms[2]["reason"].as_str().unwrap().contains("somebody has changed the secret"), "{alarms:?}");
        assert_eq!((world.rotate(&[]).0, world.service.calls("rotate").len()), (Some(1), 3), "nothing is made");

        let (good, said) = world.attache(&["credential", "set", "rot", "--from", "rejected"], "");
        assert!(good && said.contains("rot.rejected is erased"), "{said}");
        assert_eq!(said.contains("sealed, 0600"), is_sealed, "{said}");
        lies(&world, "", is_sealed);
        assert_eq!(world.sides(), Vec::<String>::new());
        assert!(![first, theirs].contains(&fingerprint(&world)), "the broker reads it");
        // The service takes it, or it would make no other.
        let (code, said) = world.rotate(&[]);
        assert_eq!((code, world.service.made()), (Some(0), 2), "{said}");
        world.nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_secret_is_put_back_and_not_retired() {
    for is_sealed in [false, true] {
        let world = world(is_sealed).await;
        let first = fingerprint(&world);
        let (good, said) = world.attache(&["credential", "set", "rot", "--from", "retiring"], "");
        assert!(!good && said.contains("rot.retiring is not there"), "{said}");
        assert_eq!(world.rotate(&[]).0, Some(0));
        assert_ne!(fingerprint(&world), first);
        let (good, said) = world.attache(&["credential", "set", "rot", "--from", "retiring"], "");
        assert!(good && said.contains("rot.retiring stays"), "{said}");
        lies(&world, "", is_sealed);
        lies(&world, ".retiring", is_sealed);
        assert_eq!(fingerprint(&world), first);
        let (code, said) = world.rotate(&["--retire-now"]);
        assert!(code == Some(1) && said.contains("in use again"), "{said}");
        assert!(world.service.valid().contains(&FIRST.to_owned()));
        world.nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_left_aside_until_the_config_lets_it() {
    let service = Service::new();
    // Too short to be told from chance in an answer.
    let script = service.script("short", "#!/bin/sh\necho abc\n");
    let world = World::with(service, &format!("command: [{}]", script.display()), &[]).await;
    assert_eq!(world.rotate(&[]).0, Some(1));
    let take = || world.attache(&["credential", "set", "rot", "--from", "rejected"], "");
    let (good, said) = take();
    assert!(!good && said.contains("cannot be used") && said.contains("mask: false"), "{said}");
    assert_eq!((world.kept(), world.sides()), (FIRST.to_owned(), vec!["rot.rejected".to_owned()]));
    let config = world.dir.path().join("attache.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("host: rot.test", "host: rot.test, mask: false")).unwrap();
    let (good, said) = take();
    assert!(good, "{said}");
    assert_eq!((world.kept(), world.sides()), ("abc".to_owned(), vec![]));
    let (good, said) = take();
    assert!(!good && said.contains("rot.rejected is not there"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_new_secret_was_put_aside_the_broker_asks_for_no_other() {
    let world = world(false).await;
    world.service.block("made");
    let (config, args) = (world.dir.path().join("attache.yaml"), ["credential", "rotate", "rot"]);
    let asked = std::thread::spawn(move || attache_tests::attache::run(&config, &args));
    world.service.waits("made").await;
    world.broker.kill();
    assert!(!asked.join().unwrap().status.success());
    let pid = std::fs::read_to_string(world.service.path("pid")).unwrap().trim().parse().unwrap();
    world.service.unblock("made");
    util::eventually(SOON, || !runs(pid)).await;
    // As a kill leaves it behind the first step of putting aside.
    let _ = std::fs::remove_file(world.beside(".answer"));
    private(&world.beside(".rejected"), &secret(1));
    private(&world.beside(".next"), &secret(1));
    private(&world.beside(""), MEANWHILE);
    world.broker.restart().await;
    util::eventually(SOON, || world.sides() == ["rot.rejected"]).await;
    util::eventually(SOON, || world.rotation()["error"] != Value::Null).await;
    assert!(world.rotation()["error"].as_str().unwrap().contains("was not put in place"), "{}", world.rotation());
    assert_eq!((world.kept().as_str(), world.service.calls("rotate").len()), (MEANWHILE, 1));
}
