//! Clients that are let in and then stand in the way: bodies that never come, answers that nobody reads.

use crate::world::World;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Longer than any body may take, on a machine that does much else.
const LONG: Duration = Duration::from_secs(40);

/// Filters and operators are served.
async fn serves(world: &World) {
    let served = timeout(Duration::from_secs(10), async {
        assert!(world.plain_grant().await["granted"].is_object());
        assert_eq!(world.operate("GET", "/v1/sessions", Value::Null).await.status, 200);
    });
    assert!(served.await.is_ok(), "others are served");
}

/// Sends the head and one byte of a body; what is answered until the connection ends, or is silent.
async fn begun(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    stream.write_all(format!("{head}content-length: 100\r\nconnection: close\r\n\r\n{{").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(LONG, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it is held for ever");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_at_both_doors_and_delays_nobody() {
    let world = World::new().await;
    let grant = format!("POST /v1/grants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n", world.token());
    let audit = grant.replace("/v1/grants", "/v1/audit?worker=0123abcd");
    let session = "POST /v1/sessions HTTP/1.1\r\nhost: x\r\n";
    let mode = "PUT /v1/sessions/reviewer/access-mode HTTP/1.1\r\nhost: x\r\n";
    let tcp = async || TcpStream::connect(world.data_plane()).await.unwrap();
    let unix = async || UnixStream::connect(&world.config.listen.control).await.unwrap();
    let (a, b, c, d, ()) = tokio::join!(
        async { begun(tcp().await, &grant).await },
        async { begun(tcp().await, &audit).await },
        async { begun(unix().await, session).await },
        async { begun(unix().await, mode).await },
        serves(&world),
    );
    for answer in [a, b] {
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    for answer in [c, d] {
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    serves(&world).await;
}

#[tokio::test]
async fn whoever_never_reads_an_answer_delays_nobody() {
    let world = World::new().await;
    let ask = format!("GET /v1/policy HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", world.token());
    let mut deaf = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(world.data_plane()).await.unwrap();
        // Until nobody takes any more: both sides' buffers are full of what is not read.
        let all = ask.repeat(20_000);
        let _ = timeout(Duration::from_millis(50), stream.write_all(all.as_bytes())).await;
        deaf.push(stream);
    }
    serves(&world).await;
    drop(deaf);
    serves(&world).await;
}
