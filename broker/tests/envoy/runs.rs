//! `attache up` runs Envoy, and never leaves one behind.

use crate::{CONFIG, Place};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running `attache up`, and what it said when it was ready.
struct Up {
    child: Child,
    ready: Value,
}

impl Up {
    fn start(place: &Place) -> Self {
        let mut command = place.command(&["up", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str(&line) else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("attache up: {:?}\n{said}", child.wait());
        };
        Self { child, ready }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ready["proxy"].as_str().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn envoy(&self) -> u64 {
        self.ready["envoy_pid"].as_u64().unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gone, or a zombie whose parent does not look.
fn is_gone(pid: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_prints_what_agents_need_and_ends_in_order() {
    let place = Place::new(CONFIG);
    let mut up = Up::start(&place);
    let session = &up.ready["sessions"][0];
    assert_eq!(session["name"], "dev");
    assert!(session["env"]["GITHUB_TOKEN"].as_str().unwrap().starts_with("ghp_ATTACHE"));
    let base = format!("http://{}/api.openai.com/v1", up.ready["proxy"].as_str().unwrap());
    assert_eq!(session["env"]["OPENAI_BASE_URL"], base);
    assert!(up.get("/health").starts_with("HTTP/1.1 200"));

    up.signal("TERM");
    assert!(up.child.wait().unwrap().success());
    assert!(is_gone(up.envoy()));
}

/// The filter here is a module that decides nothing and lets everything go on: what holds is the
/// route guard and the assertion behind it.
#[test]
fn what_no_filter_decided_on_goes_nowhere() {
    let place = Place::new(CONFIG);
    let up = Up::start(&place);
    for path in ["/api.github.com/user", "/lab.lan/x?key=1", "/api.openai.com/"] {
        let answer = up.get(path);
        assert!(answer.starts_with("HTTP/1.1 421"), "{path}: {answer}");
        assert!(answer.contains("x-attache-reason: destination_mismatch"), "{path}: {answer}");
    }
    let answer = up.get("/evil.example/");
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("host_not_allowed"), "{answer}");
}

#[test]
fn envoy_ends_with_attache_however_that_ends() {
    let place = Place::new(CONFIG);
    let up = Up::start(&place);
    let envoy = up.envoy();
    up.signal("KILL");
    eventually("envoy ends", || is_gone(envoy));
}

#[test]
fn envoy_gets_nothing_of_our_environment() {
    let place = Place::new(CONFIG);
    let up = Up::start(&place);
    // Root's alone by now, or readable and empty.
    let environment = std::fs::read(format!("/proc/{}/environ", up.envoy())).unwrap_or_default();
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
}

#[test]
fn an_envoy_that_ends_ends_attache_and_says_why() {
    let place = Place::new(CONFIG);
    std::fs::write(place.path("empty.wasm"), b"no module").unwrap();
    let output = place.run(&["up"]);
    let said = crate::errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Envoy ended") && said.contains("wasm"), "{said}");
    let lock = Path::new(&place.path("state/default/runtime.json")).exists();
    assert!(!lock, "the broker has ended in order");
}

#[test]
fn another_filter_than_the_pinned_one_does_not_run() {
    let place = Place::new(CONFIG);
    let output = place.run(&["up", "--filter-sha256", &"0".repeat(64)]);
    let said = crate::errors(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--filter-sha256"), "{said}");
}

/// Who stands in a directory has not chosen what is in it: a checkout may hold anybody's Envoy.
#[test]
fn nothing_is_run_because_the_operator_stands_near_it() {
    let (place, installed) = (Place::new(CONFIG), tempfile::tempdir().unwrap());
    let attache = installed.path().join("attache");
    std::fs::copy(env!("CARGO_BIN_EXE_attache"), &attache).unwrap();
    let (envoy, ran) = (place.path(".venv/lib/python3.11/site-packages/envoy/_bin/envoy"), place.path("ran"));
    std::fs::create_dir_all(envoy.parent().unwrap()).unwrap();
    std::fs::write(&envoy, format!("#!/bin/sh\n: > {}\n", ran.display())).unwrap();
    std::fs::set_permissions(&envoy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(place.path("target/filter")).unwrap();
    std::fs::write(place.path("target/filter/attache_filter.wasm"), crate::module::EMPTY).unwrap();

    let from_there = |args: &[&str]| {
        let mut command = Command::new(&attache);
        command.args(args).arg("--config").arg(place.path("attache.yaml")).current_dir(place.dir.path());
        let output = command.env_clear().env("GITHUB_TOKEN", "ghp_real").env("PATH", "/nonexistent").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        crate::errors(&output)
    };
    assert!(from_there(&["up"]).contains("no Envoy found"));
    assert!(from_there(&["envoy-config"]).contains("no filter found"));
    assert!(!ran.exists());
}
