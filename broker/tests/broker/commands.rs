//! The command line, as its own process.

use crate::world::{SECRET, World};
use attache_broker::state_dir::announced;
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Attache<'a>(&'a World);

impl Attache<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
        command.arg("--config").arg(self.0.temp.path().join("attache.yaml")).args(args);
        command.env_remove("ATTACHE_LOG").env_remove("ATTACHE_STATE_DIR").env_remove("ATTACHE_INSTANCE_ID");
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        assert!(!text.contains(SECRET), "{args:?}: {text}");
        (status.code().unwrap(), text)
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, text) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn serve(&self) -> Serving {
        let mut command = self.command(&["serve"]);
        let child = Serving(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while announced(&self.0.config.state_dir).unwrap().is_none() {
            assert!(Instant::now() < deadline, "serves in time");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

/// A serving process that does not outlive its test.
struct Serving(Child);

impl Serving {
    /// Asks it to end; answers with its exit code and all it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(self.0.stderr.as_mut().unwrap(), &mut said).unwrap();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut said).unwrap();
        (self.0.wait().unwrap().code(), said)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_operators_day() {
    let world = World::stopped();
    let attache = Attache(&world);
    let (code, text) = attache.run(&["session", "list"]);
    assert!(code == 1 && text.contains("no broker runs for this config"), "{text}");

    let (code, text) = attache.run(&["doctor"]);
    assert!(code == 0 && text.contains("WARN no broker runs for this config"), "{text}");

    let mut serving = attache.serve();
    let (_, text) = attache.run(&["doctor"]);
    assert!(text.contains("the running broker") && !text.contains("WARN"), "{text}");
    let (code, text) = attache.run(&["serve"]);
    assert!(code == 1 && text.contains(&format!("process {}", serving.0.id())), "{text}");

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", serving.0.id())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "no core file ever holds a secret");

    let made = ["session", "create", "made", "--credential", "github", "--access-mode", "read-only", "--ttl", "15m"];
    assert_eq!(attache.run(&made), (0, "made is live; give its agent: attache session env made\n".into()));
    let (_, list) = attache.run(&["session", "list"]);
    assert!(list.starts_with("NAME      STATE  ACCESS      CREDENTIALS"), "{list}");
    assert_eq!(attache.json(&["session", "list"]).as_array().unwrap().len(), 2);

    let env = attache.json(&["session", "env", "made"]);
    let placeholder = env["GITHUB_TOKEN"].as_str().unwrap();
    let (_, lines) = attache.run(&["session", "env", "made"]);
    assert!(lines.contains(&format!("export GITHUB_TOKEN='{placeholder}'\n")), "{lines}");

    let (code, text) = attache.run(&["session", "set-access-mode", "made", "read-write"]);
    assert!(code == 0 && text.starts_with("made is read-write: applied on 0/0 workers in "), "{text}");
    assert_eq!(attache.json(&["session", "show", "made"])["access_mode"], "read-write");
    assert_eq!(attache.run(&["session", "revoke", "made"]).0, 0);
    assert_eq!(attache.run(&["session", "revoke", "made"]).0, 1);
    assert_eq!(attache.json(&["session", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(attache.json(&["session", "list", "--all"]).as_array().unwrap().len(), 2);
    assert_eq!(attache.json(&["credential", "list"])[0]["error"], Value::Null);

    let (code, said) = serving.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(SECRET) && !said.contains(placeholder), "{said}");

    let (_, stop) = attache.run(&["audit", "query", "--kind", "stop", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&stop).unwrap()["decision"], Value::Null);
    let (_, tail) = attache.run(&["audit", "tail", "-n", "1", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&tail).unwrap()["kind"], "checkpoint");
    let (code, text) = attache.run(&["audit", "verify"]);
    assert!(code == 0 && text.contains("records, unbroken"), "{text}");
    let log = std::fs::read_to_string(&world.config.audit.path).unwrap();
    std::fs::write(&world.config.audit.path, log.replacen("\"create\"", "\"delete\"", 1)).unwrap();
    let (code, text) = attache.run(&["audit", "verify"]);
    assert!(code == 1 && text.contains("audit.jsonl:4: the line was changed"), "{text}");
}

#[test]
fn exit_codes_tell_usage_from_config_from_failure() {
    let world = World::stopped();
    let attache = Attache(&world);
    assert_eq!(attache.run(&["session", "create", "n"]).0, 2);
    assert_eq!(attache.run(&["session", "set-access-mode", "n", "admin"]).0, 2);
    assert_eq!(attache.run(&["session", "show", "../x"]).0, 2);
    assert_eq!(attache.run(&["audit", "verify"]).0, 1, "there is no log yet");
    std::fs::write(world.temp.path().join("attache.yaml"), "nonsense: true").unwrap();
    for args in [&["serve"][..], &["session", "list"], &["audit", "tail"]] {
        assert_eq!(attache.run(args).0, 64, "{args:?}");
    }
}
