//! Masking is on unless the config says otherwise, for a credential or for one of its destinations.

use attache_tests::Reply;
use attache_tests::stack::{Plan, SOON};

const LOUD: &str = "loud-token-0123456789-abcdefghij";

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_where_the_config_says_so() {
    let yaml = "{source: {file: loud}, inject: bearer, agent_env: {LOUD: placeholder}, mask: false, \
                destinations: [{host: loud.extra.test, upstream: DIAL}]}";
    let stack =
        Plan::default().credential("loud", LOUD, yaml).session("{name: loud, credentials: [loud]}").start().await;
    stack.site.oracle.unmasked("loud");
    let bearer = format!("Bearer {}", stack.broker.exported("loud", "LOUD"));
    let wanted = [("authorization", &*bearer), ("accept-encoding", "gzip"), ("range", "bytes=0-1")];
    let answer = stack.agent().get(stack.proxy, "loud.extra.test", "/echo", &wanted).await;
    assert_eq!(answer.header("x-echo-authorization"), Some(format!("Bearer {LOUD}")));
    assert!(answer.text().contains(LOUD), "{}", answer.text());
    // The agent gets what it asks for, compressed or in part.
    let asked = stack.upstream().wait_for(1, SOON).await.remove(0);
    assert_eq!(
        (asked.header("accept-encoding").as_deref(), asked.header("range").as_deref()),
        (Some("gzip"), Some("bytes=0-1"))
    );
    stack.upstream().answer_with(|_| Reply::new(200).field("content-encoding", "gzip").body("any"));
    assert_eq!(stack.agent().get(stack.proxy, "loud.extra.test", "/", &wanted).await.status, 200);
    // But no upstream says why we have refused something.
    stack.upstream().answer_with(|_| Reply::new(403).field("x-attache-reason", "read_only").field("x-own", "1"));
    let answer = stack.agent().get(stack.proxy, "loud.extra.test", "/", &wanted).await;
    assert_eq!(
        (answer.status, answer.header("x-attache-reason"), answer.header("x-own")),
        (403, None, Some("1".into()))
    );
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_says_so_for_itself() {
    for (credential, destination, masked) in [("true", "false", false), ("false", "true", true)] {
        let yaml = format!(
            "{{source: {{file: loud}}, inject: bearer, agent_env: {{LOUD: placeholder}}, mask: {credential}, \
             destinations: [{{host: loud.extra.test, mask: {destination}, upstream: DIAL}}]}}"
        );
        let plan = Plan::default().credential("loud", LOUD, &yaml).session("{name: loud, credentials: [loud]}");
        let stack = plan.start().await;
        stack.site.oracle.unmasked("loud");
        let answer = stack.get("loud.extra.test", "/echo", &stack.broker.exported("loud", "LOUD")).await;
        assert_eq!(!answer.text().contains(LOUD), masked, "{}", answer.text());
        stack.reconcile().await;
    }
}

/// Too short to be told from chance, it is used only where the operator has said that it may come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_too_short_is_not_used_unmasked() {
    let yaml = |mask: &str| {
        format!(
            "{{source: {{env: SHORT}}, inject: bearer, agent_env: {{SHORTLY: placeholder}}, mask: {mask}, \
             destinations: [{{host: short.test, plaintext: true, upstream: {{address: '127.0.0.1:9'}}}}]}}"
        )
    };
    for (mask, status) in [("true", "source_unavailable"), ("false", "")] {
        let plan = Plan::default().env("SHORT", "1234567").session("{name: short, credentials: [short]}");
        let plan = plan.credential("short", "not-this-one-but-longer", &yaml(mask));
        let stack = plan.start().await;
        let answer = stack.get("short.test", "/", &stack.broker.exported("short", "SHORTLY")).await;
        assert_eq!(answer.header("x-attache-reason").unwrap_or_default(), status, "{}", answer.text());
        let listed = stack.broker.json(&["credential", "list"]).to_string();
        assert_eq!(listed.contains("mask: false"), mask == "true", "{listed}");
        stack.reconcile().await;
    }
}
