//! How a child ends, and that its session ends with it.

use attache_tests::stack::{Plan, SOON};
use attache_tests::{attache, util};

use crate::{Running, made, nobody, output, run, run_under, ways};

#[tokio::test(flavor = "multi_thread")]
async fn its_exit_code_is_the_childs() {
    let stack = Plan::default().start().await;
    for way in ways() {
        for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("exec /nonexistent", 127)] {
            let (code, _, err) = output(run(&stack, &["--session", "writer", "--isolate", way], script));
            assert_eq!(code, Some(expected), "{way}: {script}: {err}");
        }
        for (command, expected) in [("/nonexistent", 127), ("/etc/passwd", 126)] {
            let args =
                ["run", "--proxy", &stack.proxy.to_string(), "--session", "writer", "--isolate", way, "--", command];
            let mut direct = std::process::Command::new(util::broker_bin());
            let ended = direct.args(args).env("ATTACHE_CONFIG", stack.site.config_path()).output().expect("it starts");
            assert_eq!(
                ended.status.code(),
                Some(expected),
                "{way}: {command}: {}",
                String::from_utf8_lossy(&ended.stderr)
            );
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_output_are_the_childs() {
    let stack = Plan::default().start().await;
    for way in ways() {
        let mut command = run(&stack, &["--session", "writer", "--isolate", way], "tr a-z A-Z; echo err >&2");
        let file = stack.dir().join("in");
        std::fs::write(&file, "hello").expect("a file");
        command.stdin(std::fs::File::open(&file).expect("a file"));
        let (code, out, err) = output(command);
        assert_eq!((code, out.as_str()), (Some(0), "HELLO"), "{way}: {err}");
        assert!(err.ends_with("err\n"), "{way}: {err}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_child_once() {
    let stack = Plan::default().start().await;
    // A process that counts, for each signal, how often it came.
    let script = "for s in INT TERM HUP QUIT USR1 USR2 WINCH; do trap \"echo $s\" $s; done; trap 'echo done; exit 3' CONT; \
                  echo ready; while :; do sleep 0.02; done";
    for way in ways() {
        // As from a terminal: what runs in the background, or by nohup, ignores some of them, and so would the child.
        let command =
            run_under(&stack, &["env", "--default-signal"], &["--session", "writer", "--isolate", way], script);
        let mut running = Running::start(&stack, command);
        running.says("ready").await;
        for name in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"] {
            running.signal(name);
            running.says(name).await;
        }
        running.signal("CONT");
        assert_eq!(running.ended().await.code(), Some(3), "{way}: {}", running.said());
        assert_eq!(running.said(), "ready\nINT\nTERM\nHUP\nQUIT\nUSR1\nUSR2\nWINCH\ndone\n", "{way}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_made_is_revoked_before_run_returns() {
    let stack = Plan::default().start().await;
    let flags = ["--credential", "github", "--access-mode", "read-only"];
    let mine = format!(
        "'{}' session list --json --config '{}'",
        util::broker_bin().display(),
        stack.site.config_path().display()
    );
    let (code, out, err) = output(run(&stack, &[&flags[..], &["--isolate", "never"]].concat(), &mine));
    assert_eq!(code, Some(0), "{err}");
    let listed: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let alive =
        listed.as_array().expect("a list").iter().find(|one| one["name"] != "writer" && one["name"] != "reader");
    let alive = alive.unwrap_or_else(|| panic!("it was not alive: {listed}"));
    assert_eq!((&alive["access_mode"], &alive["credentials"]), (&"read-only".into(), &serde_json::json!(["github"])));
    assert_eq!(made(&stack).as_deref(), Some("revoked"));

    let (_, _, err) = output(run(&stack, &["--session", "writer", "--isolate", "never"], "true"));
    let left = stack.broker.json(&["session", "show", "writer"]);
    assert_eq!(left["state"], "live", "one that was there is left alone: {err}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_it_takes_child_and_session_with_it() {
    for way in ways() {
        let stack = Plan::default().start().await;
        let script = "echo ready; exec sleep 5077";
        let mut running = Running::start(&stack, run(&stack, &["--credential", "github", "--isolate", way], script));
        running.says("ready").await;
        assert_eq!(made(&stack).as_deref(), Some("live"), "{way}");
        running.signal("KILL");
        running.ended().await;
        util::eventually(SOON, || made(&stack).as_deref() == Some("revoked")).await;
        util::eventually(SOON, || !lives("sleep\u{0}5077\u{0}")).await;
        stack.reconcile().await;
    }
}

/// Whether a process with these arguments lives.
fn lives(arguments: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    processes
        .into_iter()
        .any(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|found| found == arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_a_restart_of_the_broker_and_is_still_held() {
    let stack = Plan::default().start().await;
    let script = "echo ready; while [ ! -e \"$GO\" ]; do sleep 0.02; done; exit 4";
    let mut command = run(&stack, &["--credential", "github", "--isolate", "never"], script);
    let go = stack.dir().join("go");
    command.env("GO", &go);
    let mut running = Running::start(&stack, command);
    running.says("ready").await;
    for ended in ["TERM", "KILL"] {
        stack.broker.signal(ended);
        util::eventually(SOON, || !stack.broker.alive()).await;
        stack.broker.restart().await;
        assert_eq!(made(&stack).as_deref(), Some("live"), "after {ended}");
        // Held anew: on record a second time.
        let holds = || {
            let tail = attache::run(&stack.site.config_path(), &["audit", "tail", "-n", "1000", "--json"]);
            String::from_utf8_lossy(&tail.stdout).matches("\"decision\":\"hold\"").count()
        };
        let expected = if ended == "TERM" { 2 } else { 3 };
        util::eventually(SOON, || holds() == expected).await;
    }
    std::fs::write(go, "").expect("a file");
    assert_eq!(running.ended().await.code(), Some(4));
    assert_eq!(made(&stack).as_deref(), Some("revoked"));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_needs_nobody_is_not_held() {
    let stack = Plan::default().start().await;
    stack.broker.json(&["session", "create", "lasting", "--credential", "github"]);
    let control = stack.config.listen.control.display().to_string();
    for (name, words) in
        [("writer", "declared in the config"), ("lasting", "nothing to hold"), ("nobody", "no live session")]
    {
        let url = format!("http://attache/v1/sessions/{name}/hold");
        let asked =
            std::process::Command::new("curl").args(["-sS", "--unix-socket", &control, "-X", "POST", &url]).output();
        let said = String::from_utf8_lossy(&asked.expect("curl").stdout).into_owned();
        assert!(said.contains(words), "{name}: {said}");
    }
    stack.reconcile().await;
}

/// Everything as a user who is nobody in particular: for root alone, who can become one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "becomes another user: only root can (make test as root runs it)"]
async fn an_ordinary_user_runs_it_too() {
    let stack = Plan::default().start().await;
    let _broker = nobody::owns(&stack).await;
    for way in ways() {
        let flags = ["--credential", "github", "--isolate", way];
        let mut command =
            run_under(&stack, &nobody::BECOME, &flags, "id -u; ls \"$STATE\" | wc -l; grep CapBnd /proc/self/status");
        command.env("STATE", stack.dir().join("state/default")).env("HOME", "/").current_dir("/");
        let (code, out, err) = output(command);
        assert_eq!(code, Some(0), "{way}: {err}");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "65534", "{way}: {err}");
        if way == "always" {
            assert_eq!((lines[1].trim(), lines[2]), ("0", "CapBnd:\t0000000000000000"), "{out}{err}");
        }
    }
}
