//! Requests that show no placeholder get what the config says, and never a credential.

use attache_tests::fake_broker::Grant;
use attache_tests::stack::{CUSTOM, GITHUB, Plan, SOON};
use attache_tests::{attache, util};
use serde_json::Value;

use crate::{both_arrive, both_ways, head};

#[tokio::test(flavor = "multi_thread")]
async fn by_default_such_a_request_is_refused_whatever_it_brings() {
    let stack = Plan::default().start().await;
    for headers in [&[][..], &[("authorization", "Bearer mine")], &[("x-custom-key", "Key mine")]] {
        for answer in both_ways(&stack, "GET", "api.custom.test", "/v1/x", headers).await {
            assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("identity_required")));
        }
    }
    assert!(stack.upstream().requests().is_empty());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_may_pass_it_passes_as_it_is_without_a_credential() {
    let stack = Plan::default().missing_placeholder("pass").start().await;
    let own = [("x-custom-key", "Key mine"), ("authorization", "Bearer mine"), ("cookie", "a=b")];
    for hit in both_arrive(&stack, "api.custom.test", "/v1/x?api_key=mine", &own).await {
        assert_eq!(hit.path_text(), "/v1/x?api_key=mine");
        for (name, value) in own {
            assert_eq!(hit.fields.all(name), [value.as_bytes()]);
        }
        assert!(hit.secrets.is_empty());
    }
    let records = util::eventually_some(SOON, || {
        let tail = stack.broker.cli(&["audit", "tail", "--json"]);
        let all: Vec<Value> =
            String::from_utf8_lossy(&tail.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let passed: Vec<Value> = all.into_iter().filter(|record| record["decision"] == "pass").collect();
        (passed.len() == 2).then_some(passed)
    });
    for record in records.await {
        assert_eq!(record["kind"], "use");
        assert_eq!((&record["auth_injected"], &record["credential"]), (&Value::Bool(false), &Value::Null));
        assert_eq!((&record["evidence"], &record["path"]), (&"none".into(), &"/v1/x".into()));
    }
    // Whoever shows a placeholder is treated as everywhere.
    let placeholder = stack.placeholder("writer", "custom");
    let bearer = format!("Bearer {placeholder}");
    for hit in both_arrive(&stack, "api.custom.test", "/v1/x", &[("authorization", &bearer)]).await {
        assert_eq!(hit.fields.all("x-custom-key"), [format!("Key {CUSTOM}").as_bytes()]);
        assert!(!hit.fields.has("authorization"));
    }
    let before = stack.upstream().requests().len();
    for headers in [[("x-other", placeholder.as_str())], [("x-attache-session", "attache-session_ATTACHEnobody")]] {
        for answer in both_ways(&stack, "GET", "api.custom.test", "/v1/x", &headers).await {
            assert!((401..=403).contains(&answer.status), "{headers:?}: {}", answer.text());
        }
    }
    assert_eq!(stack.upstream().requests().len(), before);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_alone_gets_no_credential_that_asks_for_a_placeholder() {
    let stack = Plan::default().start().await;
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    for answer in both_ways(&stack, "GET", "api.github.com", "/user", &[("x-attache-session", &token)]).await {
        assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("identity_required")));
    }
    assert!(stack.upstream().requests().is_empty());
    stack.reconcile().await;
}

/// The config refuses `inject` while no evidence can be required; the filter does what the broker
/// grants on other evidence all the same.
#[tokio::test(flavor = "multi_thread")]
async fn injection_without_a_placeholder_needs_other_evidence() {
    let dir = util::temp_dir();
    let config = dir.path().join("attache.yaml");
    let yaml = "state_dir: state\ncredentials:\n  a:\n    source: {file: a}\n    inject: bearer\n    agent_env: {}\n    \
                missing_placeholder: inject\n    destinations: [{host: a.test}]\n";
    std::fs::write(&config, yaml).expect("a config");
    let refused = attache::run(&config, &["check"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{text}");
    assert!(text.contains(":7:26: credentials.a.missing_placeholder: ") && text.contains("use `deny`"), "{text}");

    let stack = Plan::default().start_with_fake().await;
    stack.broker.grant(Grant::header("github", "authorization", &format!("Bearer {GITHUB}")));
    let token = format!("attache-session_ATTACHE{}", "x".repeat(24));
    for hit in both_arrive(&stack, "api.github.com", "/user", &[("x-attache-session", &token)]).await {
        assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()]);
        assert!(!head(&hit).to_lowercase().contains("attache"), "{}", head(&hit));
    }
    stack.reconcile().await;
}
