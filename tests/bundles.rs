//! Credentials of several fields: injected as one, masked as one, changed as one.

use std::time::Instant;

use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Reply, Stack};
use serde_json::json;

const TOKEN: &str = "the-access-token-of-a-bundle-012345";
const ACCOUNT: &str = "account-one-00000000-1111-2222-3333";
const SECOND: &str = "account-two-44444444-5555-6666-7777";
const HOST: &str = "codex.extra.test";
const ELSEWHERE: &str = "elsewhere.extra.test";

const CODEX: &str = "{source: {file: codex-cli-runtime}, inject: bearer, bundle: {secret: tokens.access_token, headers: \
                     {ChatGPT-Account-ID: tokens.account_id}, expires: expires_at, fields: {model_prefix: model_prefix}, \
                     destinations: destinations}, destinations: [{host: codex.extra.test, upstream: DIAL}, {host: \
                     elsewhere.extra.test, upstream: DIAL}], agent_env: {CODEX_TOKEN: placeholder, MODEL_PREFIX: {field: \
                     model_prefix}}}";

fn document(account: &str, hosts: &[&str]) -> String {
    json!({
        "tokens": {"access_token": TOKEN, "account_id": account, "refresh_token": "not-looked-at"},
        "expires_at": "2099-01-01T00:00:00Z",
        "model_prefix": "codex/",
        "destinations": hosts,
    })
    .to_string()
}

/// An upstream that takes a token only with its account, and only once.
async fn start() -> Stack<Attache> {
    let plan = Plan::default().credential("codex-cli-runtime", TOKEN, CODEX);
    let stack = plan.session("{name: app, credentials: [codex-cli-runtime]}").start().await;
    stack.site.secrets.add("codex-cli-runtime", ACCOUNT);
    stack.site.secrets.add("codex-cli-runtime", SECOND);
    stack.site.keep("codex-cli-runtime", &document(ACCOUNT, &[HOST]));
    stack.broker.json(&["credential", "reload", "codex-cli-runtime"]);
    stack.upstream().answer_with(|asked| {
        let whole = asked.fields.all("authorization") == [format!("Bearer {TOKEN}").as_bytes()]
            && [ACCOUNT, SECOND].iter().any(|account| asked.fields.all("chatgpt-account-id") == [account.as_bytes()]);
        if whole { attache_tests::upstream::magic(asked) } else { Reply::new(401).body("not whole\n") }
    });
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn both_headers_are_injected_an_agents_own_is_replaced_and_no_echo_gets_through() {
    let stack = start().await;
    let placeholder = stack.broker.exported("app", "CODEX_TOKEN");
    let answer = stack.get(HOST, "/", &placeholder).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let bearer = format!("Bearer {placeholder}");
    let own = [
        ("authorization", bearer.as_str()),
        ("ChatGPT-Account-ID", "the-agents-own"),
        ("chatgpt-account-id", "and-another"),
    ];
    let answer = stack.agent().request(stack.proxy, "POST", HOST, "/echo", &own, b"{}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let stars = |text: &str| "*".repeat(text.len());
    assert_eq!(answer.header("x-echo-authorization"), Some(format!("Bearer {}", stars(TOKEN))));
    assert_eq!(answer.header("x-echo-chatgpt-account-id"), Some(stars(ACCOUNT)));
    let text = answer.text();
    assert!(!text.contains("the-agents-own") && !text.contains(ACCOUNT) && !text.contains(TOKEN), "{text}");
    let hits = stack.upstream().hits();
    assert_eq!(hits.len(), 2);
    assert!(hits.iter().all(|hit| hit.header("chatgpt-account-id").as_deref() == Some(ACCOUNT)), "{hits:#?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_it_as_one_and_its_environment_has_one_placeholder_and_the_public_field() {
    let stack = start().await;
    stack.broker.json(&["session", "create", "one", "--credentials", "codex-cli-runtime"]);
    let env = stack.broker.json(&["session", "env", "one"]);
    let env = env.as_object().expect("variables");
    let names: Vec<_> = env.keys().map(String::as_str).collect();
    assert_eq!(names, ["ATTACHE_SESSION_TOKEN", "CODEX_TOKEN", "MODEL_PREFIX"]);
    assert_eq!(env["MODEL_PREFIX"], "codex/");
    let placeholder = env["CODEX_TOKEN"].as_str().expect("a placeholder").to_owned();
    assert_eq!(stack.get(HOST, "/", &placeholder).await.status, 200);
    let checked = stack.broker.cli(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("as    Authorization: Bearer …, and chatgpt-account-id: {tokens.account_id}\n"), "{said}");
    assert!(said.contains("not   chatgpt-account-id (the agent's own are taken out)"), "{said}");
    let listed = stack.broker.json(&["credential", "list"]);
    let ours: Vec<_> =
        listed.as_array().expect("a list").iter().filter(|one| one["name"] == "codex-cli-runtime").collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["destinations"], json!([format!("{HOST}:443")]));
    assert_eq!(ours[0]["expires_ms"], 4_070_908_800_000_u64);
    // Without a document there is no field to hand out, and it is said why.
    stack.site.keep("codex-cli-runtime", TOKEN);
    stack.broker.cli(&["credential", "reload", "codex-cli-runtime"]);
    let refused = stack.broker.cli(&["session", "env", "one"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("is to be a JSON object") && !said.contains(TOKEN), "{said}");
    let answer = stack.get(HOST, "/", &placeholder).await;
    assert_eq!((answer.status, answer.header("x-attache-reason").as_deref()), (503, Some("source_unavailable")));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_for_the_same_token_voids_what_was_granted() {
    let stack = start().await;
    let placeholder = stack.broker.exported("app", "CODEX_TOKEN");
    let account = async || {
        let answer = stack.get(HOST, "/", &placeholder).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        stack.upstream().hits().last().and_then(|hit| hit.header("chatgpt-account-id")).expect("a hit")
    };
    assert_eq!(account().await, ACCOUNT);
    stack.site.keep("codex-cli-runtime", &document(SECOND, &[HOST]));
    let end = Instant::now() + SOON;
    while account().await != SECOND {
        assert!(Instant::now() < end, "never picked up");
    }
    for _ in 0..20 {
        assert_eq!(account().await, SECOND);
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_document_does_not_let_it_go_it_does_not_go() {
    let stack = start().await;
    let placeholder = stack.broker.exported("app", "CODEX_TOKEN");
    let refused = async |host: &str| {
        let answer = stack.get(host, "/", &placeholder).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        answer.header("x-attache-reason").expect("a reason")
    };
    assert_eq!(refused(ELSEWHERE).await, "credential_not_granted");
    assert_eq!(stack.get(HOST, "/", &placeholder).await.status, 200);
    // The other way round: what was granted before is void.
    stack.site.keep("codex-cli-runtime", &document(ACCOUNT, &["elsewhere.extra.test:443"]));
    stack.broker.json(&["credential", "reload", "codex-cli-runtime"]);
    assert_eq!(refused(HOST).await, "credential_not_granted");
    assert_eq!(stack.get(ELSEWHERE, "/", &placeholder).await.status, 200);
    stack.reconcile().await;
}
