//! `attache up`: starts everything, says what to export, and leaves nothing behind.

use std::net::TcpListener;
use std::path::Path;

use attache_tests::oracle::Evidence;
use attache_tests::stack::{GITHUB, SOON};
use attache_tests::{Agent, Ca, Oracle, Secrets, Upstream, envoy, util};
use serde_json::Value;

use crate::up::{Up, attache};
use crate::{GOOD, config, said};

fn envoy_of(ready: &Value) -> u32 {
    ready["envoy_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("Envoy's process")
}

/// Whether a process is there; one that has ended and waits for its parent is not.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn up_runs_the_oldest_envoy_as_a_gateway_and_not_as_a_forward_proxy() {
    let oldest = envoy::served().remove(0);
    let Some(binary) = envoy::released(&oldest) else { return };
    let (_dir, path) = config(GOOD);
    let env = [("ATTACHE_ENVOY", binary.to_str().expect("a path")), ("LAB_KEY", GITHUB)];
    let mut up = Up::start(&path, &["--json"], &env);
    let ready = up.ready().await;
    let proxy = ready["proxy"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    let bearer = format!("Bearer {}", ready["sessions"][0]["env"]["LAB_KEY"].as_str().expect("a placeholder"));
    let answer = Agent::new().request(proxy, "POST", "lab.test", "/x", &[("authorization", &bearer)], b"").await;
    assert_eq!(answer.header("x-attache-reason").as_deref(), Some("read_only"), "{}", answer.text());
    up.signal("INT");
    assert!(up.ended().await.success(), "{}", up.told());
    let mut up = Up::start(&path, &["--shape", "forward-proxy"], &env);
    assert!(!up.ended().await.success() && up.told().contains("is too old"), "{}", up.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn up_serves_an_agent_and_ctrl_c_ends_everything() {
    let ca = Ca::new();
    let secrets = Secrets::new([("lab", GITHUB)]);
    let upstream = Upstream::tls(&ca, &["lab.test"]).start().await;
    let dial = format!("{{address: '{}', ca_file: {}}}", upstream.addr(), ca.pem_path().display());
    let (dir, path) = config(&GOOD.replace("{address: '127.0.0.1:9'}", &dial));
    let oracle = Oracle::new(&secrets);
    oracle.audit(dir.path().join("state/default/audit.jsonl"));
    oracle.upstream("lab", &upstream, &[("lab", "lab.test:443")]);
    let evidence = Evidence::default();
    oracle.evidence(&evidence);
    oracle.exports("lab", "LAB_KEY");
    for name in ["up.err", "up.out", "state/default/logs/envoy.log", "state/default/logs/envoy-access.jsonl"] {
        oracle.log(name, dir.path().join(name));
    }

    let mut up = Up::start(&path, &["--json"], &[("LAB_KEY", GITHUB)]);
    let ready = up.ready().await;
    let proxy = ready["proxy"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    let session = &ready["sessions"][0];
    let placeholder = session["env"]["LAB_KEY"].as_str().expect("a placeholder");
    assert_eq!(session["name"], "one");
    evidence.add("one", "LAB_KEY", placeholder);
    let agent = oracle.agent();
    let healthy = agent.get(proxy, "anything", "/health", &[]).await;
    assert_eq!((healthy.status, healthy.text().as_str()), (200, ""));
    let bearer = format!("Bearer {placeholder}");
    let answer = agent.get(proxy, "lab.test", "/x", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.requests()[0].header("authorization"), Some(format!("Bearer {GITHUB}")));
    assert!(upstream.hits()[0].witness_len.is_some(), "with a witness");
    // Other commands find it, and doctor finds its Envoy.
    assert_eq!(said(&mut attache(&["session", "list"], &path)).code, 0);
    let examined = said(&mut attache(&["doctor"], &path));
    assert!(examined.code == 0 && examined.out.contains("envoy.sock"), "{}{}", examined.out, examined.err);
    oracle.reconcile().await;

    let (own, envoy) = (up.pid(), envoy_of(&ready));
    assert!(lives(own) && lives(envoy));
    // Envoy watches where it reads from, and would be woken by each line that it writes there.
    let bootstrap = std::fs::read_to_string(dir.path().join("state/default/envoy.json")).expect("its bootstrap");
    for descriptor in ["1", "2"] {
        let log = std::fs::read_link(format!("/proc/{envoy}/fd/{descriptor}")).expect("a log");
        let beside = log.parent().and_then(Path::to_str).expect("a plain path");
        assert!(
            !bootstrap.contains(&format!("\"{beside}/")) && bootstrap.contains("/data-plane-token.sds.json\""),
            "{beside}"
        );
    }
    // The record of a last request, still on its way, must not be lost.
    assert_eq!(agent.get(proxy, "lab.test", "/last", &[("authorization", &bearer)]).await.status, 200);
    up.signal("INT");
    assert!(up.ended().await.success(), "{}", up.told());
    util::eventually(SOON, || !lives(envoy)).await;
    assert!(std::net::TcpStream::connect(proxy).is_err(), "nobody listens any more");
    for left in ["control.sock", "runtime.json"] {
        assert!(!dir.path().join("state/default").join(left).exists(), "{left}");
    }
    let stop = said(&mut attache(&["audit", "query", "--kind", "stop", "--json"], &path));
    assert_eq!(stop.json()["decision"], "delivered", "every use is on record");
    assert_eq!(said(&mut attache(&["audit", "query", "--kind", "unaccounted"], &path)).out, "");
    oracle.reconcile().await;
}

/// Its VM took the count of the use along with its record; what went upstream is counted by Envoy.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_trapped_right_after_a_use_is_not_said_to_have_delivered() {
    let ca = Ca::new();
    let upstream = Upstream::tls(&ca, &["lab.test"]).start().await;
    let dial = format!("{{address: '{}', ca_file: {}}}", upstream.addr(), ca.pem_path().display());
    let (_dir, path) = config(&GOOD.replace("{address: '127.0.0.1:9'}", &dial));
    let trap = util::filter_trap_wasm();
    let trap = ("ATTACHE_FILTER", trap.to_str().expect("a plain path"));
    let mut up = Up::start(&path, &["--json"], &[("LAB_KEY", GITHUB), trap]);
    let ready = up.ready().await;
    let proxy = ready["proxy"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    let placeholder = ready["sessions"][0]["env"]["LAB_KEY"].as_str().expect("a placeholder");
    let oracle = Oracle::new(&Secrets::new([("lab", GITHUB)]));
    let lines = [("authorization", format!("Bearer {placeholder}")), ("x-attache-trap", "delete".into())];
    let lines = [(lines[0].0, lines[0].1.as_str()), (lines[1].0, lines[1].1.as_str())];
    let answer = oracle.agent().get(proxy, "lab.test", "/x", &lines).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    up.signal("TERM");
    assert!(up.ended().await.success(), "{}", up.told());
    let told = said(&mut attache(&["audit", "query", "--kind", "use,unaccounted,stop", "--json"], &path));
    let kinds = told.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let kinds: Vec<_> = kinds.map(|record| (record["kind"].to_string(), record["decision"].clone())).collect();
    assert_eq!(kinds, [("\"unaccounted\"".into(), Value::Null), ("\"stop\"".into(), Value::Null)], "{}", told.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_what_to_export() {
    let (_dir, path) = config(GOOD);
    let mut up = Up::start(&path, &[], &[("LAB_KEY", GITHUB)]);
    util::eventually(std::time::Duration::from_secs(30), || up.said().contains("ATTACHE_SESSION_TOKEN")).await;
    let (out, err) = (up.said(), up.told());
    let script = format!("{out}\nprintf %s \"$LAB_KEY\"");
    let shell = std::process::Command::new("sh").args(["-c", &script]).env_clear().output().expect("a shell");
    assert!(String::from_utf8_lossy(&shell.stdout).contains("ATTACHE"), "{out}");
    for word in ["config ", "state ", "broker ", "filter ", "envoy ", "ready "] {
        assert!(err.contains(&format!("attache: {word}")), "{word}: {err}");
    }
    assert!(!out.contains(GITHUB) && !err.contains(GITHUB));
    up.signal("TERM");
    assert!(up.ended().await.success(), "{}", up.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn however_it_dies_envoy_does_not_outlive_it() {
    let (_dir, path) = config(GOOD);
    let mut up = Up::start(&path, &["--json"], &[("LAB_KEY", GITHUB)]);
    let envoy = envoy_of(&up.ready().await);
    up.signal("KILL");
    up.ended().await;
    util::eventually(SOON, || !lives(envoy)).await;

    // What a killed one leaves is no hindrance to the next; and it says so when Envoy dies.
    let mut up = Up::start(&path, &["--json"], &[("LAB_KEY", GITHUB)]);
    let ready = up.ready().await;
    let envoy = envoy_of(&ready);
    let proxy = ready["proxy"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    let placeholder = ready["sessions"][0]["env"]["LAB_KEY"].as_str().expect("a placeholder");
    let oracle = Oracle::new(&Secrets::new([("lab", GITHUB)]));
    let bearer = format!("Bearer {placeholder}");
    assert_eq!(oracle.agent().get(proxy, "lab.test", "/x", &[("authorization", &bearer)]).await.status, 503);
    let killed = std::process::Command::new("kill").args(["-KILL", &envoy.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(up.ended().await.code(), Some(1));
    assert!(up.told().contains("Envoy ended (signal: 9"), "{}", up.told());
    let told = said(&mut attache(&["audit", "query", "--kind", "unaccounted,stop", "--json"], &path));
    let kinds = told.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let kinds: Vec<_> = kinds.map(|record| (record["kind"].to_string(), record["decision"].clone())).collect();
    assert_eq!(kinds, [("\"unaccounted\"".into(), Value::Null), ("\"stop\"".into(), Value::Null)], "{}", told.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_while_envoy_starts_ends_everything_too() {
    let (dir, path) = config(GOOD);
    let mut up = Up::start(&path, &["--json"], &[("LAB_KEY", GITHUB)]);
    util::eventually(SOON, || up.told().contains("attache: envoy ")).await;
    up.signal("INT");
    assert!(up.ended().await.success(), "{}", up.told());
    let bootstrap = dir.path().join("state/default/envoy.json").display().to_string();
    util::eventually(SOON, || !anybody_runs(&bootstrap)).await;
}

/// Whether any process has this text among its arguments.
fn anybody_runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|arguments| arguments.split(|byte| *byte == 0).any(|argument| argument == text.as_bytes()))
}

/// A config can lead a destination to what only Envoy and the operator may reach. Doctor sees it in the
/// bootstrap, and Envoy is not started.
#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_bootstrap_is_not_run() {
    let port = util::free_port();
    let dial = format!("{{address: 'localhost:{port}'}}");
    let to_port = GOOD.replace(
        "host: lab.test, upstream: {address: '127.0.0.1:9'}",
        &format!("host: lab.test, plaintext: true, upstream: {dial}"),
    );
    let to_broker = to_port.replace("listen: {", &format!("listen: {{data_plane: '127.0.0.1:{port}', "));
    let admin = format!("127.0.0.1:{port}");
    for (yaml, args, check) in [
        (&to_broker, &["--json"][..], "broker-reachable"),
        (&to_port, &["--json", "--admin", &admin], "admin-reachable"),
    ] {
        let (dir, path) = config(yaml);
        // As a process with a deadline: one that serves all the same would serve for ever.
        let mut up = Up::start(&path, args, &[("LAB_KEY", GITHUB)]);
        assert_eq!(up.ended().await.code(), Some(1), "{check}: {}", up.told());
        let told = up.told();
        for word in [check, "Envoy was not started", "  opens  ", "  fix    "] {
            assert!(told.contains(word), "{check}, {word}: {told}");
        }
        assert!(!told.contains("attache: envoy ") && up.said().is_empty(), "{check}: {told}");
        for never in ["envoy.json", "logs"] {
            assert!(!dir.path().join("state/default").join(never).exists(), "{check}: {never} was written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_taken_is_said() {
    let (dir, path) = config(GOOD);
    let taken = TcpListener::bind(util::any_port()).expect("loopback accepts a bind");
    let port = taken.local_addr().expect("an address").port();
    let written = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("ours");
        path
    };
    let proxy = written("proxy.yaml", GOOD.replace("proxy: '127.0.0.1:0'", &format!("proxy: '127.0.0.1:{port}'")));
    let door = written("door.yaml", GOOD.replace("proxy: '127.0.0.1:0'", &format!("data_plane: '127.0.0.1:{port}'")));
    let empty = written("empty.yaml", "state_dir: state\n".into());
    let garbage = written("garbage.wasm", "no module".into()).display().to_string();
    let wrong_digest = "0".repeat(64);
    let refuses = |config: &Path, args: &[&str], set: Option<(&str, &str)>, words: &[&str]| {
        let mut command = attache(&[&["up"], args].concat(), config);
        let said = said(command.env("LAB_KEY", GITHUB).envs(set));
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{words:?}: {}", said.err);
        for word in words {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
        assert!(!said.err.contains("panicked") && !said.err.contains(GITHUB), "{}", said.err);
    };
    refuses(&proxy, &[], None, &["is in use", "listen: {proxy: "]);
    refuses(&door, &[], None, &["cannot listen on 127.0.0.1:", "Address already in use"]);
    refuses(&empty, &[], None, &["no credential", "README.md", "GITHUB_TOKEN"]);
    for variable in ["ATTACHE_ENVOY", "ATTACHE_FILTER"] {
        let missing = format!("{variable}=/nonexistent/part: No such file");
        refuses(&path, &[], Some((variable, "/nonexistent/part")), &[&missing]);
    }
    refuses(&path, &["--filter", "/nonexistent/f.wasm"], None, &["/nonexistent/f.wasm: No such file"]);
    refuses(&path, &["--filter", &garbage], None, &["Envoy ended", "asm"]);
    refuses(&path, &["--filter-sha256", &wrong_digest], None, &["is not the one with this --filter-sha256"]);
    let bootstrap = dir.path().join("state/default/envoy.json").display().to_string();
    assert!(!anybody_runs(&bootstrap), "nothing is left running");
    drop(taken);
}
