//! What comes back through one.

use attache_tests::Reply;
use attache_tests::upstream::Part;
use attache_tests::websocket::{BOTH, frame};

use super::{CHAT, SECRET, SOON, open, opens, reason, saying, start};

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_is_masked_wherever_frames_and_chunks_cut_it() {
    let stack = start().await;
    let (one, two) = SECRET.split_at(9);
    let stars = "*".repeat(SECRET.len());
    let (starred, rest) = stars.split_at(9);
    let whole = frame(0x81, format!("a {SECRET} b"));
    let cut = [frame(0x01, format!("a {one}")), frame(0x89, "ping"), frame(0x80, format!("{two} b"))];
    let control = frame(0x89, SECRET);
    let masked_whole = frame(0x81, format!("a {stars} b"));
    let masked_cut =
        [frame(0x01, format!("a {starred}")), frame(0x89, "ping"), frame(0x80, format!("{rest} b"))].concat();
    let cases: Vec<(Vec<&[u8]>, Vec<u8>)> = vec![
        (vec![&whole], masked_whole.clone()),
        (vec![&whole[..1], &whole[1..20], &whole[20..]], masked_whole),
        (cut.iter().map(Vec::as_slice).collect(), masked_cut.clone()),
        (vec![&cut[0][..3], &cut[0][3..], &cut[1][..2], &cut[1][2..], &cut[2]], masked_cut),
        (vec![&control[..9], &control[9..]], frame(0x89, &stars)),
    ];
    for how in BOTH {
        for (pieces, expected) in &cases {
            let reply = pieces.iter().fold(Reply::upgrade("websocket").field("x-echo", SECRET), |reply, piece| {
                let pause = Part::Pause(std::time::Duration::from_millis(20));
                reply.body(piece.to_vec()).part(pause)
            });
            stack.upstream().answer_with(move |_| reply.clone());
            let (mut socket, answer) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
            assert_eq!((answer.status, answer.header("x-echo")), (opens(how), Some(stars.clone())), "{how:?}");
            assert_eq!(&socket.receive(expected.len()).await.expect("messages"), expected, "{how:?}");
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_waits_for_no_other() {
    let stack = start().await;
    // It ends as the credential begins.
    let said = frame(0x81, format!("is it {}", &SECRET[..12]));
    let reply = saying(&[&said]);
    stack.upstream().answer_with(move |_| reply.clone());
    for how in BOTH {
        let (mut socket, _) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
        assert_eq!(socket.receive(said.len()).await.expect("a message"), said, "{how:?}");
    }
    stack.reconcile().await;
}

/// More than waits in a buffer of Envoy's.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_message_that_may_begin_a_secret_everywhere_arrives_masked() {
    let stack = start().await;
    let begins = SECRET[..1].repeat(3_000_000);
    let said = frame(0x81, format!("{begins}{SECRET}."));
    let expected = frame(0x81, format!("{begins}{}.", "*".repeat(SECRET.len())));
    let reply = saying(&[&said]);
    stack.upstream().answer_with(move |_| reply.clone());
    for how in BOTH {
        let (mut socket, _) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
        assert!(socket.receive(expected.len()).await.expect("a message") == expected, "{how:?}");
    }
    stack.reconcile().await;
}

/// Between the fragments of a message control frames may stand, and wait with it: no more than Envoy's buffer takes.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_pings_on_amid_a_message_is_cut() {
    let stack = start().await;
    let begun = frame(0x01, format!("is it {}", &SECRET[..12]));
    let reply = saying(&[&begun, &frame(0x89, "p".repeat(125)).repeat(40_000)]);
    stack.upstream().answer_with(move |_| reply.clone());
    for how in BOTH {
        let (mut socket, _) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
        assert_eq!(socket.end(SOON).await, b"", "{how:?}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_is_neither_asked_for_nor_let_through() {
    let stack = start().await;
    let extension = "permessage-deflate; client_max_window_bits";
    for how in BOTH {
        let asks = [("sec-websocket-extensions", extension)];
        stack.upstream().answer_with(|_| Reply::upgrade("websocket"));
        let (socket, answer) = open(&stack, how, "talks", CHAT, "/live", &asks).await.expect("an answer");
        assert_eq!(answer.status, opens(how));
        socket.leave();
        let hit = stack.upstream().hits().pop().expect("it went on");
        assert_eq!(hit.header("sec-websocket-extensions"), None, "{how:?}");

        stack.upstream().answer_with(|_| Reply::upgrade("websocket").field("sec-websocket-extensions", "x"));
        let (_, answer) = open(&stack, how, "talks", CHAT, "/live", &asks).await.expect("an answer");
        assert_eq!((answer.status, &*reason(&answer)), (502, "response_unreadable"), "{how:?}");

        // Compressed without a word, as a client sends it, and a close that is too long.
        for odd in [frame(0xc1, "x"), vec![0x81, 0x81, 0, 0, 0, 0, b'x'], frame(0x88, "x".repeat(126))] {
            let reply = saying(&[&odd]);
            stack.upstream().answer_with(move |_| reply.clone());
            let (mut socket, _) = open(&stack, how, "talks", CHAT, "/live", &[]).await.expect("an answer");
            assert_eq!(socket.end(SOON).await, b"", "{how:?} {odd:?}");
        }
    }
    stack.reconcile().await;
}
