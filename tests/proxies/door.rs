//! Nobody is let in whom the broker does not know, and nobody where the policy does not lead.

use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::stack::{Plan, SOON};
use serde_json::json;

use super::{HOST, PINNED, Tunnel, asked, basic, connect, digest, reason, start, token};

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_asked_in_a_way_that_clients_of_a_proxy_understand() {
    let stack = start(Plan::default()).await;
    for headers in [&[][..], &[("proxy-authorization", "Basic YTpi")], &[("proxy-authorization", "Bearer nothing")]] {
        let (_, answer) = connect(&stack, "api.github.com:443", headers).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (407, "identity_required"), "{headers:?}");
        let challenge = answer.header("proxy-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }
    assert_eq!(stack.broker.calls(Endpoint::Tunnels), 0, "nothing was shown that the broker could know");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_in_every_form_that_clients_send() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    let bearer = format!("Bearer {mine}");
    for headers in [
        [("proxy-authorization", basic(&mine).as_str())],
        [("proxy-authorization", bearer.as_str())],
        [("x-attache-session", mine.as_str())],
    ] {
        let (_, answer) = connect(&stack, "api.github.com:443", &headers).await;
        assert_eq!(answer.status, 200, "{headers:?}");
    }
    let tunnelled = "wasmcustom.outcome=.=tunnelled;.;attache.decisions";
    stack.envoy.wait_stat(tunnelled, |tunnels| tunnels == 3, SOON).await;
    let asked = asked(&stack, Endpoint::Tunnels);
    assert_eq!(asked["evidence"], json!({"session_token": digest(&mine)}));
    assert_eq!((&asked["host"], &asked["port"]), (&json!(HOST), &json!(443)));
    let (basic, other) = (basic(&mine), token("other"));
    let both = [("proxy-authorization", basic.as_str()), ("x-attache-session", other.as_str())];
    let (_, answer) = connect(&stack, "api.github.com:443", &both).await;
    assert_eq!(reason(&answer), "evidence_conflict");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_leads_where_the_policy_leads_and_nowhere_else() {
    let stack = start(Plan::default()).await;
    let mine = basic(&token("mine"));
    for (authority, expected) in [
        ("api.github.com:443", "200"),
        ("API.GitHub.com:443", "200"),
        (PINNED[0], "200"),
        (PINNED[1], "200"),
        ("api.github.com:22", "host_not_allowed"),
        ("api.github.com:80", "host_not_allowed"),
        ("api.github.com:8443", "host_not_allowed"),
        ("pinned.extra.test:22", "host_not_allowed"),
        ("example.com:443", "host_not_allowed"),
        ("127.0.0.1:443", "host_not_allowed"),
        ("[::1]:443", "host_not_allowed"),
        ("0177.0.0.1:443", "authority_malformed"),
        ("2130706433:443", "authority_malformed"),
        ("0x7f.1:443", "authority_malformed"),
        ("api.github.com.:443", "authority_malformed"),
        // Envoy itself takes this for no authority.
        ("user@api.github.com:443", "400"),
        // As it does this, which names no port.
        ("api.github.com", "400"),
    ] {
        let (_, answer) = connect(&stack, authority, &[("proxy-authorization", &mine)]).await;
        assert_eq!(reason(&answer), expected, "{authority}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_bound_to_tls_never_travels_without() {
    let stack = start(Plan::default()).await;
    let mine = basic(&token("mine"));
    for target in ["http://api.github.com/user", "http://api.github.com:443/user", "http://api.github.com:80/user"] {
        let mut client = stack.agent().h1(stack.proxy).await;
        let host = target.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let bearer = format!("Bearer {}", stack.placeholder());
        let headers = [("proxy-authorization", mine.as_str()), ("authorization", bearer.as_str())];
        let answer = client.request("GET", host, target, &headers, b"").await.expect("an answer");
        assert_eq!(reason(&answer), "tls_required", "{target}");
    }
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_that_counts_the_door_stays_shut() {
    let stack = start(Plan::default().limit("callout_timeout: 500ms")).await;
    let before = stack.upstream().requests().len();
    for (n, fault) in (0..).zip([
        Behaviour::Hang,
        Behaviour::Close,
        Behaviour::Status(500),
        Behaviour::Redirect302,
        Behaviour::Html200,
        Behaviour::HeadersOnly,
        Behaviour::Truncated,
        Behaviour::Garbage,
        Behaviour::ZeroHeaders,
        Behaviour::WrongNonce,
    ]) {
        let mine = basic(&token(&format!("session-{n}")));
        stack.broker.behave(Endpoint::Tunnels, fault);
        let (_, answer) = connect(&stack, "api.github.com:443", &[("proxy-authorization", &mine)]).await;
        assert_eq!(reason(&answer), "broker_unavailable", "{fault:?}");
        stack.broker.behave(Endpoint::Tunnels, Behaviour::Ok);
        let (_, answer) = connect(&stack, "api.github.com:443", &[("proxy-authorization", &mine)]).await;
        assert_eq!(answer.status, 200, "after {fault:?}");
    }
    assert_eq!(stack.upstream().requests().len(), before);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_broker_reaches_the_client() {
    let stack = start(Plan::default()).await;
    for (n, (word, status)) in (0..).zip([
        ("address_not_allowed", 403),
        ("host_unresolved", 502),
        ("session_expired", 407),
        ("placeholder_unknown", 407),
    ]) {
        let denied = json!({"denied": {"reason": word}});
        stack.broker.answer_tunnels(move |_| denied.clone());
        let mine = basic(&token(&format!("refused-{n}")));
        let (_, answer) = connect(&stack, "api.github.com:443", &[("proxy-authorization", &mine)]).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (status, word));
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_thrown_out_and_not_let_in_again() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    let session_id = format!("s-{:.8}", digest(&mine));
    let mut opaque =
        Tunnel::trusting(&stack.site.ca, &stack, &mine, PINNED[0], "pinned.extra.test").await.expect("a tunnel");
    let answer = opaque.ask("GET", "pinned.extra.test", "/before", "none").await.expect("an answer");
    assert_eq!(answer.status, 200);
    stack.broker.answer_tunnels(|_| json!({"denied": {"reason": "session_expired"}}));
    stack.broker.change(json!({"session_id": session_id, "left": "nothing"}));
    let ended = opaque.client.rest(SOON).await;
    assert!(ended.is_ok(), "the tunnel was cut: {ended:?}");
    let (_, answer) = connect(&stack, PINNED[0], &[("proxy-authorization", &basic(&mine))]).await;
    assert_eq!(reason(&answer), "session_expired");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_the_door_lets_nobody_in_and_the_next_vm_serves() {
    let stack = start(Plan::default().with_traps()).await;
    let mine = basic(&token("mine"));
    let asked = stack.broker.calls(Endpoint::Tunnels);
    let headers = [("proxy-authorization", mine.as_str()), ("x-attache-trap", "door_headers")];
    let (_, answer) = connect(&stack, PINNED[0], &headers).await;
    assert_eq!(answer.status, 503);
    assert_eq!(stack.broker.calls(Endpoint::Tunnels), asked);
    assert!(stack.upstream().connections().is_empty());
    let begun = std::time::Instant::now();
    loop {
        let (_, answer) = connect(&stack, PINNED[0], &[("proxy-authorization", &mine)]).await;
        if answer.status == 200 {
            break;
        }
        assert!(begun.elapsed() < SOON, "{answer:?}");
    }
    stack.reconcile().await;
}
