//! Frames: what is in them is masked as a text of its own, whatever cuts it; what they are is not touched.

use super::{SECRET, masker};
use crate::fixture::test;
use crate::masking::websocket::{Frames, Unreadable, begins};
use crate::masking::{Masker, cover};

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(short as u8),
        long @ ..65_536 => {
            frame.push(126);
            frame.extend((long as u16).to_be_bytes());
        }
        longest => {
            frame.push(127);
            frame.extend((longest as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// What an agent gets of a tunnel that comes in these chunks; how many echoes were counted.
fn through<'a>(masker: &Masker, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, usize), Unreadable> {
    let (mut out, mut echoes) = (Vec::new(), 0);
    let mut frames = Frames::default();
    let mut chunks = chunks.into_iter().peekable();
    while let Some(chunk) = chunks.next() {
        let base = out.len() - frames.held();
        out.extend_from_slice(chunk);
        let found = frames.feed(masker, chunk, chunks.peek().is_none())?;
        found.echoes.iter().for_each(|echo| cover(&mut out[base..], echo.clone()));
        assert_eq!(found.held, frames.held());
        echoes += found.new;
    }
    assert_eq!(frames.held(), 0, "nothing stays behind");
    Ok((out, echoes))
}

#[test]
fn a_message_is_masked_wherever_frames_and_chunks_cut_it() {
    let (masker, stars) = (masker(SECRET), "*".repeat(SECRET.len()));
    let long = "x".repeat(70_000);
    for at in 0..=SECRET.len() {
        let tunnel = |secret: &str| {
            let (one, two) = secret.split_at(at);
            let ping = secret;
            [
                frame(0x01, format!("a {one}").as_bytes()),
                frame(0x00, b""),
                frame(0x89, ping.as_bytes()),
                frame(0x80, format!("{two} b").as_bytes()),
                frame(0x82, format!("{long}{secret}").as_bytes()),
                frame(0x88, b"\x03\xe8"),
            ]
            .concat()
        };
        let (said, expected) = (tunnel(SECRET), tunnel(&stars));
        for step in [1, 2, 3, 7, 64, said.len()] {
            // A chunk of a byte each is slow for the long one.
            let chunks = said[..200].chunks(step).chain(said[200..].chunks(step.max(64)));
            assert_eq!(through(&masker, chunks), Ok((expected.clone(), 3)), "cut at {at}, in steps of {step}");
        }
    }
}

#[test]
fn a_message_is_masked_in_frames_of_any_size() {
    let masker = masker(SECRET);
    // Much of it seems to begin the secret.
    let text = format!("gh gh/ gh/p gh/p+0 {SECRET} gh/p+ gh/p");
    let stars = text.replace(SECRET, &"*".repeat(SECRET.len()));
    for size in 1..=text.len() {
        let tunnel = |text: &str| {
            let mut tunnel = Vec::new();
            for (number, piece) in text.as_bytes().chunks(size).enumerate() {
                let is_last = (number + 1) * size >= text.len();
                tunnel.extend(frame(u8::from(number == 0) | u8::from(is_last) << 7, piece));
                if number % 3 == 1 {
                    tunnel.extend(frame(0x8a, b"gh/p"));
                }
            }
            tunnel
        };
        let (said, expected) = (tunnel(&text), tunnel(&stars));
        for step in [1, 2, 5, 11, said.len()] {
            let through = through(&masker, said.chunks(step));
            assert_eq!(through, Ok((expected.clone(), 1)), "frames of {size}, in steps of {step}");
        }
    }
}

#[test]
fn a_frame_of_any_length_is_read() {
    let masker = masker(SECRET);
    let stars = "*".repeat(SECRET.len());
    for length in [19, 20, 124, 125, 126, 127, 128, 255, 256, 258, 65_535, 65_536, 65_793] {
        let tunnel = |secret: &str| {
            let padded = format!("{}{secret}", "x".repeat(length - secret.len()));
            let ping = if length <= 125 { frame(0x89, padded.as_bytes()) } else { vec![] };
            [frame(0x82, padded.as_bytes()), ping, frame(0x81, secret.as_bytes())].concat()
        };
        let (said, expected) = (tunnel(SECRET), tunnel(&stars));
        let echoes = if length <= 125 { 3 } else { 2 };
        // What announces it may be cut anywhere.
        for cut in 0..=11 {
            let (one, two) = said.split_at(cut);
            assert!(through(&masker, [one, two]) == Ok((expected.clone(), echoes)), "{length}, cut at {cut}");
        }
    }
}

#[test]
fn an_echo_is_told_in_each_frame_that_it_stands_in_and_in_no_other() {
    let masker = masker("ghp_TheRealTokenOfTheUser");
    let said = [
        frame(0x01, b"before"),
        frame(0x00, b"x ghp_The"),
        frame(0x00, b"RealTokenOf"),
        frame(0x00, b""),
        frame(0x00, b"TheUser y"),
        frame(0x80, b"after"),
    ];
    let found = Frames::default().feed(&masker, &said.concat(), false).unwrap();
    assert_eq!((found.echoes, found.new, found.held), (vec![12..19, 21..32, 36..43], 1, 0));
    // What was held of the frame before them only seemed to begin one.
    let said = [frame(0x01, b"x ghp_"), frame(0x80, b"ghp_TheRealTokenOfTheUser ghp_TheRealTokenOfTheUser")];
    let found = Frames::default().feed(&masker, &said.concat(), false).unwrap();
    assert_eq!((found.echoes, found.new, found.held), (vec![10..35, 36..61], 2, 0));
}

#[test]
fn only_an_end_that_begins_a_secret_within_a_message_is_held() {
    let masker = masker("ghp_TheRealTokenOfTheUser");
    for (said, held) in [
        (frame(0x81, b"it ends in ghp_The"), 0),
        (frame(0x01, b"it ends in ghp_The"), 7),
        ([frame(0x01, b"ghp_The"), frame(0x89, b"ping")].concat(), 7 + 6),
        (frame(0x81, b"ghp_TheReal")[..9].to_vec(), 7),
        (frame(0x89, b"ghp_TheReal")[..9].to_vec(), 7),
        // What announces a frame is let go.
        (vec![0x81, 126, 1], 0),
        ([frame(0x01, b"ghp_The"), vec![0x80]].concat(), 8),
        // A frame without a payload ends a message, too.
        ([frame(0x01, b"ghp_The"), frame(0x80, b"")].concat(), 0),
        ([frame(0x01, b"ghp_The"), frame(0x00, b"")].concat(), 9),
    ] {
        let mut frames = Frames::default();
        let found = frames.feed(&masker, &said, false).unwrap();
        assert_eq!((found.held, frames.held()), (held, held), "{:?}", said.escape_ascii().to_string());
    }
}

#[test]
fn what_is_no_frame_of_a_server_is_not_read() {
    let masker = masker(SECRET);
    for odd in [
        &frame(0xc1, b"compressed")[..],
        &frame(0xa1, b"x"),
        &frame(0x91, b"x"),
        &[0x81, 0x81, 1, 2, 3, 4, 5],
        &frame(0x09, b"a ping in two"),
        &frame(0x88, &[b'x'; 126]),
    ] {
        assert_eq!(through(&masker, [odd]), Err(Unreadable), "{:?}", odd.escape_ascii().to_string());
    }
}

#[test]
fn a_message_in_utf_16_is_known_by_its_first_bytes_whichever_it_is() {
    let masker = masker(SECRET);
    for (said, wide) in [
        (vec![frame(0x82, b"\xff\xfes\0e\0c\0")], true),
        (vec![frame(0x81, b"in the clear"), frame(0x82, b"\xfe\xff\0s")], true),
        (vec![frame(0x02, b"\xff"), frame(0x80, b"\xfe")], true),
        (vec![frame(0x02, b"\xff"), frame(0x89, b"\xfe"), frame(0x80, b"x")], false),
        (vec![frame(0x82, b"x\xff\xfe"), frame(0x82, b"\xfe")], false),
    ] {
        let mut frames = Frames::default();
        let found = said.iter().map(|frame| frames.feed(&masker, frame, false).unwrap().wide);
        assert_eq!(found.fold(false, |any, one| any | one), wide, "{said:?}");
    }
}

#[test]
fn a_tunnel_begins_with_the_word_and_without_extensions() {
    let head = |status: &str, lines: &[(&str, &str)]| {
        let all = [(":status", status)].into_iter().chain(lines.iter().copied());
        let all: Vec<_> = all.map(|(name, value)| (name, value.as_bytes())).collect();
        begins(&crate::headers::serialize(all))
    };
    assert!(head("101", &[("upgrade", "WebSocket")]));
    assert!(!head("200", &[("upgrade", "websocket")]));
    assert!(!head("101", &[]));
    assert!(!head("101", &[("upgrade", "other")]));
    assert!(!head("101", &[("upgrade", "websocket"), ("sec-websocket-extensions", "permessage-deflate")]));
    assert!(!head("101", &[("upgrade", "websocket"), ("sec-websocket-extensions", "")]));
}
