//! Killed (-9) at any moment of a rotation, the broker loses no secret, and goes on where it was.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attache_tests::stack::SOON;
use attache_tests::util;

use crate::service::{FIRST, Service, World, runs, secret};

/// What must hold whenever the broker is away: the service takes what it has on disk.
fn is_good(world: &World) {
    let kept = world.kept();
    assert!(world.service.valid().contains(&kept), "{kept} is not among {:?}", world.service.valid());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_command_runs_the_broker_takes_what_it_printed_and_runs_no_second_one() {
    for when in ["begin", "made", "printed"] {
        let world = World::new("overlap: 1s").await;
        world.service.block(when);
        let (config, args) = (world.dir.path().join("attache.yaml"), ["credential", "rotate", "rot"]);
        let asked = std::thread::spawn(move || attache_tests::attache::run(&config, &args));
        world.service.waits(when).await;
        world.broker.kill();
        assert!(!asked.join().unwrap().status.success());
        is_good(&world);
        world.broker.restart().await;
        // The one of before goes on: there is none beside it.
        util::eventually(SOON, || world.rotation()["error"].as_str().is_some_and(|error| error.contains("still runs")))
            .await;
        assert_eq!(world.service.calls("rotate").len(), 1, "{when}");
        is_good(&world);
        world.service.unblock(when);
        util::eventually(SOON, || ended(&world)).await;
        let (code, said) = world.rotate(&[]);
        assert_eq!(code, Some(0), "{when}: {said}");
        world.settled().await;
        assert_eq!((world.kept(), world.service.made()), (secret(1), 1), "{when}");
        assert_eq!(world.service.calls("rotate").len(), 1, "{when}: what it printed was taken");
        world.nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_old_secret_is_retired_the_broker_retires_it_once_more() {
    for when in ["begin", "retired"] {
        let world = World::new("overlap: 1s").await;
        assert_eq!(world.rotate(&[]).0, Some(0));
        world.service.block(when);
        world.service.waits(when).await;
        world.broker.kill();
        is_good(&world);
        world.broker.restart().await;
        world.service.unblock(when);
        util::eventually(SOON, || ended(&world)).await;
        world.settled().await;
        assert_eq!(world.kept(), secret(1), "{when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_an_answer_is_run_again_for_the_same_rotation() {
    let world = World::new("overlap: 1s").await;
    world.service.block("made");
    let (config, args) = (world.dir.path().join("attache.yaml"), ["credential", "rotate", "rot"]);
    let asked = std::thread::spawn(move || attache_tests::attache::run(&config, &args));
    world.service.waits("made").await;
    // Broker and command at once, as when the machine loses its power.
    world.broker.kill();
    let killed = Command::new("kill").args(["-9", &pid(&world).to_string()]).status();
    assert!(killed.unwrap().success() && !asked.join().unwrap().status.success());
    std::fs::remove_file(world.service.path("block-made")).unwrap();
    is_good(&world);
    world.broker.restart().await;
    world.settled().await;
    let calls = world.service.calls("rotate");
    assert!(calls.len() == 2 && calls[0] == calls[1], "{calls:?}");
    assert_eq!((world.kept(), world.service.made()), (secret(1), 1));
    let told: Vec<_> = world.records("renew").iter().map(|record| record["decision"].clone()).collect();
    assert_eq!(told, ["rotate", "retire"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_change_of_a_file_the_broker_goes_on_where_it_was() {
    killed_at_any("secrets", "renameat,renameat2,unlinkat", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_to_its_database_the_broker_goes_on_where_it_was() {
    killed_at_any("attache.db-wal", "pwrite64,fdatasync", 8).await;
}

/// Killed by strace at the nth of these calls there, for each n that a rotation has.
async fn killed_at_any(place: &str, calls: &str, at_least: usize) {
    if !is_root() {
        return util::skipped("only root traces a broker");
    }
    let (mut killed, mut whole) = (0, 0);
    for n in 1.. {
        let service = Service::new();
        let rotation = format!("command: [{}], overlap: 1s", service.command());
        // strace counts the calls of each thread.
        let world = World::with(service, &rotation, &[("TOKIO_WORKER_THREADS", "1")]).await;
        let mut strace = strace(&world, (place, calls), n);
        let (config, args) = (world.dir.path().join("attache.yaml"), ["credential", "rotate", "rot"]);
        let asked = std::thread::spawn(move || attache_tests::attache::run(&config, &args));
        // Killed, or wholly over.
        let over = || {
            !world.broker.alive() || (world.service.made() == 1 && world.sides().is_empty() && world.kept() != FIRST)
        };
        util::eventually(2 * SOON, over).await;
        let _ = asked.join().unwrap();
        if world.broker.alive() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let is_dead = !world.broker.alive();
        let _ = strace.kill();
        let _ = strace.wait();
        is_good(&world);
        if !is_dead {
            whole += 1;
            if whole == 2 {
                break;
            }
            continue;
        }
        killed += 1;
        util::eventually(SOON, || !world.service.path("pid").exists() || ended(&world)).await;
        is_good(&world);
        world.broker.restart().await;
        is_good(&world);
        // Killed before it was stored, a wish is gone.
        if world.service.made() == 0 && world.service.calls("rotate").is_empty() {
            tokio::time::sleep(Duration::from_millis(700)).await;
            if world.service.calls("rotate").is_empty() {
                assert_eq!((world.kept().as_str(), world.sides()), (FIRST, vec![]), "{n}");
                continue;
            }
        }
        world.settled().await;
        assert_eq!((world.kept(), world.service.made()), (secret(1), 1), "{n}");
        let told: Vec<_> = world.records("renew").iter().map(|record| record["decision"].clone()).collect();
        let has = |word: &str| told.iter().any(|told| told == word);
        assert!(has("rotate") && has("retire"), "{n}: {told:?}");
        world.nothing_leaked();
    }
    println!("killed at {killed} calls in {place}");
    assert!(killed >= at_least, "{killed}");
}

fn strace(world: &World, (place, calls): (&str, &str), n: usize) -> std::process::Child {
    let (place, said) = (world.dir.path().join("state/default").join(place), world.dir.path().join("strace.err"));
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.arg("-e").arg(format!("inject={calls}:signal=KILL:when={n}"));
    command.arg("-P").arg(place);
    command
        .args(["-p", &world.broker.pid().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).expect("a file"));
    let mut child = command.spawn().expect("strace");
    let status = format!("/proc/{}/status", world.broker.pid());
    let traced = || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    let end = Instant::now() + SOON;
    while !traced() {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("strace does not trace the broker: {}", std::fs::read_to_string(&said).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout == b"0\n"
}

/// Whether the script that was started last has ended.
fn ended(world: &World) -> bool {
    // Empty while it is being written.
    let pid = std::fs::read_to_string(world.service.path("pid")).unwrap_or_default();
    pid.trim().parse().is_ok_and(|pid| !runs(pid))
}

fn pid(world: &World) -> u32 {
    std::fs::read_to_string(world.service.path("pid")).unwrap().trim().parse().unwrap()
}
