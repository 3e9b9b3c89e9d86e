//! A secret's file changes: no restart, no old value after the change is known everywhere.

use std::process::Command;
use std::time::{Duration, Instant};

use attache_tests::oracle::Audit;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Attache, Recorded, Stack, util};
use serde_json::{Value, json};

use super::{Spread, VMS, start};

const SECOND: &str = "ghp_TheSecondTokenOfTheUser9876543210wxyz";

#[tokio::test(flavor = "multi_thread")]
async fn when_a_reload_returns_no_worker_uses_the_old_version() {
    let stack = start(Plan::default()).await;
    stack.site.secrets.add("github", SECOND);
    let mut spread = Spread::open(&stack, &stack.placeholder("writer", "github")).await;
    for secret in [SECOND, GITHUB, SECOND] {
        stack.site.keep("github_token", secret);
        let done = stack.broker.json(&["credential", "reload", "github"]);
        assert_eq!((&done["applied"]["applied"], &done["applied"]["total"]), (&VMS.into(), &VMS.into()), "{done:#}");
        let before = stack.upstream().requests().len();
        spread.all("GET", "200").await;
        let new = format!("Bearer {secret}");
        let hits = stack.upstream().requests().split_off(before);
        assert!(hits.iter().all(|hit| hit.header("authorization").as_ref() == Some(&new)), "{hits:#?}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_worker_has_not_heard_of_is_not_shown_as_in_force() {
    let stack = start(Plan::default().limit("stale_after: 20s")).await;
    stack.site.secrets.add("github", SECOND);
    let before = listed(&stack)["fingerprint"].clone();
    // Envoy stands still: all workers are alive, and none hears of anything.
    signal(&stack, "STOP");
    stack.site.keep("github_token", SECOND);
    let begun = Instant::now();
    let shown = loop {
        let github = listed(&stack);
        if github["fingerprint"] != before {
            break github;
        }
        assert!(begun.elapsed() < SOON, "never noticed");
    };
    signal(&stack, "CONT");
    assert_eq!(shown["workers"], json!({"applied": 0, "total": VMS}));
    util::eventually(SOON, || listed(&stack)["workers"] == json!({"applied": VMS, "total": VMS})).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_replaces_the_old_one_everywhere() {
    let stack = start(Plan::default()).await;
    stack.site.secrets.add("github", SECOND);
    let mut spread = Spread::open(&stack, &stack.placeholder("writer", "github")).await;
    for secret in [SECOND, GITHUB, SECOND] {
        let before = listed(&stack)["fingerprint"].clone();
        spread.all("GET", "200").await;
        stack.site.keep("github_token", secret);
        let changed = Instant::now();
        // Nobody asks for a grant: the broker looks by itself, and shows how far the new one has got.
        let everywhere = json!({"applied": VMS, "total": VMS});
        let mut noticed = None;
        let known = loop {
            let github = listed(&stack);
            if github["fingerprint"] != before {
                noticed.get_or_insert(changed.elapsed());
                if github["workers"] == everywhere {
                    break Instant::now();
                }
            }
            assert!(changed.elapsed() < SOON, "never in force: {github:#}");
        };
        let before = stack.upstream().requests().len();
        spread.all("GET", "200").await;
        let hits = stack.upstream().requests().split_off(before);
        let new = format!("Bearer {secret}");
        assert!(!hits.is_empty());
        assert!(hits.iter().all(|hit| hit.header("authorization").as_ref() == Some(&new)), "{hits:#?}");
        println!(
            "a changed file was noticed after {:?}, known everywhere after {:?}",
            noticed.unwrap_or_default(),
            known - changed
        );
    }
    // What nobody has asked for stands in the log.
    let told = || {
        let log = std::fs::read_to_string(stack.broker.log_path()).expect("the broker's log");
        let told = log.lines().filter(|line| line.contains("credential github has changed, on every worker"));
        told.map(str::to_owned).collect::<Vec<_>>()
    };
    util::eventually(SOON, || told().len() == 3).await;
    for line in told() {
        assert!(line.contains("INFO") && line.contains("applied=3 total=3 took_ms="), "{line}");
    }
    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    let mut fingerprints: Vec<_> = audit.of_kind("issue").map(|record| record.text("fingerprint")).collect();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 4, "{fingerprints:?}");
    assert_eq!((&fingerprints[0], &fingerprints[1]), (&fingerprints[2], &fingerprints[3]), "named after the secret");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_over_to_a_changed_secret_within_a_second_and_never_back() {
    let stack = start(Plan::default()).await;
    stack.site.secrets.add("github", SECOND);
    let mut spread = Spread::open(&stack, &stack.placeholder("writer", "github")).await;
    stack.site.keep("github_token", SECOND);
    let changed = Instant::now();
    while changed.elapsed() < Duration::from_secs(2) {
        spread.all("GET", "200").await;
    }
    let (old, new): (Vec<Recorded>, Vec<Recorded>) = stack
        .upstream()
        .requests()
        .into_iter()
        .filter(|hit| hit.at >= changed)
        .partition(|hit| hit.header("authorization") == Some(format!("Bearer {GITHUB}")));
    let last = old.iter().map(|hit| hit.at - changed).max().unwrap_or_default();
    let first = new.iter().map(|hit| hit.at - changed).min().expect("the new secret");
    println!("{} requests: the new secret from {first:?}, the old one until {last:?}", old.len() + new.len());
    // Looked for every 500 ms; the feed takes milliseconds.
    assert!(last < Duration::from_millis(1_200), "{last:?}");
    stack.reconcile().await;
}

fn signal(stack: &Stack<Attache>, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), stack.envoy.pid().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
}

/// The GitHub credential, as operators see it.
fn listed(stack: &Stack<Attache>) -> Value {
    let all = stack.broker.json(&["credential", "list"]);
    let github = all.as_array().and_then(|all| all.iter().find(|one| one["name"] == "github"));
    github.expect("the credential").clone()
}
