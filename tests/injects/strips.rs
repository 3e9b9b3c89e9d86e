//! One credential goes upstream: ours. What the agent brought along, and what names it to us, stays.

use attache_core::refusal::Reason;
use attache_tests::refusal;
use attache_tests::stack::{GITHUB, Plan};

use crate::{both_arrive, both_ways, head};

/// What an agent might smuggle along.
const OWN: &str = "agents-own-credential";

const HEADERS: [&str; 16] = [
    "x-api-key",
    "X-Api-Key",
    "api-key",
    "cookie",
    "x-custom-key",
    "proxy-authorization",
    "x-auth-token",
    "x-access-token",
    "x-goog-api-key",
    "private-token",
    "job-token",
    "deploy-token",
    "x-amz-security-token",
    "x-vault-token",
    "x-figma-token",
    "x-shopify-access-token",
];

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_carry_a_credential_anywhere_are_taken_out() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    for name in HEADERS {
        let lower = name.to_lowercase();
        let lines = [("authorization", bearer.as_str()), (&lower, OWN), (&lower, OWN), ("accept", "text/plain")];
        for hit in both_arrive(&stack, "api.github.com", "/user", &lines).await {
            assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()], "{name}");
            assert!(!head(&hit).contains(OWN), "{name}: {}", head(&hit));
            assert_eq!(hit.fields.all("accept"), [b"text/plain"], "what is no credential stays");
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_authorization_line_does_not_survive() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let own = format!("Bearer {OWN}");
    for lines in [[&bearer, &own], [&own, &bearer], [&bearer, &bearer]] {
        let lines = lines.map(|value| ("authorization", value.as_str()));
        for hit in both_arrive(&stack, "api.github.com", "/user", &lines).await {
            assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()], "{lines:?}");
            assert!(!head(&hit).contains(OWN), "{}", head(&hit));
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_carry_a_credential_anywhere_are_taken_out_in_any_spelling() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    for name in ["api_key", "access_token", "%61pi_key", "API_KEY", "api%5Fkey", "access%5ftoken", "Api-Key"] {
        let target = format!("/user?b=%2B&{name}={OWN}&a=1&{name}={OWN}&c");
        for hit in both_arrive(&stack, "api.github.com", &target, &[("authorization", &bearer)]).await {
            assert_eq!(hit.path_text(), "/user?b=%2B&a=1&c", "{name}");
        }
        // Some servers split at `;`, too.
        let target = format!("/user?b=%2B;{name}={OWN};a=1&c;{name}={OWN}");
        for hit in both_arrive(&stack, "api.github.com", &target, &[("authorization", &bearer)]).await {
            assert_eq!(hit.path_text(), "/user?b=%2B;a=1&c", "{name}");
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_the_agent_to_us_stays_with_us() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    let lines = [
        ("authorization", bearer.as_str()),
        ("x-attache-session", &token),
        ("x-attache-reason", "made up"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-original-path", "/10.0.0.1"),
    ];
    for hit in both_arrive(&stack, "api.github.com", "/user", &lines).await {
        let head = head(&hit).to_lowercase();
        for foreign in ["x-attache", "attache", "x-forwarded", "x-envoy", "10.0.0.1", "127.0.0.1"] {
            assert!(!head.contains(foreign), "{foreign}: {head}");
        }
    }
    stack.reconcile().await;
}

/// Places in which only this destination takes a credential: its preset's, and the config's own.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_destination_takes_besides_is_taken_out_there_and_a_placeholder_may_stand_there() {
    const GEMINI: &str = "generativelanguage.googleapis.com";
    const SECRET: &str = "AIzaTheRealKeyThatNoAgentEverSees-00005";
    let stack = Plan::default()
        .credential(
            "gemini",
            SECRET,
            &format!("{{preset: gemini, destinations: [{{host: {GEMINI}, upstream: DIAL, strip: {{headers: [X-Own-Key]}}}}]}}"),
        )
        .env("GEMINI_API_KEY", SECRET)
        .session("{name: both, credentials: [gemini, github]}")
        .start()
        .await;
    stack.site.oracle.exports("gemini", "GEMINI_API_KEY");
    let placeholder = stack.broker.exported("both", "GEMINI_API_KEY");
    let shown: [(String, &[(&str, &str)]); 3] = [
        (format!("/v1beta/models?a=1&key={placeholder}&Key={OWN};b=2"), &[("x-own-key", OWN)]),
        ("/v1beta/models?a=1".into(), &[("x-own-key", &placeholder), ("x-goog-api-key", OWN)]),
        (format!("/v1beta/models?k%65y={OWN}&a=1"), &[("x-goog-api-key", &placeholder), ("x-own-key", OWN)]),
    ];
    for (target, headers) in &shown {
        for hit in both_arrive(&stack, GEMINI, target, headers).await {
            assert_eq!(hit.fields.all("x-goog-api-key"), [SECRET.as_bytes()], "{target}");
            assert_eq!(hit.path_text(), "/v1beta/models?a=1", "{target}");
            let head = head(&hit);
            assert!(!head.contains(OWN) && !head.contains("ATTACHE") && !hit.fields.has("x-own-key"), "{head}");
        }
    }
    // Elsewhere neither is a credential's place.
    let github = stack.broker.exported("both", "GITHUB_TOKEN");
    let bearer = format!("Bearer {github}");
    let target = format!("/user?key={OWN}");
    for hit in both_arrive(&stack, "api.github.com", &target, &[("authorization", &bearer), ("x-own-key", OWN)]).await {
        assert_eq!((hit.path_text(), hit.fields.all("x-own-key")), (target.clone(), vec![OWN.as_bytes()]));
    }
    let target = format!("/user?key={github}");
    for answer in both_ways(&stack, "GET", "api.github.com", &target, &[]).await {
        let refused = refusal::check(&answer, Reason::PlaceholderMisplaced);
        assert!(refused.is_ok(), "{refused:?}");
    }
    stack.reconcile().await;
}
