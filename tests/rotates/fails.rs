//! What does not work is told, changes nothing, and is tried again.

use std::os::unix::fs::{PermissionsExt, symlink};

use attache_tests::stack::SOON;
use attache_tests::util;
use serde_json::Value;

use crate::service::{FIRST, Service, World, runs, secret};

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_rotation_says_what_was_done_and_until_when_the_old_secret_is_good() {
    let world = World::new("overlap: 1h").await;
    let fingerprint = || world.broker.json(&["credential", "list"])[0]["fingerprint"].as_str().unwrap().to_owned();
    let old = fingerprint();
    let (code, said) = world.rotate(&[]);
    assert_eq!(code, Some(0), "{said}");
    let new = fingerprint();
    assert!(said.contains(&format!("rot is version {new}: applied on 0/0 workers")), "{said}");
    assert!(said.contains(&format!("the one of before, {old}, is good until 2")), "{said}");
    assert_eq!((world.kept(), world.service.valid()), (secret(1), vec![FIRST.to_owned(), secret(1)]));
    assert_eq!(world.sides(), ["rot.retiring"]);
    assert_eq!(util_mode(&world), 0o600);
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("the secret of before is good until") && said.contains("--retire-now"));
    let (code, said) = world.rotate(&["--retire-now"]);
    assert!(code == Some(0) && said.contains(&format!("the one of before, {old}, is retired")), "{said}");
    assert_eq!((world.service.valid(), world.sides()), (vec![secret(1)], vec![]));
    let (code, said) = world.rotate(&["--retire-now"]);
    assert!(code == Some(0) && said.contains("no secret of before waits"), "{said}");
    let told: Vec<_> = world.records("renew").iter().map(|record| record["decision"].clone()).collect();
    assert_eq!(told, ["rotate", "retire"]);
    let [rotated, retired] = &world.records("renew")[..] else { panic!("two records") };
    assert_eq!((&rotated["fingerprint"], &rotated["replaced"]), (&Value::from(new), &Value::from(old.clone())));
    assert_eq!((&retired["fingerprint"], &retired["credential"]), (&old.into(), &"rot".into()));
    assert_eq!((&rotated["reason"], &retired["reason"]), (&"by an operator".into(), &"by an operator".into()));
    world.nothing_leaked();
}

fn util_mode(world: &World) -> u32 {
    world.beside(".retiring").metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_keep_to_the_contract_changes_nothing_and_is_told_in_our_words() {
    let cases = [
        ("exit 1; echo", "the command failed: exit code 1"),
        ("kill -9 $$", "the command failed: ended by a signal"),
        (":", "it has answered without a secret"),
        ("echo one; echo two", "more than one line"),
        ("printf '\\377\\n'", "what it answers is no text"),
        ("yes | head -c 100000", "longer than 64 KiB"),
        ("yes", "longer than 64 KiB"),
        ("sleep 600 & sleep 600", "had not ended after 1s, and was killed"),
        ("cat", "the secret that is in use"),
    ];
    for (line, why) in cases {
        let service = Service::new();
        let script = service.script("bad", &format!("#!/bin/sh\necho the-secret-of-stderr >&2\n{line}\n"));
        let rotation = format!("command: [{}], timeout: 1s", script.display());
        let world = World::with(service, &rotation, &[]).await;
        let (code, said) = world.rotate(&[]);
        assert!(code == Some(1) && said.contains(why), "{line}: {said}");
        assert_eq!((world.kept(), world.sides()), (FIRST.to_owned(), vec![]), "{line}");
        let stands = world.rotation();
        assert!(stands["error"].as_str().unwrap().contains(why) && stands["fix"].is_string(), "{stands:#}");
        assert_eq!(stands["failures"], 1);
        let alarms = world.records("alarm");
        assert!(alarms.len() == 1 && alarms[0]["reason"].as_str().unwrap().contains(why), "{line}: {alarms:?}");
        assert!(world.records("renew").is_empty());
        let log = std::fs::read_to_string(world.broker.log_path()).unwrap();
        assert!(!log.contains("the-secret-of-stderr"), "{log}");
        world.nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
    let service = Service::new();
    let pids = service.path("pids");
    let text = format!("#!/bin/sh\nsleep 600 &\necho $! > {0}\necho $$ >> {0}\nsleep 600\n", pids.display());
    let script = service.script("bad", &text);
    let world = World::with(service, &format!("command: [{}], timeout: 1s", script.display()), &[]).await;
    assert_eq!(world.rotate(&[]).0, Some(1));
    let pids: Vec<u32> = std::fs::read_to_string(&pids).unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    util::eventually(SOON, || !pids.iter().any(|pid| runs(*pid))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_others_can_write_is_not_run_and_told_before_it_is_due() {
    let service = Service::new();
    let ran = service.path("ran");
    let script = service.script("open", &format!("#!/bin/sh\ntouch {}\n", ran.display()));
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o777)).unwrap();
    let world = World::with(service, &format!("command: [{}]", script.display()), &[]).await;
    let log = std::fs::read_to_string(world.broker.log_path()).unwrap();
    assert!(log.contains("the command that rotates it will not be run"), "{log}");
    let checked = String::from_utf8(world.broker.cli(&["check"]).stdout).unwrap();
    assert!(checked.contains("credentials.rot.rotation.command is not run"), "{checked}");
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("can be written by others (mode 0777)"), "{said}");
    assert!(!ran.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_run_where_its_links_lead_and_not_at_all_where_others_could_lead_them() {
    let service = Service::new();
    for dir in ["bin", "between", "real"] {
        std::fs::create_dir(service.path(dir)).unwrap();
    }
    let called = service.path("called");
    let real = service.script("real/rotate", &format!("#!/bin/sh\necho \"$0\" >> {}\nexit 1\n", called.display()));
    symlink("../real/rotate", service.path("between/now")).unwrap();
    symlink("../between/now", service.path("bin/rotate")).unwrap();
    let rotation = format!("command: [{}]", service.path("bin/rotate").display());
    let world = World::with(service, &rotation, &[]).await;
    assert_eq!(world.rotate(&[]).0, Some(1));
    let expected = format!("{}\n", real.canonicalize().unwrap().display());
    assert_eq!(std::fs::read_to_string(&called).unwrap(), expected);
    std::fs::set_permissions(world.service.path("between"), PermissionsExt::from_mode(0o777)).unwrap();
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("between can be written by others (mode 0777)"), "{said}");
    assert_eq!(std::fs::read_to_string(&called).unwrap(), expected, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_that_succeeds_has_started_ends_with_it() {
    let service = Service::new();
    let pid = service.path("pid");
    let line = format!("sleep 600 &\necho $! > {}\necho {}", pid.display(), secret(1));
    let script = service.script("leaves", &format!("#!/bin/sh\n{line}\n"));
    let world = World::with(service, &format!("command: [{}]", script.display()), &[]).await;
    let (code, said) = world.rotate(&[]);
    assert_eq!((code, world.kept()), (Some(0), secret(1)), "{said}");
    let pid: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    util::eventually(SOON, || !runs(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_nothing_of_what_the_broker_was_started_with() {
    // Every process that this one starts from here on has it: the broker, too.
    let file = tempfile::NamedTempFile::new().unwrap();
    let _handed_on = rustix::io::dup(&file).unwrap();
    let name = file.path().canonicalize().unwrap();
    let service = Service::new();
    let seen = service.path("seen");
    let line = format!("for one in /proc/$$/fd/*; do readlink \"$one\"; done > {}\nexit 1", seen.display());
    let script = service.script("looks", &format!("#!/bin/sh\n{line}\n"));
    let world = World::with(service, &format!("command: [{}]", script.display()), &[]).await;
    assert_eq!(world.rotate(&[]).0, Some(1));
    let seen = std::fs::read_to_string(&seen).unwrap();
    assert!(seen.contains("/dev/null") && !seen.contains(name.to_str().unwrap()), "{name:?} is among {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_everywhere_and_what_works_again_ends_it() {
    let world = World::new("overlap: 1h").await;
    std::fs::write(world.service.path("fail"), "").unwrap();
    for times in 1..=4 {
        assert_eq!(world.rotate(&[]).0, Some(1));
        assert_eq!(world.rotation()["failures"], times);
    }
    // The first, and then whenever there were twice as many.
    let reasons: Vec<_> = world.records("alarm").iter().map(|alarm| alarm["reason"].clone()).collect();
    let expected = ["it is not rotated: ", "it is not rotated (2 times): ", "it is not rotated (4 times): "];
    assert_eq!(reasons, expected.map(|what| format!("{what}the command failed: exit code 1")));
    let ids: std::collections::BTreeSet<_> = world.service.calls("rotate").into_iter().collect();
    assert_eq!(ids.len(), 1, "one rotation, one id: {ids:?}");
    let listed = String::from_utf8(world.broker.cli(&["credential", "list"]).stdout).unwrap();
    assert!(
        listed.contains("ROTATES") && (listed.contains("fails, again in 6m") || listed.contains("fails, again in 7m")),
        "{listed}"
    );
    assert!(listed.contains("the command failed: exit code 1"), "{listed}");
    let ready: Value = serde_json::from_slice(&world.broker.cli(&["ready", "--json"]).stdout).unwrap_or_default();
    let metrics = control(&world, "/metrics").await;
    assert!(metrics.contains("attache_rotations_total{credential=\"rot\",result=\"failed\"} 4"), "{metrics}");
    let readyz = control(&world, "/readyz").await;
    assert!(
        readyz.contains("\"ready\":true") && readyz.contains("\"name\":\"rotation rot\",\"state\":\"failed\""),
        "{ready}"
    );
    std::fs::remove_file(world.service.path("fail")).unwrap();
    assert_eq!(world.rotate(&[]).0, Some(0));
    let stands = world.rotation();
    assert_eq!((&stands["failures"], &stands["error"]), (&0.into(), &Value::Null), "{stands:#}");
    assert!(control(&world, "/readyz").await.contains("\"name\":\"rotation rot\",\"state\":\"ok\""));
    assert_eq!(world.service.made(), 1);
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_that_cannot_be_used_is_kept_aside_and_the_old_one_stays() {
    let service = Service::new();
    // Too short to be told from chance in an answer.
    let script = service.script("short", "#!/bin/sh\necho abc\n");
    let world = World::with(service, &format!("command: [{}]", script.display()), &[]).await;
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("cannot be used, and lies in") && said.contains("rot.rejected"), "{said}");
    assert_eq!((world.kept(), world.sides()), (FIRST.to_owned(), vec!["rot.rejected".to_owned()]));
    assert_eq!(std::fs::read_to_string(world.beside(".rejected")).unwrap(), "abc");
    assert_eq!(world.beside(".rejected").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(world.records("alarm").len(), 1);
    // No other is made until somebody has looked: it would be lost among others.
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("holds a new secret that was not put in place"), "{said}");
    assert_eq!(std::fs::read_to_string(world.beside(".rejected")).unwrap(), "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_neither_in_the_commands_arguments_nor_in_its_environment() {
    let service = Service::new();
    service.block("begin");
    let command = service.command();
    let rotation = format!("command: [{command}, first, 'a b'], env: [ROT_ADMIN]");
    let script = std::fs::read_to_string(service.path("rotate")).unwrap();
    service.script("rotate", &script.replace("set -eu", "set -eu\nshift 2"));
    let env = [("ROT_ADMIN", "the-admin"), ("ROT_OTHER", "not-for-it"), ("HOME", "/root")];
    let world = World::with(service, &rotation, &env).await;
    let (config, args) = (world.dir.path().join("attache.yaml"), ["credential", "rotate", "rot"]);
    let asked = std::thread::spawn(move || attache_tests::attache::run(&config, &args));
    world.service.waits("begin").await;
    let pid = std::fs::read_to_string(world.service.path("pid")).unwrap();
    let of = |file: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/{file}", pid.trim())).unwrap()).into_owned()
    };
    let (line, environment) = (of("cmdline"), of("environ"));
    assert!(line.ends_with(&format!("{command}\0first\0a b\0rotate\0")), "{line}");
    let mut names: Vec<_> =
        environment.split('\0').filter_map(|one| one.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    let expected =
        ["ATTACHE_CREDENTIAL", "ATTACHE_ROTATION_ID", "ATTACHE_ROTATION_VERSION", "HOME", "PATH", "ROT_ADMIN"];
    assert_eq!(names, expected);
    assert!(!line.contains("rot-secret") && !environment.contains("rot-secret"), "{line} {environment}");
    world.service.unblock("begin");
    assert!(asked.join().unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_that_is_in_use_again_is_never_retired() {
    let world = World::new("overlap: 1h").await;
    assert_eq!(world.rotate(&[]).0, Some(0));
    // Somebody has gone back.
    std::fs::copy(world.beside(".retiring"), world.beside("")).unwrap();
    let (code, said) = world.rotate(&["--retire-now"]);
    assert!(code == Some(1) && said.contains("in use again"), "{said}");
    assert_eq!(world.service.valid().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_that_cannot_be_retired_is_told_and_no_other_is_made_until_it_is() {
    let world = World::new("overlap: 1s").await;
    assert_eq!(world.rotate(&[]).0, Some(0));
    std::fs::write(world.service.path("fail"), "").unwrap();
    util::eventually(SOON, || world.records("alarm").len() == 1).await;
    let alarms = world.records("alarm");
    assert_eq!(alarms[0]["reason"], "the old secret is not retired: the command failed: exit code 1");
    assert_eq!(world.service.valid().len(), 2, "both are good");
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("exit code 1"), "{said}");
    assert_eq!((world.service.made(), world.sides()), (1, vec!["rot.retiring".to_owned()]));
    std::fs::remove_file(world.service.path("fail")).unwrap();
    let (code, said) = world.rotate(&[]);
    assert_eq!((code, world.service.made()), (Some(0), 2), "{said}");
    assert!(!world.service.valid().contains(&FIRST.to_owned()));
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_an_overlap_makes_no_new_secret() {
    let world = World::new("overlap: 1h").await;
    std::fs::write(world.service.path("fail"), "").unwrap();
    assert_eq!(world.rotate(&[]).0, Some(1));
    std::fs::remove_file(world.service.path("fail")).unwrap();
    let (code, said) = world.rotate(&["--retire-now"]);
    assert!(code == Some(0) && said.contains("no secret of before waits"), "{said}");
    assert_eq!((world.service.made(), world.kept()), (0, FIRST.to_owned()));
}

/// What the operators' door answers.
async fn control(world: &World, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = world.dir.path().join("state/default/control.sock");
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
