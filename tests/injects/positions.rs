//! Every kind of injection, over HTTP/1 and HTTP/2.

use attache_tests::stack::{CUSTOM, GITHUB, Plan, QUERY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{both_arrive, both_ways, head};

/// Printable ASCII that means something in one position or another; no two alike.
const TOKEN: &str = "t'o\"k;e,n<0>%2F\\tab{}^`|~";
const BASIC: &str = "b:a:s:i:c@%3A /?#[]!$&'()*+,;=";

fn extra(name: &str, inject: &str) -> String {
    format!(
        "{{source: {{file: {name}}}, inject: {inject}, agent_env: {{EXTRA_{}: placeholder}}, \
         destinations: [{{host: {name}.extra.test, upstream: DIAL}}]}}",
        name.to_uppercase()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_goes_upstream_and_the_placeholder_does_not() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    let bearer = format!("Bearer {placeholder}");
    for (host, path) in [("127.0.0.1", "/api.github.com/user?page=2"), ("api.github.com", "/user?page=2")] {
        for hit in both_arrive(&stack, host, path, &[("authorization", &bearer)]).await {
            assert_eq!(hit.path_text(), "/user?page=2");
            assert_eq!(&hit.authority[..], b"api.github.com");
            assert_eq!(hit.sni.as_deref(), Some("api.github.com"));
            assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()]);
            assert!(!head(&hit).contains("ATTACHE"), "{}", head(&hit));
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_odd_characters_arrives_unharmed_in_every_position() {
    let plan = Plan::default()
        .credential("token", TOKEN, &extra("token", "token"))
        .credential("basic", BASIC, &extra("basic", "{basic: user}"))
        .session("{name: odd, credentials: [custom, query, token, basic]}");
    let stack = plan.start().await;
    let pair = STANDARD.encode(format!("user:{BASIC}"));
    for (variable, host, name, value) in [
        ("CUSTOM_KEY", "api.custom.test", "x-custom-key", format!("Key {CUSTOM}")),
        ("EXTRA_TOKEN", "token.extra.test", "authorization", format!("token {TOKEN}")),
        ("EXTRA_BASIC", "basic.extra.test", "authorization", format!("Basic {pair}")),
    ] {
        let bearer = format!("Bearer {}", stack.broker.exported("odd", variable));
        for hit in both_arrive(&stack, host, "/v1/x", &[("authorization", &bearer)]).await {
            assert_eq!(hit.fields.all(name), [value.as_bytes()], "{host}");
            let lines = ["authorization", "x-custom-key"].map(|name| hit.fields.all(name).len());
            assert_eq!(lines.iter().sum::<usize>(), 1, "one credential: {}", head(&hit));
            assert!(!head(&hit).contains("ATTACHE"), "{}", head(&hit));
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_is_taken_wherever_a_client_puts_it() {
    let stack = Plan::default().start().await;
    let (github, custom) = (stack.placeholder("writer", "github"), stack.placeholder("writer", "custom"));
    for value in [
        format!("Bearer {github}"),
        format!("bearer   {github}"),
        format!("token {github}"),
        github.clone(),
        format!("Basic {}", STANDARD.encode(format!("me:{github}"))),
    ] {
        for hit in both_arrive(&stack, "api.github.com", "/user", &[("authorization", &value)]).await {
            assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()], "{value}");
        }
    }
    for (name, value) in [
        ("x-custom-key", format!("Key {custom}")),
        ("x-custom-key", custom.clone()),
        ("X-API-Key", custom.clone()),
        ("authorization", format!("Bearer {custom}")),
    ] {
        let before = stack.upstream().requests().len();
        let answer = stack.agent().get(stack.proxy, "api.custom.test", "/v1/x", &[(name, &value)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let hit = &stack.upstream().requests()[before];
        assert_eq!(hit.fields.all("x-custom-key"), [format!("Key {CUSTOM}").as_bytes()]);
        assert!(!head(hit).contains("ATTACHE") && !hit.fields.has("x-api-key"), "{}", head(hit));
    }
    stack.reconcile().await;
}

/// Git sends the token as the password of a user name that GitHub ignores, or as the user name;
/// and it sends none before it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn git_is_asked_for_basic_and_its_basic_is_replaced() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    let target = "/o/r/info/refs?service=git-upload-pack";
    for answer in both_ways(&stack, "GET", "github.com", target, &[]).await {
        assert_eq!(answer.status, 401, "{}", answer.text());
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }
    for answer in both_ways(&stack, "GET", "api.github.com", "/user", &[]).await {
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, None), "git does not go there");
    }
    let expected = format!("Basic {}", STANDARD.encode(format!("x-access-token:{GITHUB}")));
    for pair in [
        format!("x-access-token:{placeholder}"),
        format!("{placeholder}:"),
        format!("{placeholder}:x-oauth-basic"),
        format!("me:{placeholder}"),
    ] {
        for scheme in ["Basic", "basic"] {
            let basic = format!("{scheme} {}", STANDARD.encode(&pair));
            for hit in both_arrive(&stack, "github.com", target, &[("authorization", &basic)]).await {
                assert_eq!(hit.fields.all("authorization"), [expected.as_bytes()], "{pair}");
                assert_eq!(hit.path_text(), target);
            }
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_is_set_in_the_query_and_the_others_stay_as_they_are() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "query");
    let bearer = format!("Bearer {placeholder}");
    let encoded: String = QUERY.bytes().map(encode).collect();
    for (query, kept) in [
        (format!("?key={placeholder}"), "?"),
        (format!("?a=1&key={placeholder}&b=%20x&a=2&c"), "?a=1&b=%20x&a=2&c&"),
        (format!("?b=2&a=1&key={placeholder}&key=mine&KEY=mine&k%65y=mine&z="), "?b=2&a=1&z=&"),
    ] {
        for hit in both_arrive(&stack, "query.custom.test", &format!("/search{query}"), &[]).await {
            assert_eq!(hit.path_text(), format!("/search{kept}key={encoded}"), "{query}");
            assert!(!hit.fields.has("authorization"), "{}", head(&hit));
        }
    }
    for (query, whole) in [("", "?"), ("?a=%2B+1", "?a=%2B+1&")] {
        let hits = both_arrive(&stack, "query.custom.test", &format!("/{query}"), &[("authorization", &bearer)]).await;
        for hit in hits {
            assert_eq!(hit.path_text(), format!("/{whole}key={encoded}"), "{query}");
            assert!(!head(&hit).contains("ATTACHE"), "{}", head(&hit));
        }
    }
    stack.reconcile().await;
}

/// RFC 3986, 2.3: all but the unreserved characters.
fn encode(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}
