//! What cannot be searched goes no further.

use std::io::Read as _;
use std::sync::Arc;

use attache_tests::agent::PATIENCE;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::upstream::{Held, Part};
use attache_tests::{Reply, util};
use flate2::Compression;
use flate2::read::GzEncoder;

use super::{HOST, both, once, stars, uses};

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_answer_is_replaced() {
    let stack = Plan::default().start().await;
    let mut gzip = Vec::new();
    GzEncoder::new(GITHUB.as_bytes(), Compression::best()).read_to_end(&mut gzip).expect("compressed");
    for (name, value) in [("content-encoding", "gzip"), ("content-encoding", "identity, br"), ("grpc-encoding", "gzip")]
    {
        let reply = Reply::new(200).field(name, value).field("x-theirs", "1").body(gzip.clone());
        for answer in both(&stack, reply).await {
            assert_eq!((answer.status, answer.complete), (502, true), "{name}: {value}");
            assert_eq!(answer.json()["reason"], "response_unreadable");
            assert_eq!(answer.header("x-attache-reason").as_deref(), Some("response_unreadable"));
            assert_eq!((answer.header("x-theirs"), answer.header(name)), (None, None));
        }
    }
    let records = uses(&stack, 6).await;
    assert!(records.iter().all(|used| used.text("reason") == "response_unreadable"), "{records:?}");
    assert!(records.iter().all(|used| used.text("response_code") == "502"), "{records:?}");
    stack.envoy.wait_stat("wasmcustom.attache.cut", |cut| cut == 6, SOON).await;
    let reply = Reply::new(200).field("content-encoding", "identity").body("as it is");
    for answer in both(&stack, reply).await {
        assert_eq!((answer.status, &*answer.text()), (200, "as it is"));
    }
    stack.reconcile().await;
}

/// No header says so, but clients go by the byte order mark: each character takes two bytes there.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_utf_16_ends_before_anything_of_it_is_told() {
    let stack = Plan::default().start().await;
    let wide =
        |order: fn(u16) -> [u8; 2]| -> Vec<u8> { format!("\u{feff}{GITHUB}").encode_utf16().flat_map(order).collect() };
    let texts = [wide(u16::to_le_bytes), wide(u16::to_be_bytes)];
    for text in &texts {
        let (first, rest) = text.split_at(1);
        for reply in
            [Reply::new(200).body(text.clone()), Reply::new(200).chunked().body(first.to_vec()).body(rest.to_vec())]
        {
            let reply = reply.field("content-type", "text/plain");
            stack.upstream().answer_with(move |_| reply.clone());
            let answer = once(&stack).await;
            assert!(!answer.complete && answer.body.len() <= 1, "{answer:?}");
            let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
            let mut h2 = stack.agent().h2(stack.proxy).await;
            let answer = h2.request("GET", HOST, "/", &[("authorization", &bearer)], b"").await;
            assert!(!answer.is_ok_and(|answer| answer.complete || answer.body.len() > 1));
        }
    }
    let records = uses(&stack, 8).await;
    assert!(records.iter().all(|used| used.text("reason") == "response_unreadable"), "{records:?}");
    stack.envoy.wait_stat("wasmcustom.attache.cut", |cut| cut == 8, SOON).await;
    // UTF-8 has a mark, too, and is searched.
    let reply = Reply::new(200).field("content-type", "text/plain").body(format!("\u{feff}{GITHUB}"));
    for answer in both(&stack, reply).await {
        assert_eq!((answer.status, &*answer.text()), (200, &*format!("\u{feff}{}", stars(GITHUB.len()))));
    }
    stack.reconcile().await;
}

/// The VM that was to search an answer is gone: nothing more of the answer comes, secret or not.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_filter_is_gone_ends() {
    let stack = Plan::default().with_traps().start().await;
    stack.site.oracle.excuse("/under-way");
    let held = Arc::new(Held::default());
    let reply =
        Reply::new(200).chunked().body("begun\n").part(Part::Held(Arc::clone(&held))).body(format!("{GITHUB}\n"));
    stack.upstream().answer_with(
        move |asked| {
            if asked.path == "/under-way" { reply.clone() } else { Reply::new(200).body("ok\n") }
        },
    );
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let mut agent = stack.agent().h1(stack.proxy).await;
    let head = format!("GET /under-way HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {bearer}\r\n\r\n");
    agent.send(head).await.expect("sent");
    assert_eq!(agent.head(SOON).await.expect("a head").status, 200);
    assert_eq!(agent.piece(SOON).await.expect("in time").as_deref(), Some(&b"begun\n"[..]));
    let trap = [("authorization", &*bearer), ("x-attache-trap", "request_headers")];
    assert_eq!(stack.agent().get(stack.proxy, HOST, "/trap", &trap).await.status, 503);
    held.go();
    let mut rest = Vec::new();
    while let Ok(Some(piece)) = agent.piece(PATIENCE).await {
        rest.extend_from_slice(&piece);
    }
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains(GITHUB), "{rest}");
    let begun = std::time::Instant::now();
    while once(&stack).await.status != 200 {
        assert!(begun.elapsed() < SOON, "the filter does not come back");
    }
    let leaks = stack
        .site
        .oracle
        .violations()
        .into_iter()
        .filter(|v| matches!(v, attache_tests::oracle::Violation::Leak { .. }));
    assert_eq!(leaks.count(), 0);
}

/// A trap in the callbacks of an answer itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_while_an_answer_is_searched_lets_nothing_out() {
    for callback in ["response_headers", "response_body", "response_trailers"] {
        let stack = Plan::default().with_traps().start().await;
        let reply = Reply::new(200).field("x-echo", GITHUB).chunked().body(GITHUB).trailer("x-end", GITHUB);
        stack.upstream().answer_with(move |_| reply.clone());
        let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
        let headers = [("authorization", &*bearer), ("x-attache-trap", callback)];
        let mut h2 = stack.agent().h2(stack.proxy).await;
        let answer = h2.request("GET", HOST, "/", &headers, b"").await;
        assert!(!answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.complete), "{callback}: {answer:?}");
        util::eventually(SOON, || stack.envoy.log().contains("Uncaught RuntimeError")).await;
        let found = stack.site.oracle.violations();
        let leaks: Vec<_> =
            found.iter().filter(|v| matches!(v, attache_tests::oracle::Violation::Leak { .. })).collect();
        assert!(leaks.is_empty(), "{callback}: {leaks:?}");
    }
}
