//! Nobody is ever taken for somebody else, whatever clients do to their connections.

use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};
use serde_json::json;

use super::{HOST, Tunnel, asked, basic, digest, start, token};

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_door_is_evidence_of_every_request_behind_it() {
    let stack = start(Plan::default()).await;
    let (mine, theirs) = (token("mine"), token("theirs"));
    for token in [&mine, &theirs] {
        let mut inside = Tunnel::open(&stack, token, "api.github.com:443", HOST).await.expect("a tunnel");
        let answer = inside.ask("GET", HOST, "/user", &stack.placeholder()).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(asked(&stack, Endpoint::Grants)["evidence"]["session_token"], digest(token));
    }
    // Another token in the request than at the door.
    let mut inside = Tunnel::open(&stack, &mine, "api.github.com:443", HOST).await.expect("a tunnel");
    let bearer = format!("Bearer {}", stack.placeholder());
    let headers = [("authorization", bearer.as_str()), ("x-attache-session", theirs.as_str())];
    let answer = inside.client.request("GET", HOST, "/user", &headers, b"").await.expect("an answer");
    assert_eq!(super::reason(&answer), "evidence_conflict");
    stack.reconcile().await;
}

/// Twelve clients open tunnels at once, each with its own token; most are reset right after CONNECT, some
/// before its answer. Who goes on asks one question inside, and the broker must hear its own token.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_storm_hands_no_connection_to_another_client() {
    storm(Plan::default()).await;
}

/// The storm, and whose requests came out of it.
pub async fn storm(plan: Plan) {
    const CLIENTS: usize = 12;
    const ROUNDS: usize = 100;
    let stack = start(plan.workers(2)).await;
    // Every question is answered, and says whose it was: the session's name goes upstream in a header.
    stack.broker.answer_grants(|asked| {
        let digest = asked["evidence"]["session_token"].as_str().unwrap_or("nobody");
        json!({"granted": {
            "session_id": "session-1", "session": "agent", "credential": "github", "access_mode": "read-write",
            "lease": {"fingerprint": "0123456789abcdef", "ttl_ms": 60_000, "refresh_after_ms": 30_000},
            "max_unacked_uses": 100_000,
            "injections": [{"header": "authorization", "value": format!("Bearer for-{digest}")}],
            "mask": [],
        }})
    });
    let stack = std::sync::Arc::new(stack);
    let clients = (0..CLIENTS).map(|client| {
        let stack = std::sync::Arc::clone(&stack);
        tokio::spawn(async move {
            let mut asked = 0;
            for round in 0..ROUNDS {
                let mine = token(&format!("client-{client}"));
                let mut h1 = stack.agent().h1(stack.proxy).await;
                let head = format!(
                    "CONNECT api.github.com:443 HTTP/1.1\r\nHost: api.github.com:443\r\nProxy-Authorization: {}\r\n\r\n",
                    basic(&mine)
                );
                if h1.send(head).await.is_err() {
                    continue;
                }
                match (client * 7 + round * 13) % 10 {
                    // At once.
                    0..3 => h1.abort(),
                    // As soon as the tunnel stands.
                    3..6 => {
                        let _ = h1.head(SOON).await;
                        h1.abort();
                    }
                    _ => {
                        assert_eq!(h1.head(SOON).await.expect("an answer").status, 200);
                        let wire = h1.into_tls(HOST, super::ca().client(&["http/1.1"])).await.expect("a handshake");
                        let mut inside = stack.agent().h1_over(wire, format!("client {client}, let in with {mine}"));
                        let path = format!("/{}", digest(&mine));
                        let bearer = format!("Bearer {}", stack.placeholder());
                        let answer = inside.request("GET", HOST, &path, &[("authorization", &bearer)], b"").await;
                        assert_eq!(answer.expect("an answer").status, 200);
                        asked += 1;
                    }
                }
            }
            asked
        })
    });
    let mut asked = 0;
    for client in clients.collect::<Vec<_>>() {
        asked += client.await.expect("a client");
    }
    assert!(asked >= CLIENTS * ROUNDS / 3, "{asked} asked");
    let came = stack.upstream().requests();
    assert_eq!(came.len(), asked);
    for request in came {
        let whose = request.header("authorization").unwrap_or_default();
        assert_eq!(whose, format!("Bearer for-{}", String::from_utf8_lossy(&request.path).trim_start_matches('/')));
    }
    stack.reconcile().await;
}
