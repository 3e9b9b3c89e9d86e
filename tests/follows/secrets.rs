//! A secret's file changes: no restart, no old value after the change is known everywhere.

use std::time::{Duration, Instant};

use attache_tests::oracle::Audit;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Attache, Recorded, Stack};

use super::{Spread, VMS, applied_everywhere, start};

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
async fn a_changed_secret_replaces_the_old_one_everywhere() {
    let stack = start(Plan::default()).await;
    stack.site.secrets.add("github", SECOND);
    let mut spread = Spread::open(&stack, &stack.placeholder("writer", "github")).await;
    for secret in [SECOND, GITHUB, SECOND] {
        let before = fingerprint(&stack);
        spread.all("GET", "200").await;
        stack.site.keep("github_token", secret);
        let changed = Instant::now();
        // Nobody asks for a grant: the broker looks by itself.
        while fingerprint(&stack) == before {
            assert!(changed.elapsed() < SOON, "never noticed");
        }
        let noticed = changed.elapsed();
        // The feed is acknowledged in order: with this change, the one before it is, too.
        applied_everywhere(&stack.broker.json(&["session", "set-access-mode", "reader", "read-only"]));
        let known = Instant::now();
        let before = stack.upstream().requests().len();
        spread.all("GET", "200").await;
        let hits = stack.upstream().requests().split_off(before);
        let new = format!("Bearer {secret}");
        assert!(!hits.is_empty());
        assert!(hits.iter().all(|hit| hit.header("authorization").as_ref() == Some(&new)), "{hits:#?}");
        println!("a changed file was noticed after {noticed:?}, known everywhere after {:?}", known - changed);
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

/// The fingerprint of the GitHub credential, as operators see it.
fn fingerprint(stack: &Stack<Attache>) -> String {
    let all = stack.broker.json(&["credential", "list"]);
    let github = all.as_array().and_then(|all| all.iter().find(|one| one["name"] == "github"));
    github.expect("the credential")["fingerprint"].as_str().expect("a fingerprint").to_owned()
}
