//! From GitHub to the upstream, through a real Envoy.

use std::time::{Duration, Instant};

use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, Stack};
use attache_tests::{Attache, util};
use serde_json::{Value, json};

use crate::github::{GitHub, Token, token};
use crate::keys::Key;
use crate::world::SOON;

const HOST: &str = "api.extra.test";
const CREDENTIAL: &str = "{source: {github_app: {repositories: [one, two], permissions: {contents: write, issues: read}}}, \
                          inject: bearer, destinations: [{host: api.extra.test, upstream: DIAL}], agent_env: {APP: \
                          placeholder}}";
/// More tokens than any of these tests has made.
const MOST: usize = 20;

/// The credential, with two sessions: one has all of it, the other may read one repository.
async fn start(github: &GitHub, key: &Key) -> Stack<Attache> {
    let length = github.state.get().length;
    let stack = Plan::default()
        .credential("app", &token(0, length), CREDENTIAL)
        .session("{name: whole, credentials: [app]}")
        .session(
            "{name: narrow, credentials: [app], scopes: {app: {repositories: [one], permissions: {contents: read}}}}",
        )
        .extra(&github.source("{env: APP_KEY}", ""))
        .env("APP_KEY", &key.pem)
        .start()
        .await;
    (1..MOST).for_each(|n| stack.site.secrets.add("app", token(n, length)));
    stack
}

/// The token with which a session's request arrives.
async fn arrives(stack: &Stack<Attache>, session: &str) -> String {
    let answer = stack.get(HOST, "/", &stack.broker.exported(session, "APP")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hit = stack.upstream().requests().last().and_then(|hit| hit.header("authorization")).expect("a hit");
    hit.strip_prefix("Bearer ").expect("a bearer").to_owned()
}

fn asked(token: &Token) -> Value {
    token.asked.clone()
}

fn credential(stack: &Stack<Attache>) -> Value {
    let listed = stack.broker.json(&["credential", "list"]);
    listed.as_array().expect("a list").iter().find(|one| one["name"] == "app").expect("it is listed").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_has_a_token_of_its_own_and_takes_it_along_when_it_ends() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let stack = start(&github, &key).await;
    assert!(github.state.tokens().is_empty(), "nobody has asked for one");
    let (whole, narrow) = (arrives(&stack, "whole").await, arrives(&stack, "narrow").await);
    assert_eq!((arrives(&stack, "whole").await, arrives(&stack, "narrow").await), (whole.clone(), narrow.clone()));
    let tokens = github.state.tokens();
    assert_eq!(tokens.iter().map(|token| &token.token).collect::<Vec<_>>(), [&whole, &narrow]);
    let all = json!({"repositories": ["one", "two"], "permissions": {"contents": "write", "issues": "read"}});
    let some = json!({"repositories": ["one"], "permissions": {"contents": "read"}});
    assert_eq!(tokens.iter().map(asked).collect::<Vec<_>>(), [all, some]);
    let now = credential(&stack);
    assert_eq!((&now["sessions"], &now["error"], &now["trouble"]), (&2.into(), &Value::Null, &Value::Null), "{now:#}");
    let left = now["expires_ms"].as_u64().expect("an end") - util::wall_ms();
    assert!((3_500_000..=3_600_000).contains(&left), "an hour: {left} ms");
    let next = now["next_ms"].as_u64().expect("it is asked for anew") - util::wall_ms();
    assert!(next <= 600_000, "the installation is looked at in ten minutes: {next} ms");

    // The records say which of the two it was.
    util::eventually(SOON, || uses(&stack).len() == 4).await;
    let fingerprints = |session: &str| -> Vec<String> {
        let mut all: Vec<_> =
            uses(&stack).into_iter().filter(|(of, _)| of == session).map(|(_, print)| print).collect();
        all.dedup();
        all
    };
    let (of_whole, of_narrow) = (fingerprints("whole"), fingerprints("narrow"));
    assert_eq!((of_whole.len(), of_narrow.len()), (1, 1), "{of_whole:?} {of_narrow:?}");
    assert_ne!(of_whole, of_narrow);

    assert!(stack.broker.cli(&["session", "revoke", "narrow"]).status.success());
    util::eventually(SOON, || github.state.tokens()[1].revoked == 1).await;
    let answer = stack.get(HOST, "/", &stack.broker.exported("whole", "APP")).await;
    assert_eq!((answer.status, github.state.tokens()[0].revoked), (200, 0), "the other goes on");
    assert_eq!(credential(&stack)["sessions"], 1);
    // A session whose time comes takes its token along, too.
    let made = ["session", "create", "short", "--credential", "app", "--ttl", "3s"];
    assert!(stack.broker.cli(&made).status.success());
    arrives(&stack, "short").await;
    stack.broker.evidence().ended("short");
    util::eventually(SOON, || github.state.tokens()[2].revoked == 1).await;
    stack.reconcile().await;
    // And at the broker's end the rest is given back.
    stack.broker.signal("TERM");
    util::eventually(SOON, || !stack.broker.alive()).await;
    assert_eq!(github.state.tokens().iter().map(|token| token.revoked).collect::<Vec<_>>(), [1, 1, 1]);
    github.check();
}

/// (session, fingerprint) of each use on record.
fn uses(stack: &Stack<Attache>) -> Vec<(String, String)> {
    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    let uses = audit.of_kind("use").filter(|record| record.text("credential") == "app");
    uses.map(|record| (record.text("session"), record.text("fingerprint"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_any_length_arrives_whole() {
    let Some(key) = Key::new() else { return };
    for length in [320, 1_200] {
        let github = GitHub::start(&key).await;
        github.state.get().length = length;
        let stack = start(&github, &key).await;
        let arrived = arrives(&stack, "whole").await;
        assert_eq!((arrived.len(), &arrived), (length, &github.state.tokens()[0].token));
        assert_ne!(arrives(&stack, "narrow").await, arrived);
        stack.reconcile().await;
        github.check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_requests_of_a_session_have_one_token_made() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    github.state.get().slow = Duration::from_millis(300);
    let stack = start(&github, &key).await;
    let placeholder = stack.broker.exported("whole", "APP");
    let hit = || async { stack.get(HOST, "/", &placeholder).await.status };
    let statuses = tokio::join!(hit(), hit(), hit(), hit(), hit(), hit());
    assert_eq!(statuses, (200, 200, 200, 200, 200, 200));
    assert_eq!(github.state.tokens().len(), 1);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_replaced_ahead_of_its_end_and_no_request_fails_meanwhile() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    github.state.get().life = 9;
    let stack = start(&github, &key).await;
    let (first, began) = (arrives(&stack, "whole").await, Instant::now());
    while arrives(&stack, "whole").await == first {
        assert!(began.elapsed() < SOON, "never replaced");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(9), "ahead of its end");
    // What does not answer now takes nothing away that holds.
    github.state.get().instead = Some((503, String::new()));
    let still = arrives(&stack, "whole").await;
    assert!(still != first && github.state.tokens().iter().any(|token| token.token == still));
    github.state.get().instead = None;
    stack.reconcile().await;
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_github_refuses_one_session_is_told_and_the_others_go_on() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let stack = start(&github, &key).await;
    arrives(&stack, "whole").await;
    // The App is taken off a permission that the whole session does not ask for any longer.
    github.state.get().permissions.remove("contents");
    let refused = stack.get(HOST, "/", &stack.broker.exported("narrow", "APP")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("source_unavailable"), "{}", refused.text());
    let now = credential(&stack);
    let trouble = now["trouble"].as_str().unwrap_or_default();
    assert!(
        trouble.starts_with("session narrow: github_app installation") && trouble.contains("permissions"),
        "{now:#}"
    );
    assert!(now["fix"].as_str().is_some_and(|fix| fix.contains("accept them")), "{now:#}");
    arrives(&stack, "whole").await;
    github.state.get().permissions.insert("contents".into(), "write".into());
    let end = Instant::now() + SOON;
    while stack.get(HOST, "/", &stack.broker.exported("narrow", "APP")).await.status != 200 {
        assert!(Instant::now() < end, "it is asked for again by itself");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stack.reconcile().await;
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_puts_every_session_off_and_what_is_given_back_goes_through() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let stack = start(&github, &key).await;
    for session in ["first", "second"] {
        assert!(stack.broker.cli(&["session", "create", session, "--credential", "app"]).status.success());
    }
    arrives(&stack, "whole").await;
    let limited = r#"{"message":"API rate limit exceeded for installation ID 815."}"#;
    github.state.get().instead = Some((403, limited.to_owned()));
    for session in ["narrow", "first", "second"] {
        let refused = stack.get(HOST, "/", &stack.broker.exported(session, "APP")).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("source_unavailable"), "{}", refused.text());
    }
    assert_eq!(github.state.get().off, 1, "who comes after the first asks nothing");
    github.state.get().instead = None;
    assert!(stack.broker.cli(&["session", "revoke", "whole"]).status.success());
    util::eventually(SOON, || github.state.tokens()[0].revoked == 1).await;
    assert_eq!(github.state.tokens().len(), 1);
    stack.reconcile().await;
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_over_when_it_comes_is_given_back() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    github.state.get().life = -60;
    let stack = start(&github, &key).await;
    let refused = stack.get(HOST, "/", &stack.broker.exported("whole", "APP")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let now = credential(&stack);
    let trouble = now["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("are apart") && trouble.contains("the token that came was given back"), "{now:#}");
    let tokens = github.state.tokens();
    assert!(!tokens.is_empty() && tokens.iter().all(|token| token.revoked == 1), "{tokens:?}");
    stack.reconcile().await;
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_replaces_every_sessions_token() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let stack = start(&github, &key).await;
    let before = [arrives(&stack, "whole").await, arrives(&stack, "narrow").await];
    let reloaded = stack.broker.cli(&["credential", "reload", "app"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let after = [arrives(&stack, "whole").await, arrives(&stack, "narrow").await];
    assert!(before.iter().all(|token| !after.contains(token)) && after[0] != after[1], "{before:?} {after:?}");
    assert_eq!(github.state.tokens().len(), 4);
    // What could not be given back at the first attempt is, soon after.
    github.state.get().instead = Some((502, String::new()));
    assert!(stack.broker.cli(&["session", "revoke", "narrow"]).status.success());
    util::eventually(SOON, || github.state.get().off > 0).await;
    github.state.get().instead = None;
    util::eventually(SOON, || github.state.tokens().iter().filter(|token| token.revoked == 1).count() == 2).await;
    stack.reconcile().await;
    github.check();
}
