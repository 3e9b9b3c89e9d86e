//! Large bodies go through a tunnel piece by piece: Envoy never holds more than its buffers.

use std::net::SocketAddr;
use std::sync::Arc;

use attache_tests::agent::Wire;
use attache_tests::fake_broker::Grant;
use attache_tests::stack::Plan;
use attache_tests::{Ca, FakeBroker, Stack, util};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{basic, connect, token};

const BULK: &str = "bulk.extra.test";
const SECRET: &str = "bulk-token-0123456789-abcdefghij";
const PIECE: usize = 256 << 10;
/// How large a body is, in bytes.
const BODY: usize = 512 << 20;
/// How much more memory Envoy may take for it: its buffers, on four connections, and what its allocator keeps.
const MORE: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn half_a_gigabyte_goes_up_and_down_in_bounded_memory() {
    let upstreams = Ca::new();
    let server = serve(upstreams.issue(&[BULK]).server_config(&["http/1.1"])).await;
    let yaml = format!(
        "{{source: {{file: bulk}}, inject: bearer, agent_env: {{BULK: placeholder}}, destinations: \
         [{{host: {BULK}, upstream: {{address: '{server}', ca_file: {}}}}}]}}",
        upstreams.pem_path().display()
    );
    let stack = super::start(Plan::default().credential("bulk", SECRET, &yaml)).await;
    stack.broker.answer_grants(|_| {
        let grant = Grant::header("bulk", "authorization", &format!("Bearer {SECRET}"));
        Grant { mask: vec![SECRET.into()], ..grant }.answer()
    });
    let bearer = format!("Bearer {}", stack.placeholder());
    let before = util::resident(stack.envoy.pid());
    let mut most = before;

    let head = format!("PUT /up HTTP/1.1\r\nHost: {BULK}\r\nAuthorization: {bearer}\r\nContent-Length: {BODY}\r\n\r\n");
    let mut inside = open(&stack).await;
    inside.write_all(head.as_bytes()).await.expect("sent");
    let piece = vec![b'x'; PIECE];
    for _ in 0..BODY / PIECE {
        inside.write_all(&piece).await.expect("sent");
        most = most.max(util::resident(stack.envoy.pid()));
    }
    // What is written may wait in the client's TLS, and reading does not send it.
    inside.flush().await.expect("sent");
    let (answer, begun) = read_head(&mut inside).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(begun, BODY.to_string().as_bytes(), "all of it arrived");

    let head = format!("GET /down HTTP/1.1\r\nHost: {BULK}\r\nAuthorization: {bearer}\r\n\r\n");
    let mut inside = open(&stack).await;
    inside.write_all(head.as_bytes()).await.expect("sent");
    let (answer, begun) = read_head(&mut inside).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (mut left, mut piece) = (BODY - begun.len(), vec![0; PIECE]);
    while left > 0 {
        let size = inside.read(&mut piece).await.expect("a piece");
        assert!(size > 0, "{left} bytes are missing");
        left -= size;
        most = most.max(util::resident(stack.envoy.pid()));
    }
    println!("Envoy had {} MiB, and {} MiB at most", before >> 20, most >> 20);
    assert!(most < before + MORE, "Envoy had {} MiB, and {} MiB at most", before >> 20, most >> 20);
    stack.reconcile().await;
}

/// A tunnel with TLS in it, whose bytes nobody keeps.
async fn open(stack: &Stack<FakeBroker>) -> Wire {
    let (client, answer) =
        connect(stack, &format!("{BULK}:443"), &[("proxy-authorization", &basic(&token("mine")))]).await;
    assert_eq!(answer.status, 200);
    client.into_tls(BULK, super::ca().client(&["http/1.1"])).await.expect("a handshake")
}

/// The head of a message, and what came of its body with it.
async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).expect("text"), body);
        }
        assert!(from.read_buf(&mut bytes).await.expect("a head") > 0, "{}", bytes.escape_ascii());
    }
}

/// An upstream that says how long a body was, or sends one.
async fn serve(tls: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
    let addr = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = TlsAcceptor::from(Arc::clone(&tls));
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(tcp).await else { return };
                let (head, begun) = read_head(&mut stream).await;
                let mut piece = vec![b'x'; PIECE];
                if head.starts_with("GET") {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.expect("sent");
                    for _ in 0..BODY / PIECE {
                        stream.write_all(&piece).await.expect("sent");
                    }
                } else {
                    let mut heard = begun.len();
                    while heard < BODY {
                        heard += stream.read(&mut piece).await.expect("a piece");
                    }
                    let said = heard.to_string();
                    let length = said.len();
                    let head =
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{said}");
                    stream.write_all(head.as_bytes()).await.expect("sent");
                }
                stream.flush().await.expect("sent");
                // Until the other side ends.
                let _ = stream.read_u8().await;
            });
        }
    });
    addr
}
