//! Help, versions and exit codes.

use std::collections::BTreeSet;

use crate::{GOOD, config, run};

/// 0 ok, 1 failed, 2 usage, 64 config.
#[test]
fn exit_codes_tell_success_failure_usage_and_config_apart() {
    let (_dir, good) = config(GOOD);
    let (_other, bad) = config("nonsense: true\n");
    for (config, args, code) in [
        (&good, &["check"][..], 0),
        (&good, &["schema"], 0),
        (&good, &["doctor"], 0),
        (&good, &["session", "list"], 1),
        (&good, &["session", "env", "one"], 1),
        (&good, &["credential", "list"], 1),
        (&good, &["feed", "workers"], 1),
        (&good, &["audit", "tail"], 1),
        (&good, &["audit", "verify"], 1),
        (&good, &["audit", "verify", "--path", "/nonexistent"], 1),
        (&good, &["doctor", "--bootstrap", "/nonexistent.yaml"], 1),
        (&good, &["doctor", "--envoy-admin", "http://127.0.0.1:9"], 1),
        (&good, &[], 2),
        (&good, &["unknown"], 2),
        (&good, &["check", "--unknown"], 2),
        (&good, &["session", "create", "a"], 2),
        (&good, &["session", "create", "../a", "--credential", "lab"], 2),
        (&good, &["session", "create", "a", "--credential", "lab", "--ttl", "soon"], 2),
        (&good, &["session", "set-access-mode", "one", "admin"], 2),
        (&good, &["doctor", "--envoy-admin", "nowhere"], 2),
        (&good, &["doctor", "--bootstrap", "a", "--envoy-admin", "http://127.0.0.1:9"], 2),
        (&good, &["envoy-config", "--envoy-version", "1.20.0"], 2),
        (&good, &["envoy-config", "--shape", "round"], 2),
        (&good, &["envoy-config", "--admin", "0.0.0.0:9901"], 2),
        (&good, &["check", "--instance-id", "Not A Name"], 2),
        (&bad, &["check"], 64),
        (&bad, &["serve"], 64),
        (&bad, &["up"], 64),
        (&bad, &["session", "list"], 64),
        (&bad, &["credential", "list"], 64),
        (&bad, &["audit", "tail"], 64),
        (&bad, &["envoy-config"], 64),
        (&bad, &["doctor"], 64),
    ] {
        let said = run(config, args);
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        if code == 0 {
            assert!(!said.out.is_empty(), "{args:?}");
        } else {
            assert!(
                said.out.is_empty() && !said.err.is_empty(),
                "{args:?} complains where complaints go: {}",
                said.out
            );
            assert!(!said.err.contains("panicked"), "{args:?}: {}", said.err);
        }
    }
}

#[test]
fn a_sidecar_is_pinned_to_one_session_that_is_bound_to_it_alone() {
    let sessions = "sessions:
  - {name: one, credentials: [lab]}
  - {name: mine, credentials: [lab], bind: {listener: mine}}
  - {name: two, credentials: [lab], bind: {listener: shared}}
  - {name: three, credentials: [lab], bind: {listener: shared}}
  - {name: gateway, credentials: [lab], bind: {listener: attache}}
";
    let (common, _) = GOOD.split_once("sessions:").expect("sessions");
    let (_dir, path) = config(&format!("{common}{sessions}"));
    let written = |args: &[&str]| run(&path, &[&["envoy-config", "--filter", "/f.wasm", "--json"], args].concat());
    let sidecar = written(&["--shape", "sidecar", "--session", "mine"]);
    assert!(sidecar.code == 0 && sidecar.out.contains(r#"\"listener\":\"mine\""#), "{}{}", sidecar.out, sidecar.err);
    for (session, words) in [
        ("one", "sessions.one.bind: "),
        ("two", "that of two, too, and a sidecar is pinned to one session"),
        ("gateway", "attache is the gateway's own"),
        ("nobody", "there is no nobody"),
    ] {
        let said = written(&["--shape", "sidecar", "--session", session]);
        assert!(said.code == 2 && said.out.is_empty() && said.err.contains(words), "{session}: {}", said.err);
    }
    assert!(written(&["--session", "mine"]).err.contains("--shape sidecar"));
    let open = format!("{common}{sessions}").replace("'127.0.0.1:0'", "'0.0.0.0:0'");
    let (_other, open) = config(&open);
    let said = run(&open, &["envoy-config", "--shape", "sidecar", "--session", "mine", "--filter", "/f.wasm"]);
    assert!(said.code == 2 && said.err.contains("write 127.0.0.1:PORT"), "{}", said.err);
}

#[test]
fn a_failure_says_what_to_do() {
    let (dir, good) = config(GOOD);
    let (_other, bad) = config("credentials: {a: {preset: b}}\n");
    let missing = dir.path().join("none.yaml");
    for (config, args, words) in [
        (&good, &["session", "list"][..], "start it with `attache serve` or `attache up`"),
        (&good, &["session", "create", "a"], "--credential <NAME>"),
        (&good, &["session", "set-access-mode", "one", "admin"], "expected read-only or read-write"),
        (&good, &["envoy-config", "--envoy-version", "1.20.0"], "1.36"),
        (&good, &["chekc"], "check"),
        (&bad, &["check"], "no such preset; there are anthropic, "),
        (&missing, &["check"], "none.yaml: cannot be read: "),
    ] {
        let said = run(config, args);
        assert!(said.err.contains(words), "{args:?}: {}", said.err);
    }
}

#[test]
fn every_command_has_help() {
    let (_dir, config) = config(GOOD);
    let mut known = BTreeSet::new();
    let mut left = vec![Vec::<String>::new()];
    while let Some(command) = left.pop() {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let said = run(&config, &args);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
        assert!(said.out.contains("Usage: attache"), "{args:?}: {}", said.out);
        let listed = said.out.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        for line in listed.lines().take_while(|line| line.starts_with("  ")) {
            let (name, purpose) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            assert!(!purpose.trim().is_empty(), "{name} says what it does");
            if name != "help" {
                left.push([&command[..], &[name.to_owned()]].concat());
            }
        }
        known.insert(command.join(" "));
    }
    for promised in [
        "up",
        "serve",
        "check",
        "schema",
        "doctor",
        "envoy-config",
        "credential list",
        "credential reload",
        "feed workers",
        "feed changes",
        "audit tail",
        "audit verify",
        "session create",
        "session list",
        "session show",
        "session env",
        "session set-access-mode",
        "session revoke",
    ] {
        assert!(known.contains(promised), "{promised}: {known:?}");
    }
    assert!(!known.iter().any(|command| command.contains("become")), "what is internal is not listed");
    let version = run(&config, &["--version"]);
    assert_eq!((version.code, version.out.trim()), (0, concat!("attache ", env!("CARGO_PKG_VERSION"))));
}
