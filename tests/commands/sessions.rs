//! An operator's day: sessions made, changed and ended while their agents work.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use attache_tests::stack::{CUSTOM, GITHUB, Plan, QUERY, SOON};
use attache_tests::{Attache, Stack};
use serde_json::Value;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Must succeed; what it printed.
fn told(stack: &Stack<Attache>, args: &[&str]) -> String {
    let output = stack.broker.cli(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output));
    text(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_made_shown_changed_and_ended() {
    let stack = Plan::default().workers(2).start().await;
    let create = ["session", "create", "made", "--credential", "github", "--credential", "custom", "--ttl", "15m"];
    assert_eq!(told(&stack, &create), "made is live; give its agent: attache session env made\n");
    let listed = told(&stack, &["session", "list"]);
    let line = listed.lines().find(|line| line.starts_with("made ")).expect("listed");
    assert!(line.contains("live") && line.contains("read-write") && line.contains("custom,github"), "{listed}");
    let all = stack.broker.json(&["session", "list"]);
    let names: BTreeSet<&str> = all.as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["made", "reader", "writer"]));
    let shown = stack.broker.json(&["session", "show", "made"]);
    assert!(shown["declared"] == false && shown["remaining_ms"].as_u64().is_some_and(|ms| ms <= 900_000), "{shown}");
    let shown = told(&stack, &["session", "show", "made"]);
    assert!(shown.contains("in 15m") || shown.contains("in 14m"), "{shown}");

    let placeholder = stack.broker.exported("made", "GITHUB_TOKEN");
    assert_eq!(stack.send("POST", "api.github.com", "/repos", &placeholder, b"").await.status, 200);
    let changed = told(&stack, &["session", "set-access-mode", "made", "read-only"]);
    let workers = applied(&changed);
    assert!(
        changed.starts_with("made is read-only: applied on ") && workers.0 == workers.1 && workers.0 >= 2,
        "{changed}"
    );
    for _ in 0..10 {
        assert_eq!(stack.send("POST", "api.github.com", "/repos", &placeholder, b"").await.status, 403);
    }
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    let widened = stack.broker.json(&["session", "set-access-mode", "made", "read-write"]);
    assert_eq!((&widened["session"]["access_mode"], &widened["recorded"]), (&"read-write".into(), &true.into()));
    assert_eq!(widened["applied"]["applied"], widened["applied"]["total"], "{widened}");
    assert_eq!(stack.send("POST", "api.github.com", "/repos", &placeholder, b"").await.status, 200);

    let ended = told(&stack, &["session", "revoke", "made"]);
    assert!(ended.starts_with("made is revoked: applied on "), "{ended}");
    for _ in 0..10 {
        let answer = stack.get("api.github.com", "/user", &placeholder).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    assert!(!told(&stack, &["session", "list"]).contains("made"));
    assert!(told(&stack, &["session", "list", "--all"]).contains("revoked"));
    stack.reconcile().await;
}

fn applied(text: &str) -> (usize, usize) {
    let (_, rest) = text.split_once("applied on ").expect("it says on how many workers");
    let (applied, rest) = rest.split_once('/').expect("of how many");
    let (total, _) = rest.split_once(' ').expect("workers");
    (applied.parse().expect("a number"), total.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_in_words() {
    let stack = Plan::default().start().await;
    for (args, words) in [
        (&["session", "create", "writer", "--credential", "github"][..], "writer"),
        (&["session", "create", "a", "--credential", "nobody"], "nobody"),
        (&["session", "create", "a", "--credential", "github", "--ttl", "0s"], "must live for some time"),
        (&["session", "show", "nobody"], "nobody"),
        (&["session", "env", "nobody"], "nobody"),
        (&["session", "revoke", "nobody"], "nobody"),
        (&["session", "set-access-mode", "nobody", "read-only"], "nobody"),
    ] {
        let output = stack.broker.cli(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output));
        assert!(output.stdout.is_empty() && text(&output).contains(words), "{args:?}: {}", text(&output));
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_takes_over_what_env_prints() {
    let stack = Plan::default().start().await;
    let lines = told(&stack, &["session", "env", "writer"]);
    let script = format!("{lines}\nprintf '%s\\n%s\\n' \"$GITHUB_TOKEN\" \"$ATTACHE_SESSION_TOKEN\"");
    let output = Command::new("sh").args(["-c", &script]).env_clear().output().expect("a shell");
    let printed = String::from_utf8(output.stdout).expect("text");
    let json = stack.broker.json(&["session", "env", "writer"]);
    let exported = |name: &str| json[name].as_str().expect("exported").to_owned();
    let expected = format!("{}\n{}\n", exported("GITHUB_TOKEN"), exported("ATTACHE_SESSION_TOKEN"));
    assert_eq!(printed, expected);
    let formatted: Value =
        serde_json::from_str(&told(&stack, &["session", "env", "writer", "--format", "json"])).expect("JSON");
    assert_eq!(formatted, json);
    let placeholder = exported("GITHUB_TOKEN");
    assert!(placeholder.starts_with("ghp_ATTACHE") && placeholder.len() == 40, "{placeholder}");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    assert_ne!(stack.broker.exported("reader", "GITHUB_TOKEN"), placeholder, "each session has its own");
    stack.broker.restart().await;
    assert_eq!(stack.broker.exported("writer", "GITHUB_TOKEN"), placeholder, "and keeps it");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_listing_ever_shows_a_secret() {
    let stack = Plan::default().start().await;
    for credential in ["github", "custom"] {
        let (host, path) =
            if credential == "github" { ("api.github.com", "/user") } else { ("api.custom.test", "/v1/x") };
        let placeholder = stack.placeholder("writer", credential);
        assert_eq!(stack.get(host, path, &placeholder).await.status, 200);
    }
    stack.upstream().wait_for(2, SOON).await;
    let list = stack.broker.json(&["credential", "list"]);
    for one in list.as_array().expect("a list") {
        assert!(one["fingerprint"].as_str().is_some_and(|print| print.len() == 16) && one["error"].is_null(), "{one}");
    }
    for args in [
        &["credential", "list"][..],
        &["session", "list"],
        &["session", "list", "--all"],
        &["session", "show", "writer"],
        &["session", "env", "writer"],
        &["audit", "tail", "-n", "100"],
        &["audit", "verify"],
        &["check"],
        &["doctor"],
        &["envoy-config"],
        &["schema"],
    ] {
        for json in [&[][..], &["--json"]] {
            let output = stack.broker.cli(&[args, json].concat());
            let said = text(&output);
            assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
            for secret in [GITHUB, CUSTOM, QUERY] {
                assert!(!said.contains(secret), "{args:?} {json:?}");
            }
            stack.site.oracle.text(&format!("{args:?}"), said);
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_json = serde_json::from_str::<Value>(&out).is_ok();
            let is_lines = out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok());
            assert!(json.is_empty() || is_json || (args[1..].first() == Some(&"tail") && is_lines), "{args:?}: {out}");
        }
    }
    stack.reconcile().await;
}
