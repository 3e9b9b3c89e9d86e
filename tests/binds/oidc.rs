//! Sessions that a JWT names: of a real OpenID provider, through a real Envoy.

use std::time::{Duration, Instant};

use attache_tests::stack::{CUSTOM, Plan, SOON};
use attache_tests::{Attache, Recorded, Stack, util};
use serde_json::{Value, json};

use crate::provider::Provider;
use crate::scene::{HOST, conflict, evidence_of, required, said, served};

/// Not the default: what is taken out of requests is what the policy names.
const HEADER: &str = "x-my-identity";

/// A stack that believes this provider: `agent-1` is the session `worker`.
async fn start(provider: &Provider) -> Stack<Attache> {
    let oidc = format!(
        "oidc:\n  - name: test\n    issuer: '{issuer}'\n    audience: attache\n    jwks: '{issuer}/jwks'\n    \
         plaintext: true\n    algorithms: [ES256, RS256]\n    header: {HEADER}\n    rules:\n      \
         - {{claims: {{sub: 'agent-*'}}, session: worker}}\n",
        issuer = provider.issuer
    );
    let plan = Plan::default().missing_placeholder("inject");
    plan.session("{name: worker, credentials: [github, custom]}").extra(&oidc).start().await
}

async fn ask(stack: &Stack<Attache>, host: &str, headers: &[(&str, &str)]) -> (u16, String) {
    said(&stack.agent().get(stack.proxy, host, "/v1/x", headers).await)
}

/// Asks until the answer is this one.
async fn comes_to(stack: &Stack<Attache>, token: &str, wanted: &(u16, String)) {
    let end = Instant::now() + 2 * SOON;
    loop {
        let answer = ask(stack, "api.custom.test", &[(HEADER, token)]).await;
        if answer == *wanted {
            return;
        }
        assert!(Instant::now() < end, "{answer:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn claims(provider: &Provider, changes: Value) -> Value {
    let exp = util::wall_ms() / 1000 + 60;
    let mut claims = json!({"iss": provider.issuer, "aud": "attache", "sub": "agent-1", "exp": exp});
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

fn text(hit: &Recorded) -> String {
    String::from_utf8_lossy(&hit.fields.to_lines()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_names_its_session_and_stays_here() {
    let Some(mut provider) = Provider::start() else { return };
    let stack = start(&provider).await;
    let token = provider.token().await;
    stack.broker.evidence().jwt("worker", &token);
    assert_eq!(ask(&stack, "api.custom.test", &[]).await, required());
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &token)]).await, served());
    let bearer = |session: &str| format!("Bearer {}", stack.placeholder(session, "github"));
    let (own, others) = (bearer("worker"), bearer("writer"));
    assert_eq!(ask(&stack, HOST, &[(HEADER, &token), ("authorization", &own)]).await, served());
    assert_eq!(ask(&stack, HOST, &[(HEADER, &token), ("authorization", &others)]).await, conflict());
    assert_eq!(ask(&stack, HOST, &[(HEADER, &token)]).await, required(), "github asks for its placeholder");
    let by_rsa = provider.sign(json!({"alg": "RS256"}), &claims(&provider, json!({})));
    stack.broker.evidence().jwt("worker", &by_rsa);
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &by_rsa)]).await, served());
    let hits = stack.upstream().wait_for(3, SOON).await;
    assert_eq!(hits.len(), 3);
    for hit in &hits {
        assert!(!hit.fields.has(HEADER) && !text(hit).contains(&token) && !text(hit).contains("eyJ"), "{}", text(hit));
    }
    assert_eq!(hits[0].fields.all("x-custom-key"), [format!("Key {CUSTOM}").as_bytes()]);
    assert_eq!(evidence_of(&stack, "worker", 3).await, ["jwt", "placeholder+jwt", "jwt"]);
    // Whoever reads a log cannot use what it says.
    let audit = std::fs::read_to_string(stack.config.state_dir.join("audit.jsonl")).expect("the log");
    let log = std::fs::read_to_string(stack.broker.log_path()).expect("the broker's log");
    let dump = stack.envoy.config_dump().await;
    for (what, text) in [("audit", &audit), ("broker", &log), ("envoy", &stack.envoy.log()), ("config_dump", &dump)] {
        assert!(!text.contains(&token) && !text.contains(&by_rsa), "a token in {what}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_jwt_is_worth_as_much_as_none() {
    let Some(mut provider) = Provider::start() else { return };
    let stack = start(&provider).await;
    let now = util::wall_ms() / 1000;
    let good = provider.token().await;
    stack.broker.evidence().jwt("worker", &good);
    let mut signed = |header: Value, changes: Value| {
        let claims = claims(&provider, changes);
        provider.sign(header, &claims)
    };
    let es = || json!({"alg": "ES256"});
    let (head, rest) = good.split_once('.').expect("a token");
    let bad = [
        ("another issuer", signed(es(), json!({"iss": "https://elsewhere.test"}))),
        ("another audience", signed(es(), json!({"aud": "other"}))),
        ("expired", signed(es(), json!({"exp": now - 1}))),
        ("without an end", signed(es(), json!({"exp": null}))),
        ("not yet", signed(es(), json!({"nbf": now + 3600}))),
        ("a stranger", signed(es(), json!({"sub": "someone"}))),
        ("an algorithm that is not pinned", signed(json!({"alg": "PS256"}), json!({}))),
        ("an unknown key", signed(json!({"alg": "ES256", "kid": "nobody"}), json!({}))),
        // {"alg":"none"}
        ("none", format!("eyJhbGciOiJub25lIn0.{rest}")),
        ("torn", format!("{head}.{}", &rest[..rest.len() - 20])),
        ("huge", format!("{good}{}", "x".repeat(9000))),
        ("two in one", format!("{good},{good}")),
        ("none at all", "agent-1".into()),
        ("empty", String::new()),
    ];
    for (what, token) in &bad {
        assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, token)]).await, required(), "{what}");
        let bearer = format!("Bearer {}", stack.placeholder("worker", "github"));
        let beside = [(HEADER, token.as_str()), ("authorization", bearer.as_str())];
        assert_eq!(ask(&stack, HOST, &beside).await, required(), "{what}, beside a good placeholder");
    }
    let twice = [(HEADER, good.as_str()), (HEADER, good.as_str())];
    assert_eq!(ask(&stack, "api.custom.test", &twice).await, conflict(), "which is meant?");
    assert_eq!(ask(&stack, "api.custom.test", &[("authorization", &format!("Bearer {good}"))]).await, required());
    let placeholder = stack.placeholder("worker", "custom");
    let misplaced = ask(&stack, "api.custom.test", &[(HEADER, &placeholder)]).await;
    assert_eq!(misplaced, (403, "placeholder_misplaced".into()));
    assert!(stack.upstream().requests().is_empty());
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &good)]).await, served());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_a_provider_that_is_gone_refuses() {
    let Some(mut provider) = Provider::start() else { return };
    let stack = start(&provider).await;
    let (old, unseen) = (provider.token().await, provider.token().await);
    stack.broker.evidence().jwt("worker", &old);
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &old)]).await, served());
    provider.rotate();
    // Another key: looked for once, within seconds; no restart, no command.
    let new = provider.token().await;
    stack.broker.evidence().jwt("worker", &new);
    comes_to(&stack, &new, &served()).await;
    // The old key is withdrawn: a token of it that nobody has seen yet is worth nothing.
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &unseen)]).await, required());
    let last = provider.sign(json!({"alg": "ES256", "kid": "unknown"}), &claims(&provider, json!({})));
    drop(provider);
    comes_to(&stack, &last, &(503, "source_unavailable".into())).await;
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &new)]).await, served(), "a key that is held still counts");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_grant_outlives_the_jwt_it_was_given_on() {
    let Some(mut provider) = Provider::start() else { return };
    let stack = start(&provider).await;
    let exp = util::wall_ms() / 1000 + 4;
    let claims = claims(&provider, json!({"exp": exp}));
    let token = provider.sign(json!({"alg": "ES256"}), &claims);
    stack.broker.evidence().jwt("worker", &token);
    assert_eq!(ask(&stack, "api.custom.test", &[(HEADER, &token)]).await, served());
    let mut last_served = 0;
    loop {
        let begun = util::wall_ms();
        let answer = ask(&stack, "api.custom.test", &[(HEADER, &token)]).await;
        match answer {
            answer if answer == served() => last_served = begun,
            answer if answer == required() => break,
            // A lease that ended on its way to the filter is none.
            answer => assert_eq!(answer, (503, "broker_unavailable".into())),
        }
        assert!(begun < (exp + 10) * 1000, "served long past its end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(last_served <= exp * 1000, "served {} ms past its end", last_served - exp * 1000);
    stack.reconcile().await;
}
