//! The state directory, and what is refused as a secret.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Attache, Stack, util};

use crate::assert_private;

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_state_directory_is_its_owners_alone() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    assert_private(&stack.dir().join("state"));
    for name in ["instance.key", "data-plane.token", "control.sock", "audit.jsonl", "runtime.json", "attache.db"] {
        assert!(stack.dir().join("state/default").join(name).exists(), "{name} is where it is looked for");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_others_could_read_or_swap_is_refused_with_the_fix() {
    let stack = Plan::default().start().await;
    let secrets = stack.dir().join("state/default/secrets");
    let (token, aside) = (secrets.join("github_token"), stack.dir().join("aside"));
    let (shown, shown_dir) = (token.display().to_string(), secrets.display().to_string());
    let chmod = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).expect("ours");

    for mode in [0o640, 0o604, 0o660, 0o620] {
        chmod(&token, mode);
        refused(&stack, &format!("(mode {mode:04o}): chmod 600 {shown}")).await;
        chmod(&token, 0o600);
        used(&stack).await;
    }
    chmod(&secrets, 0o750);
    refused(&stack, &format!("chmod 700 {shown_dir}")).await;
    chmod(&secrets, 0o700);
    used(&stack).await;

    std::fs::hard_link(&token, &aside).expect("a link");
    refused(&stack, &format!("{shown} has more than one hard link")).await;
    std::fs::remove_file(&aside).expect("ours");
    used(&stack).await;

    std::fs::rename(&token, &aside).expect("a move");
    symlink(&aside, &token).expect("a link");
    refused(&stack, &format!("{shown} is a symbolic link")).await;
    std::fs::remove_file(&token).expect("ours");

    std::fs::create_dir(&token).expect("a directory");
    refused(&stack, &format!("{shown} is not a regular file")).await;
    std::fs::remove_dir(&token).expect("ours");

    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&token).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    refused(&stack, &format!("{shown} is not a regular file")).await;
    std::fs::remove_file(&token).expect("ours");

    std::fs::rename(&aside, &token).expect("a move");
    used(&stack).await;

    for (content, why) in [("", "is empty"), ("\n", "is empty"), ("a\u{7}b", "no header value may hold")] {
        stack.site.keep("github_token", content);
        refused(&stack, why).await;
    }
    stack.site.keep("github_token", GITHUB);
    used(&stack).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "giving a file to another user needs root: `make test` as root runs it"]
async fn a_secret_of_another_user_is_refused_with_the_fix() {
    let stack = Plan::default().start().await;
    let token = stack.dir().join("state/default/secrets/github_token");
    chown(&token, Some(65534), None).expect("root may");
    refused(&stack, &format!("chown 0 {}", token.display())).await;
    chown(&token, Some(0), None).expect("root may");
    used(&stack).await;
    stack.reconcile().await;
}

/// The credential cannot be used, `credential list` says why, and nothing goes upstream.
async fn refused(stack: &Stack<Attache>, why: &str) {
    let error = || standing(stack)["error"].as_str().unwrap_or_default().to_owned();
    util::eventually(SOON, || error().contains(why)).await;
    let before = stack.upstream().requests().len();
    let placeholder = stack.placeholder("writer", "github");
    let answer = stack.get("api.github.com", "/user", &placeholder).await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("source_unavailable")), "{why}");
    assert_eq!(stack.upstream().requests().len(), before, "{why}");
    assert!(!answer.text().contains("secrets"), "the agent is not told where: {}", answer.text());
}

/// The credential is in use again, by itself.
async fn used(stack: &Stack<Attache>) {
    util::eventually(SOON, || standing(stack)["error"].is_null()).await;
    let placeholder = stack.placeholder("writer", "github");
    let end = tokio::time::Instant::now() + SOON;
    while stack.get("api.github.com", "/user", &placeholder).await.status != 200 {
        assert!(tokio::time::Instant::now() < end, "in use again");
    }
}

fn standing(stack: &Stack<Attache>) -> serde_json::Value {
    let list = stack.broker.json(&["credential", "list"]);
    let github = list.as_array().and_then(|all| all.iter().find(|one| one["name"] == "github"));
    github.expect("listed").clone()
}
