//! Where the secret comes from decides which one goes upstream, from the next request on.

use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Attache, Stack, util};

const FROM_ENV: &str = "from-the-environment-0001";
const FROM_FILE: &str = "from-the-file-000000002";
const ROTATED: &str = "ghp_TheNextRealTokenOfTheUser9876543210";

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_beats_the_file() {
    let yaml = "{source: {env: BOTH_KEY, file: both}, inject: bearer, \
                destinations: [{host: both.extra.test, upstream: DIAL}]}";
    let plan = Plan::default().credential("both", FROM_FILE, yaml).env("BOTH_KEY", FROM_ENV);
    let stack = plan.session("{name: one, credentials: [both]}").start().await;
    stack.site.secrets.add("both", FROM_ENV);
    let placeholder = stack.broker.exported("one", "BOTH_KEY");
    assert_eq!(stack.get("both.extra.test", "/", &placeholder).await.status, 200);
    let hits = stack.upstream().wait_for(1, SOON).await;
    assert_eq!(hits[0].header("authorization"), Some(format!("Bearer {FROM_ENV}")));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_goes_upstream_changed() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    let fingerprint = fingerprint(&stack);
    assert_eq!(token_sent(&stack, &placeholder).await, GITHUB);

    stack.site.secrets.add("github", ROTATED);
    stack.site.keep("github_token", ROTATED);
    let end = tokio::time::Instant::now() + SOON;
    while token_sent(&stack, &placeholder).await != ROTATED {
        assert!(tokio::time::Instant::now() < end, "the new secret is in use in time");
    }
    for _ in 0..20 {
        assert_eq!(token_sent(&stack, &placeholder).await, ROTATED, "once new, never old again");
    }
    assert_ne!(self::fingerprint(&stack), fingerprint);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_refuses_until_it_is_back() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(token_sent(&stack, &placeholder).await, GITHUB);
    std::fs::remove_file(stack.dir().join("state/default/secrets/github_token")).expect("it was there");
    answers(&stack, &placeholder, 503).await;
    let refused = stack.get("api.github.com", "/user", &placeholder).await;
    assert_eq!(refused.json()["reason"], "source_unavailable");
    stack.site.keep("github_token", GITHUB);
    answers(&stack, &placeholder, 200).await;
    stack.reconcile().await;
}

/// Sends requests until one is answered with this status.
async fn answers(stack: &Stack<Attache>, placeholder: &str, status: u16) {
    let end = tokio::time::Instant::now() + SOON;
    while stack.get("api.github.com", "/user", placeholder).await.status != status {
        assert!(tokio::time::Instant::now() < end, "{status} in time");
    }
}

/// The token that went upstream with a fresh request.
async fn token_sent(stack: &Stack<Attache>, placeholder: &str) -> String {
    let before = stack.upstream().requests().len();
    let answer = stack.get("api.github.com", "/user", placeholder).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = stack.upstream().requests()[before].header("authorization").unwrap_or_default();
    sent.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

fn fingerprint(stack: &Stack<Attache>) -> String {
    let list = stack.broker.json(&["credential", "list"]);
    let github = list.as_array().and_then(|all| all.iter().find(|one| one["name"] == "github"));
    github.and_then(|one| one["fingerprint"].as_str()).expect("a fingerprint").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_without_a_secret_refuses_and_the_others_work() {
    let yaml = "{source: {env: NOBODY_SETS_THIS}, inject: bearer, \
                destinations: [{host: none.extra.test, upstream: DIAL}]}";
    let plan = Plan::default().credential("none", "never-read-00000000", yaml);
    let stack = plan.session("{name: one, credentials: [github, none]}").start().await;
    let absent = stack.broker.exported("one", "NOBODY_SETS_THIS");
    let answer = stack.get("none.extra.test", "/", &absent).await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("source_unavailable")));
    let github = stack.broker.exported("one", "GITHUB_TOKEN");
    assert_eq!(stack.get("api.github.com", "/user", &github).await.status, 200);
    util::eventually(SOON, || stack.upstream().requests().len() == 1).await;
    stack.reconcile().await;
}

/// A broker that is started in an agent's shell finds the agent's placeholder under the secret's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_is_taken_for_no_secret() {
    let first = Plan::default().start().await;
    let placeholder = first.placeholder("writer", "github");
    let stack = Plan::default().env("GITHUB_TOKEN", &placeholder).start().await;
    let answer = stack.get("api.github.com", "/user", &stack.placeholder("writer", "github")).await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("source_unavailable")));
    assert!(stack.upstream().requests().is_empty());
    stack.reconcile().await;
}
