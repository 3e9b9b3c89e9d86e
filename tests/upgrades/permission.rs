//! Who may open one, where, and for how long.

use attache_tests::Reply;
use attache_tests::oracle::Audit;
use attache_tests::websocket::{BOTH, Opened, WebSocket, frame};

use super::{CALM, CHAT, SECRET, SOON, open, opens, reason, saying, start};

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_permitted_it_opens_with_the_credential() {
    let stack = start().await;
    stack.upstream().answer_with(|_| Reply::upgrade("websocket"));
    for how in BOTH {
        let (mut socket, answer) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
        assert_eq!(answer.status, opens(how), "{how:?}: {answer:?}");
        // Whatever is said in it arrives, and comes back.
        for said in [frame(0x82, [0, 255, 7]), frame(0x81, "x".repeat(40_000))] {
            socket.send(&said).await.expect("sent");
            assert_eq!(socket.receive(said.len()).await.expect("returned"), said, "{how:?}");
        }
        let hit = stack.upstream().hits().pop().expect("it went on");
        assert_eq!(hit.header("authorization"), Some(format!("Bearer {SECRET}")));
        assert_eq!((&*hit.method, hit.header("upgrade")), (&b"GET"[..], Some("websocket".into())), "{how:?}");
    }
    stack.reconcile().await;
    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    let uses: Vec<_> = audit.of_kind("use").map(|record| record.text("response_code")).collect();
    assert_eq!(uses, ["101", "101"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_it_is_refused_so_that_clients_fall_back() {
    let stack = start().await;
    for how in BOTH {
        // Where a body decides, nobody waits for one that never comes.
        for (session, host, path, status, word) in [
            ("talks", CALM, "/live", 426, "upgrade_refused"),
            ("talks", CALM, "/graphql", 426, "upgrade_refused"),
            ("listens", CALM, "/live", 426, "upgrade_refused"),
            ("listens", CHAT, "/live", 403, "read_only"),
            ("listens", CHAT, "/graphql", 403, "read_only"),
        ] {
            let (_, answer) = open(&stack, how, session, host, path, &[]).await.expect("an answer");
            assert_eq!((answer.status, &*reason(&answer)), (status, word), "{session} at {host}{path}, {how:?}");
        }
    }
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_spoken() {
    let stack = start().await;
    let bearer = format!("Authorization: Bearer {}", stack.broker.exported("talks", "CHAT"));
    for (method, upgrade) in [("GET", "other/2"), ("GET", "websocket, other"), ("POST", "websocket")] {
        let mut client = stack.agent().h1(stack.proxy).await;
        let head = format!(
            "{method} /live HTTP/1.1\r\nHost: {CHAT}\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n{bearer}\r\n\r\n"
        );
        client.send(head).await.expect("sent");
        let answer = client.response(SOON).await.expect("an answer");
        assert_eq!((answer.status, &*reason(&answer)), (426, "upgrade_refused"), "{method} {upgrade}");
    }
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_no_upgrade_hears_nothing_but_the_request() {
    let stack = start().await;
    stack.upstream().answer_with(|_| Reply::new(404).body("no WebSocket here\n"));
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {CHAT}\r\n\r\n");
    for how in BOTH {
        let before = stack.upstream().requests().len();
        let (mut socket, answer) = match how {
            Opened::ByGet => {
                let mut client = stack.agent().h1(stack.proxy).await;
                let bearer = stack.broker.exported("talks", "CHAT");
                // What follows the head came with it: Envoy takes it for what the client says in the tunnel.
                let head = format!(
                    "GET /live HTTP/1.1\r\nHost: {CHAT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Authorization: Bearer {bearer}\r\n\r\n{smuggled}"
                );
                client.send(head).await.expect("sent");
                let answer = client.head(SOON).await.expect("an answer");
                (WebSocket::H1(client), answer)
            }
            Opened::ByConnect => open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer"),
        };
        assert_eq!(answer.status, 404, "{how:?}");
        socket.send(smuggled.as_bytes()).await.ok();
        assert_eq!(socket.end(SOON).await, b"no WebSocket here\n");
        drop(socket);
        let heard = stack.upstream().wait_for(before + 1, SOON).await;
        let paths: Vec<_> = heard[before..].iter().map(|request| request.path_text()).collect();
        assert_eq!(paths, ["/live"], "{how:?}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cut_when_its_session_may_go_on_no_longer() {
    let stack = start().await;
    stack.upstream().answer_with(|_| saying(&[&frame(0x81, "hello")]));
    for (how, change) in [
        (Opened::ByGet, &["session", "set-access-mode", "talks", "read-only"][..]),
        (Opened::ByConnect, &["session", "revoke", "talks"]),
    ] {
        if change[1] == "revoke" {
            stack.broker.json(&["session", "set-access-mode", "talks", "read-write"]);
        }
        let (mut socket, answer) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
        assert_eq!(answer.status, opens(how));
        assert_eq!(socket.receive(7).await.expect("a greeting"), frame(0x81, "hello"));
        stack.broker.json(change);
        assert_eq!(socket.end(SOON).await, b"", "{change:?}");
    }
    let ended = stack.upstream().wait_for(2, SOON).await;
    assert_eq!(ended.len(), 2, "the upstream was left, too");
    stack.reconcile().await;
}
