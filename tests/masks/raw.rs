//! What no library sends: answers without a length, 1xx heads, upgrades that nobody asked for,
//! connections that break.

use std::net::SocketAddr;
use std::time::Duration;

use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Response, Stack, Unanswered, util};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{stars, uses};

const SECRET: &str = "raw-token-0123456789-abcdefghij";
const HOST: &str = "raw.plain.test";

/// An upstream that answers every connection with these pieces, and closes it.
async fn answering(pieces: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
    let addr = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let pieces = pieces.clone();
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                for piece in pieces {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                    // Long enough for Envoy to have read it.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    });
    addr
}

async fn start(pieces: &[&str]) -> Stack<Attache> {
    let pieces = pieces.iter().map(|piece| piece.replace("SECRET", SECRET)).collect();
    let yaml = format!(
        "{{source: {{file: raw}}, inject: bearer, agent_env: {{RAW: placeholder}}, \
         destinations: [{{host: {HOST}, plaintext: true, upstream: {{address: '{}'}}}}]}}",
        answering(pieces).await
    );
    Plan::default().credential("raw", SECRET, &yaml).session("{name: raw, credentials: [raw]}").start().await
}

async fn ask(stack: &Stack<Attache>) -> Result<Response, Unanswered> {
    let bearer = format!("Bearer {}", stack.broker.exported("raw", "RAW"));
    stack.agent().h1(stack.proxy).await.request("GET", HOST, "/", &[("authorization", &bearer)], b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ends_with_its_connection_is_masked() {
    let (one, two) = SECRET.split_at(9);
    let head = "HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\nx-echo: SECRET\r\n\r\n";
    for pieces in [vec![head, "a SECRET b SECR"], vec![head, "a ", one, two, " b ", "raw-", "tok"]] {
        let stack = start(&pieces).await;
        let answer = ask(&stack).await.expect("an answer");
        assert!(answer.complete, "{answer:?}");
        assert_eq!(answer.header("x-echo"), Some(stars(SECRET.len())));
        let expected = pieces[1..].concat().replace("SECRET", SECRET).replace(SECRET, &stars(SECRET.len()));
        assert_eq!(answer.text(), expected);
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_half_way_gives_nothing_away() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    // Within the secret: what was held is never let go.
    for (body, begins) in
        [("whole SECRET.", format!("whole {}.", stars(SECRET.len()))), ("half raw-token-01234", "half".into())]
    {
        let stack = start(&[head, body]).await;
        stack.site.oracle.excuse("GET / ");
        let answer = ask(&stack).await.expect("the beginning of an answer");
        assert!(!answer.complete && begins.starts_with(answer.text().trim_end()), "{answer:?}");
        assert_eq!(uses(&stack, 1).await[0].text("credential"), "raw");
        stack.reconcile().await;
    }
}

/// Envoy lets no head of this kind through: it never enters the filter.
#[tokio::test(flavor = "multi_thread")]
async fn heads_before_the_answer_give_nothing_away() {
    for early in ["103 Early Hints", "102 Processing", "100 Continue", "199 Whatever"] {
        let early = format!("HTTP/1.1 {early}\r\nlink: <https://x/SECRET>\r\n\r\n");
        let stack = start(&[&early, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
        let answer = ask(&stack).await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{early}");
        stack.reconcile().await;
    }
}

/// Upgrades are refused before the gate; an upstream that takes one nobody asked for is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_opens_no_tunnel() {
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-echo: SECRET\r\n\r\n";
    let stack = start(&[switched, "SECRET through the tunnel"]).await;
    let unasked = ask(&stack).await.expect("an answer");
    assert!((500..600).contains(&unasked.status), "{unasked:?}");
    let bearer = format!("Bearer {}", stack.broker.exported("raw", "RAW"));
    let headers = [("authorization", &*bearer), ("connection", "upgrade"), ("upgrade", "websocket")];
    let asked = stack.agent().get(stack.proxy, HOST, "/", &headers).await;
    assert_eq!(asked.status, 426, "{asked:?}");
    assert_eq!(uses(&stack, 1).await.len(), 1, "the refused one went nowhere");
    stack.envoy.wait_stat("wasmcustom.outcome=.=forwarded;.;attache.decisions", |forwarded| forwarded == 1, SOON).await;
    stack.reconcile().await;
}
