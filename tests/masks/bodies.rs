//! Bodies of every kind.

use attache_tests::Reply;
use attache_tests::stack::{GITHUB, Plan};
use attache_tests::upstream::Part;
use bytes::Bytes;
use std::time::Duration;

use super::{HOST, both, spellings, stars, uses};

/// Long enough for Envoy to have read what came before.
const APART: Duration = Duration::from_millis(3);

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_is_masked_at_equal_length() {
    let stack = Plan::default().start().await;
    for spelling in spellings() {
        let text = format!("{{\"before\": 1, \"echo\": \"{spelling}\", \"after\": 2}}\n");
        for answer in both(&stack, Reply::new(500).field("content-type", "application/json").body(text.clone())).await {
            assert_eq!((answer.status, answer.complete, answer.body.len()), (500, true, text.len()), "{spelling}");
            assert_eq!(answer.header("content-length"), Some(text.len().to_string()));
            let left = answer.text();
            assert!(
                left.starts_with("{\"before\": 1, \"echo\": \"") && left.ends_with("\", \"after\": 2}\n"),
                "{left}"
            );
            assert!(left.matches('*').count() > GITHUB.len() - 2, "{spelling}: {left}");
        }
    }
    stack.reconcile().await;
}

/// Content-Length and chunks, in two pieces, cut at every place.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_cut_anywhere_is_masked() {
    let stack = Plan::default().start().await;
    let text = format!("before {GITHUB} after");
    let expected = format!("before {} after", stars(GITHUB.len()));
    for at in 7..=7 + GITHUB.len() {
        let (one, two) = (Bytes::from(text[..at].to_owned()), Bytes::from(text[at..].to_owned()));
        let reply = Reply::new(200).body(one).part(Part::Pause(APART)).body(two);
        for answer in both(&stack, if at % 2 == 0 { reply.chunked() } else { reply }).await {
            assert_eq!((answer.text(), answer.complete), (expected.clone(), true), "cut at {at}");
        }
    }
    // And all at once, in pieces of one byte.
    let pieces = text.bytes().flat_map(|byte| [Part::Data(Bytes::from(vec![byte])), Part::Pause(APART)]);
    for answer in both(&stack, Reply { parts: pieces.collect(), ..Reply::new(200) }.chunked()).await {
        assert_eq!((answer.text(), answer.complete), (expected.clone(), true));
    }
    assert!(uses(&stack, 82).await.iter().all(|used| used.text("masked") == "1"), "each is counted once");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_multipart_answer_are_masked_and_their_boundaries_stay() {
    let stack = Plan::default().start().await;
    let part = |body: &str| format!("--b\r\ncontent-type: text/plain\r\ncontent-range: bytes 0-9/99\r\n\r\n{body}\r\n");
    let text = |secret: &str| format!("{}{}--b--\r\n", part(&format!("a{secret}")), part(secret));
    for (status, kind) in [(200, "multipart/mixed; boundary=b"), (206, "multipart/byteranges; boundary=b")] {
        let reply = Reply::new(status).field("content-type", kind).body(text(GITHUB));
        for answer in both(&stack, reply).await {
            assert_eq!((answer.status, answer.text()), (status, text(&stars(GITHUB.len()))));
        }
    }
    // A part of a body is scanned like any other, although nobody asked for one.
    let reply = Reply::new(206).field("content-range", format!("bytes 5-{}/99", 4 + GITHUB.len())).body(GITHUB);
    for answer in both(&stack, reply).await {
        assert_eq!((answer.status, answer.text()), (206, stars(GITHUB.len())));
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_without_a_secret_arrive_byte_for_byte() {
    const PIECES: u64 = 160;
    let stack = Plan::default().start().await;
    // Any byte, and no run of any length without what may begin a spelling.
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    let piece: Vec<u8> =
        (0..64 << 10).map(|at| if at % 7 == 0 { GITHUB.as_bytes()[at % GITHUB.len()] } else { next() }).collect();
    let whole = piece.repeat(PIECES as usize);
    let reply = Reply::new(200).part(Part::Repeat(Bytes::from(piece), PIECES));
    for answer in both(&stack, reply.clone()).await.into_iter().chain(both(&stack, reply.chunked()).await) {
        assert!(answer.complete && answer.body == whole, "{} bytes", answer.body.len());
    }
    // On record before all of it is read again.
    uses(&stack, 4).await;
    stack.reconcile().await;
}

/// What ends like the beginning of a secret is held, a piece at a time: never more than Envoy buffers.
#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_at_once_of_what_may_begin_a_secret_are_not_cut() {
    let stack = Plan::default().start().await;
    let begins = &GITHUB[..1];
    // Every other end of a piece may begin one; then every one.
    for whole in [format!("{begins}-").repeat(5_000_000), begins.repeat(10_000_000)] {
        for reply in [Reply::new(200), Reply::new(200).chunked()] {
            let reply = reply.part(Part::Repeat(Bytes::from(whole.clone()), 1));
            for answer in both(&stack, reply).await {
                assert!(answer.complete && answer.body == whole.as_bytes(), "{} bytes", answer.body.len());
            }
        }
    }
    // And one amid them is masked, wherever a piece ends.
    let text = |secret: &str| format!("{0}{secret}{0}", begins.repeat(300_001));
    let reply = Reply::new(200).body(text(GITHUB));
    for answer in both(&stack, reply).await {
        assert!(answer.complete && answer.text() == text(&stars(GITHUB.len())), "{} bytes", answer.body.len());
    }
    uses(&stack, 10).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_again_and_again_is_masked_each_time() {
    const PIECES: u64 = 200;
    const TIMES: u64 = 20 * PIECES;
    let stack = Plan::default().start().await;
    let once = format!("{GITHUB} and much else, of a length that no buffer is a multiple of; ");
    let reply = Reply::new(200).part(Part::Repeat(Bytes::from(once.repeat(20)), PIECES));
    let expected = once.replace(GITHUB, &stars(GITHUB.len())).repeat(TIMES as usize);
    for answer in both(&stack, reply).await {
        assert!(answer.complete && answer.text() == expected, "{} bytes", answer.body.len());
    }
    let counted = uses(&stack, 2).await;
    assert!(counted.iter().all(|used| used.text("masked") == TIMES.to_string()), "{counted:?}");
    assert!(counted.iter().all(|used| used.text("authority") == HOST));
    stack.reconcile().await;
}
