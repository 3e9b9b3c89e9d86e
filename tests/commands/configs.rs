//! What is wrong with a config is told at once, with its place and what to do.

use crate::{GOOD, config, run, said, up};

/// Eight errors on eight lines.
const WRONG: &str = "instance: Not a name
listen: {proxy: nowhere, data_plane: '0.0.0.0:3031'}
credentials:
  a: {source: {file: ../up}, inject: bearer, destinations: [{host: A.test}]}
  b: {inject: bearer, destinations: [{host: b.test}]}
  c: {source: {env: C}, destinations: [{host: c.test}]}
  d: {source: {env: D}, inject: bearer}
  e: {preset: githbu}
sessions:
  - {name: one, credentials: [nobody]}
surprise: true
";

#[test]
fn all_errors_at_once_each_with_its_line_and_what_to_do() {
    let (_dir, path) = config(WRONG);
    let said = run(&path, &["check"]);
    let file = path.display();
    assert_eq!((said.code, said.out.as_str()), (64, ""), "{}", said.err);
    for (place, what) in [
        ("1:11: instance: ", "a name is made of a-z, 0-9, '-' and '_'"),
        ("2:17: listen.proxy: ", "expected IP:PORT, e.g. 127.0.0.1:3030"),
        ("2:38: listen.data_plane: ", "expected a loopback address, e.g. 127.0.0.1:3031, or unix:data.sock"),
        ("4:22: credentials.a.source.file: ", "without '..' and not absolute"),
        ("4:68: credentials.a.destinations[0].host: ", "write the host in lower case"),
        ("11:1: surprise: ", "unknown"),
    ] {
        let line = format!("{file}:{place}");
        let told = said.err.lines().find(|told| told.starts_with(&line));
        assert!(told.is_some_and(|told| told.contains(what)), "{line}…{what}\n{}", said.err);
    }

    // What stands in the right form is judged by its meaning.
    let meaning: Vec<&str> =
        WRONG.lines().filter(|line| !["i", "l", "su"].iter().any(|p| line.starts_with(p))).collect();
    let meaning = meaning.join("\n").replace("../up", "up").replace("A.test", "a.test");
    let (_dir, path) = config(&meaning);
    let said = run(&path, &["check"]);
    let file = path.display();
    assert_eq!(said.code, 64);
    for (place, what) in [
        ("3:3: credentials.b: ", "Add `source: {env: VARIABLE}`, `source: {file: NAME}`"),
        ("4:40: credentials.c.destinations[0]: ", "Add `inject: bearer`"),
        ("5:3: credentials.d: ", "Add `destinations: [{host: HOST}]`"),
        ("6:15: credentials.e.preset: ", "no such preset; there are anthropic, anthropic-oauth, codex, "),
        ("8:31: sessions[0].credentials[0]: ", "no credential has this name"),
    ] {
        let line = format!("{file}:{place}");
        let told = said.err.lines().find(|told| told.starts_with(&line));
        assert!(told.is_some_and(|told| told.contains(what)), "{line}…{what}\n{}", said.err);
    }
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let (_dir, path) = config(WRONG);
    for command in [&["check"][..], &["session", "list"], &["envoy-config"], &["doctor"]] {
        let said = run(&path, &[command, &["--json"]].concat());
        assert_eq!(said.code, 64, "{command:?}");
        let json = said.json();
        let errors = json["errors"].as_array().expect("a list");
        assert!(json["ok"] == false && errors.len() >= 6, "{json:#}");
        let first = &errors[0];
        assert_eq!(first["file"], path.display().to_string());
        assert_eq!((first["line"].as_u64(), first["path"].as_str()), (Some(1), Some("instance")), "{json:#}");
        assert!(errors.iter().all(|error| error["problem"].is_string() && error["column"].is_u64()), "{json:#}");
    }
}

#[test]
fn syntax_and_files_are_errors_too() {
    let (dir, path) = config("credentials: [\n");
    let told = run(&path, &["check"]);
    assert!(told.code == 64 && told.err.contains("attache.yaml:") && told.err.contains("not YAML"), "{}", told.err);
    std::fs::write(&path, "credentials: {}\ncredentials: {}\n").expect("ours");
    assert_eq!(run(&path, &["check"]).code, 64, "a key that stands twice");
    assert_eq!(run(dir.path(), &["check"]).code, 64, "a directory");
    std::fs::write(&path, GOOD).expect("ours");
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&path, anybody).expect("ours");
    let told = run(&path, &["check"]);
    assert!(told.code == 64 && told.err.contains("chmod o-w"), "{}", told.err);
}

#[test]
fn check_says_what_a_good_config_means() {
    let (dir, path) = config(GOOD);
    let said = run(&path, &["check"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for words in ["The config is good", "credential lab", "env LAB_KEY", "lab.test:443", "session one: read-only"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    let json = run(&path, &["check", "--json"]).json();
    assert_eq!((&json["ok"], &json["credentials"][0]["name"]), (&true.into(), &"lab".into()), "{json:#}");
    assert_eq!(json["state_dir"], dir.path().join("state/default").display().to_string());
    let schema = run(&path, &["schema"]).json();
    assert_eq!(schema["title"], "attache.yaml");
}

#[test]
fn flags_and_environment_name_config_instance_and_state() {
    let (dir, path) = config(GOOD);
    let elsewhere = dir.path().join("elsewhere").display().to_string();
    let args = ["check", "--json", "--instance-id", "second", "--state-dir", &elsewhere];
    let json = run(&path, &args).json();
    assert_eq!((&json["instance"], &json["state_dir"]), (&"second".into(), &format!("{elsewhere}/second").into()));
    let mut by_environment = up::attache(&["check", "--json"], &path);
    by_environment.env("ATTACHE_INSTANCE_ID", "second").env("ATTACHE_STATE_DIR", &elsewhere);
    assert_eq!(said(&mut by_environment).json(), json);

    // Without any config: what the environment holds of the presets' secrets.
    let mut bare = std::process::Command::new(attache_tests::util::broker_bin());
    bare.args(["check", "--json"]).env_clear().env("HOME", dir.path()).env("OPENAI_API_KEY", "sk-never-shown-00000");
    let said = said(&mut bare);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("openai") && !said.out.contains("never-shown"), "{}", said.out);
}

#[test]
fn a_port_that_others_could_bind_is_warned_of() {
    let (_dir, path) = config(GOOD);
    let words = "is sent the data plane's token";
    let told = |args: &[&str]| run(&path, args).out;
    assert!(!told(&["check"]).contains("warning") && !told(&["doctor"]).contains(words), "the default is a socket");
    assert_eq!(run(&path, &["check", "--json"]).json()["warnings"], serde_json::json!([]));
    std::fs::write(&path, GOOD.replace("listen: {", "listen: {data_plane: '127.0.0.1:3031', ")).expect("ours");
    for command in ["check", "doctor"] {
        let said = run(&path, &[command]);
        assert_eq!(said.code, 0, "it may be so: {}", said.err);
        let line = said.out.lines().find(|line| line.contains(words));
        assert!(line.is_some_and(|line| line.contains("unix:data-plane.sock")), "{command}: {}", said.out);
    }
    let json = run(&path, &["check", "--json"]).json();
    assert_eq!(json["data_plane"], "127.0.0.1:3031");
    assert!(json["warnings"][0].as_str().is_some_and(|warning| warning.contains(words)), "{json:#}");
}

#[test]
fn a_proxy_that_other_machines_reach_is_warned_of() {
    let words = "other machines reach it";
    let open = GOOD.replace("127.0.0.1:0", "0.0.0.0:0");
    let bound = open.replace("access_mode: read-only", "access_mode: read-only, bind: {source: 10.0.0.0/8}");
    for (yaml, warns) in [(GOOD, false), (&open, true), (&bound, false)] {
        let (dir, path) = config(yaml);
        // Nothing is started on a filter that is not there.
        let mut up = up::attache(&["up"], &path);
        up.env("LAB_KEY", "a-secret").env("ATTACHE_FILTER", dir.path().join("none.wasm"));
        let said = [run(&path, &["check"]), run(&path, &["doctor"]), said(&mut up)];
        let codes = said.each_ref().map(|said| said.code);
        assert_eq!(codes, [0, 0, 1], "it may be so: {}", said[2].err);
        for said in said {
            let text = said.out + &said.err;
            let line = text.lines().find(|line| line.contains(words)).unwrap_or_default();
            assert_eq!(line.contains("is 0.0.0.0:") && line.contains("a placeholder of one"), warns, "{text}");
        }
    }
}
