//! The command line, as its own process.

use crate::world::{SECRET, World, mode};
use attache_broker::state_dir::announced;
use serde_json::Value;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Attache<'a>(&'a World);

impl Attache<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
        command.arg("--config").arg(self.0.temp.path().join("attache.yaml")).args(args);
        command.env_remove("ATTACHE_LOG").env_remove("ATTACHE_STATE_DIR").env_remove("ATTACHE_INSTANCE_ID");
        command.env_remove("ATTACHE_RUNTIME_URL");
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
    assert!(code == 1 && text.contains("no broker answers at "), "{text}");

    let (code, text) = attache.run(&["doctor"]);
    assert!(code == 0 && text.contains("WARN no broker answers at "), "{text}");

    let mut serving = attache.serve();
    let (_, text) = attache.run(&["doctor"]);
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert!(text.contains("the running broker") && warnings.len() == 1, "{text}");
    assert!(warnings[0].starts_with("WARN listen.data_plane is a TCP port"), "as this world's is: {text}");
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
    for wrong in [["--kind", "used"], ["--kind", "use,denied"], ["--decision", "allow"]] {
        let (code, text) = attache.run(&[&["audit", "query"][..], &wrong].concat());
        assert!(code == 2 && text.contains("[possible values: "), "{wrong:?}: {text}");
    }
    assert_eq!(attache.run(&["audit", "verify"]).0, 1, "there is no log yet");
    std::fs::write(world.temp.path().join("attache.yaml"), "nonsense: true").unwrap();
    for args in [&["serve"][..], &["session", "list"], &["audit", "tail"]] {
        assert_eq!(attache.run(args).0, 64, "{args:?}");
    }
}

#[test]
fn an_elevation_is_told_in_words_and_listed_with_its_end() {
    let world = World::stopped();
    let attache = Attache(&world);
    let _serving = attache.serve();
    let elevate = ["session", "set-access-mode", "reviewer", "read-write", "--for", "15m"];
    let (code, text) = attache.run(&elevate);
    assert!(code == 1 && text.contains("set it to read-only, then elevate it for a time"), "{text}");
    assert_eq!(attache.run(&["session", "set-access-mode", "reviewer", "read-only"]).0, 0);
    let (code, text) = attache.run(&elevate);
    // "for 15m", or a second less on a busy machine.
    assert!(code == 0 && text.starts_with("reviewer is read-write for 1"), "{text}");
    assert!(text.contains(": applied on 0/0 workers in "), "{text}");
    let (_, list) = attache.run(&["session", "list"]);
    assert!(list.contains("read-write for 1"), "{list}");
    let left = attache.json(&["session", "show", "reviewer"])["elevated_ms"].as_u64().unwrap();
    assert!((800_000..=900_000).contains(&left), "{left}");
    let (code, text) = attache.run(&["session", "set-access-mode", "reviewer", "read-only", "--for", "15m"]);
    assert!(code == 2 && text.contains("--for goes with read-write"), "{text}");
    assert_eq!(attache.run(&["session", "set-access-mode", "reviewer", "read-write", "--for", "soon"]).0, 2);
    let changes = attache.json(&["feed", "changes"]);
    assert_eq!((changes.as_array().unwrap().len(), &changes[0]["kind"]), (2, &"session".into()));
    assert_eq!(attache.json(&["feed", "workers"]), serde_json::json!([]));
    let (_, table) = attache.run(&["feed", "changes", "-n", "1"]);
    assert!(table.starts_with("TOLD") && table.lines().count() == 2, "{table}");
}

#[test]
fn a_changed_secret_is_in_force_when_reload_says_so() {
    let world = World::stopped();
    let attache = Attache(&world);
    let _serving = attache.serve();
    let fingerprint = || attache.json(&["credential", "list"])[0]["fingerprint"].as_str().unwrap().to_owned();
    let before = fingerprint();
    world.write_secret("github", "the-next-real-secret");
    let (code, text) = attache.run(&["credential", "reload", "github"]);
    let after = fingerprint();
    assert_ne!(before, after);
    let told = format!("github is version {after}: applied on 0/0 workers in ");
    assert!(code == 0 && text.starts_with(&told), "{text}");
    assert_eq!(attache.json(&["credential", "rotate", "github"])["credential"]["fingerprint"], after);
    std::fs::remove_file(world.secret_path("github")).unwrap();
    let (code, text) = attache.run(&["credential", "reload", "github"]);
    assert!(code == 1 && text.contains("github is version none") && text.contains("no source has it"), "{text}");
    let (code, text) = attache.run(&["credential", "reload", "none"]);
    assert!(code == 1 && text.contains("no credential is called none"), "{text}");
}

/// With a stand-in for `op`, whose contract is in src/sources/onepassword/tests.rs.
#[test]
fn a_credential_is_tested_at_its_source_and_never_shown() {
    let world = World::stopped();
    let (config, op) = (world.temp.path().join("attache.yaml"), world.temp.path().join("op"));
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n[ -z \"$OP_SERVICE_ACCOUNT_TOKEN$CARGO_MANIFEST_DIR\" ] || exit 9\n\
                  [ -e vault ] && cat vault || { echo \"[ERROR] You are not currently signed in: s3cret\" >&2; exit 1; }\n";
    std::fs::write(&op, script).unwrap();
    std::fs::set_permissions(&op, PermissionsExt::from_mode(0o700)).unwrap();
    let more =
        "sources: {onepassword: {enabled: true, op_path: ./op, references: {github: 'op://Private/GitHub/token'}}}\n";
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, written + more).unwrap();
    std::fs::write(world.temp.path().join("vault"), SECRET).unwrap();
    let attache = Attache(&world);
    let _serving = attache.serve();

    let (code, text) = attache.run(&["credential", "test", "github"]);
    let listed = &attache.json(&["credential", "list"])[0];
    let told = format!(
        "github is version {} (static), from 1password op://Private/GitHub/token, known for ",
        text_of(&listed["fingerprint"])
    );
    assert!(code == 0 && text.starts_with(&told), "{text}");
    let (_, table) = attache.run(&["credential", "list"]);
    let columns: Vec<_> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "RUNG", "SOURCE", "FINGERPRINT", "AGE", "EXPIRES", "NEXT", "ROTATES", "WORKERS"]);
    assert_eq!(attache.json(&["credential", "test", "github"])["fingerprint"], listed["fingerprint"]);

    std::fs::remove_file(world.temp.path().join("vault")).unwrap();
    let (code, text) = attache.run(&["credential", "test", "github"]);
    let wanted = "github: 1password op://Private/GitHub/token: `op` is not signed in, or its token is not accepted; \
                  start the broker with OP_SERVICE_ACCOUNT_TOKEN";
    assert!(code == 1 && text.contains(wanted) && !text.contains("s3cret"), "{text}");
    let (_, table) = attache.run(&["credential", "list"]);
    assert!(table.contains("`op` is not signed in"), "the file, which has it, is not taken:\n{table}");
    let (code, text) = attache.run(&["credential", "test", "none"]);
    assert!(code == 1 && text.contains("no credential is called none"), "{text}");
    let (_, text) = attache.run(&["check"]);
    assert!(text.contains("from    1password op://Private/GitHub/token, else file "), "{text}");
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn an_environment_goes_to_a_private_file_or_a_manifest() {
    let world = World::stopped();
    let attache = Attache(&world);
    let _serving = attache.serve();
    let env = attache.json(&["session", "env", "reviewer"]);
    let path = world.temp.path().join("agent.env");
    let file = path.to_str().unwrap();
    let write = || attache.run(&["session", "env", "reviewer", "--env-file", file]);
    assert_eq!((write(), write()), ((0, String::new()), (0, String::new())), "once, and over its like");
    assert_eq!(mode(&path), 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let read: serde_json::Map<_, _> =
        text.lines().map(|line| line.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.into())).collect();
    assert_eq!(Value::Object(read), env);
    set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let (code, told) = write();
    assert!(code == 1 && told.contains(&format!("chmod 600 {file}")), "{told}");
    std::fs::remove_file(&path).unwrap();
    let elsewhere = world.temp.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let (code, told) = write();
    assert!(code == 1 && told.contains("is a symbolic link") && !elsewhere.exists(), "{told}");

    let (code, manifest) =
        attache.run(&["session", "env", "reviewer", "--kubernetes-secret", "agent", "--namespace", "team-a"]);
    assert_eq!(code, 0, "{manifest}");
    assert!(
        manifest.starts_with("apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"agent\"\n  namespace: \"team-a\"\n")
    );
    let placeholder = env["GITHUB_TOKEN"].as_str().unwrap();
    assert!(manifest.contains(&format!("\n  GITHUB_TOKEN: \"{placeholder}\"\n")), "{manifest}");
    for wrong in [
        &["--kubernetes-secret", "Not_A_Label"][..],
        &["--namespace", "team-a"],
        &["--kubernetes-secret", "a", "--env-file", "b"],
        &["--kubernetes-secret", "a", "--json"],
    ] {
        assert_eq!(attache.run(&[&["session", "env", "reviewer"], wrong].concat()).0, 2, "{wrong:?}");
    }
}

#[test]
fn a_command_goes_to_the_broker_that_it_is_told_and_to_no_other() {
    let world = World::stopped();
    let attache = Attache(&world);
    let serving = attache.serve();
    let announcement = world.config.state_dir.join("runtime.json");
    let socket = format!("unix:{}", world.config.listen.control.display());
    // Without any config: the flag, then the variable.
    let elsewhere = |args: &[&str], variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
        command.args(args).env_clear().env("HOME", world.temp.path());
        command.envs(variable.map(|value| ("ATTACHE_RUNTIME_URL", value)));
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    };
    let file = announcement.to_str().unwrap();
    for (args, variable) in [
        (&["session", "show", "reviewer", "--runtime", file][..], None),
        (&["session", "show", "reviewer", "--runtime", &socket], None),
        (&["session", "show", "reviewer"], Some(&*socket)),
        (&["session", "show", "reviewer"], Some(file)),
        (&["session", "show", "reviewer", "--runtime", &socket], Some("unix:/nonexistent.sock")),
    ] {
        let (code, text) = elsewhere(args, variable);
        assert!(code == 0 && text.contains("reviewer"), "{args:?} {variable:?}: {text}");
    }
    // A broker runs, and its runtime.json lies there: nobody goes looking for either.
    let (code, text) = elsewhere(&["session", "list"], None);
    let default = world.temp.path().join(".attache/default/control.sock");
    assert!(code == 1 && text.contains(&format!("no broker answers at {}", default.display())), "{text}");
    assert!(text.contains("`attache serve`") && text.contains("--runtime") && !default.exists(), "{text}");
    let (code, text) = elsewhere(&["session", "list", "--runtime", "unix:/nonexistent.sock"], None);
    assert!(code == 1 && text.contains("no broker answers at /nonexistent.sock"), "{text}");
    let (code, text) = elsewhere(&["session", "list", "--runtime", "http://127.0.0.1:3031"], None);
    assert!(code == 2 && text.contains("expected unix:PATH"), "{text}");

    let told: Value = serde_json::from_slice(&std::fs::read(&announcement).unwrap()).unwrap();
    assert_eq!((&told["instance"], &told["pid"]), (&"default".into(), &serving.0.id().into()));
    assert_eq!(told["url"], format!("http://{}", told["data_plane"].as_str().unwrap()));
    assert_eq!(told["cache_dir"], world.config.state_dir.join("cache").display().to_string());
    set_permissions(&announcement, Permissions::from_mode(0o666)).unwrap();
    let (code, text) = elsewhere(&["session", "list", "--runtime", file], None);
    assert!(code == 1 && text.contains(&format!("chmod 600 {file}")), "{text}");
    drop(serving);
    std::fs::remove_file(&announcement).unwrap();
    let (code, text) = elsewhere(&["session", "list", "--runtime", file], None);
    assert!(code == 1 && text.contains("there is no "), "{text}");
}

#[test]
fn a_shell_is_never_given_what_is_no_variable() {
    let world = World::stopped();
    let attache = Attache(&world);
    for (name, value) in [("A;touch x", "v"), ("A", "v\nLD_PRELOAD=x")] {
        let socket = world.temp.path().join("other.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let body = serde_json::json!([{"name": "OK", "value": "v"}, {"name": name, "value": value}]).to_string();
        let broker = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).unwrap() > 0);
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        let runtime = format!("unix:{}", socket.display());
        let (code, text) = attache.run(&["session", "env", "x", "--shape", "gateway", "--runtime", &runtime]);
        broker.join().unwrap();
        assert!(code == 1 && text.contains("which is no variable of an environment"), "{text}");
        assert!(!text.contains("export") && !text.contains("LD_PRELOAD"), "{text}");
    }
}

#[test]
fn an_agent_elsewhere_is_told_where_the_proxy_is_for_it() {
    let world = World::stopped();
    let attache = Attache(&world);
    let _serving = attache.serve();
    let env = |args: &[&str]| attache.json(&[&["session", "env", "reviewer"], args].concat());
    let here = env(&[]);
    assert_eq!(here["GITHUB_API_URL"], "http://127.0.0.1:3030/api.a.test/v3");
    let there = env(&["--proxy", "envoy:3030"]);
    assert_eq!(there["GITHUB_API_URL"], "http://envoy:3030/api.a.test/v3");
    assert_eq!(there["GITHUB_TOKEN"], here["GITHUB_TOKEN"]);

    let behind = env(&["--shape", "forward-proxy", "--proxy", "envoy:3030"]);
    let token = here["ATTACHE_SESSION_TOKEN"].as_str().unwrap();
    assert_eq!(behind["HTTPS_PROXY"], format!("http://attache:{token}@envoy:3030"));
    assert_eq!(behind["GITHUB_TOKEN"], here["GITHUB_TOKEN"]);
    for absent in ["GITHUB_API_URL", "SSL_CERT_FILE"] {
        assert_eq!(behind[absent], Value::Null, "{absent}");
    }
    for bad in ["envoy", "envoy:0", "a b:1", "envoy:3030/x", "u@envoy:1", "envoy:1&x=y"] {
        assert_eq!(attache.run(&["session", "env", "reviewer", "--proxy", bad]).0, 2, "{bad}");
    }
}

#[test]
fn a_container_finds_its_environment_in_a_directory() {
    let world = World::stopped();
    let attache = Attache(&world);
    let _serving = attache.serve();
    let dir = world.temp.path().join("agent");
    std::fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    for (shape, has_ca) in [("gateway", false), ("forward-proxy", true)] {
        let args = ["session", "env", "reviewer", "--shape", shape, "--proxy", "envoy:3030", "--dir", dir];
        assert_eq!(attache.run(&args), (0, String::new()), "{shape}");
        let script = format!(". {dir}/env.sh; printf '%s\\n' \"$GITHUB_TOKEN\" \"$SSL_CERT_FILE\"");
        let shown = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let ca = if has_ca { format!("{dir}/ca.pem") } else { String::new() };
        assert!(shown.starts_with("ghp_ATTACHE") && shown.ends_with(&format!("\n{ca}\n")), "{shape}: {shown}");
    }
    let authorities = std::fs::read_to_string(format!("{dir}/ca.pem")).unwrap();
    let (_, ours) = attache.run(&["ca", "export"]);
    assert!(authorities.contains(ours.trim()) && !authorities.contains("PRIVATE"));
}

#[test]
fn ready_says_whether_it_can_grant_and_what_is_in_the_way() {
    let world = World::stopped();
    let attache = Attache(&world);
    assert_eq!(attache.run(&["ready"]).0, 1, "nobody is there");
    let _serving = attache.serve();
    let (code, said) = attache.run(&["ready"]);
    assert!(code == 0 && said.starts_with("ready: 0 workers\n"), "{said}");
    assert_eq!(attache.json(&["ready"])["ready"], true);
    let secrets = world.config.state_dir.join("secrets");
    for name in ["github", "other"] {
        std::fs::remove_file(secrets.join(name)).unwrap();
        attache.run(&["credential", "reload", name]);
    }
    let (code, said) = attache.run(&["ready"]);
    assert!(code == 1 && said.starts_with("not ready: ") && said.contains("credential github"), "{said}");
}
