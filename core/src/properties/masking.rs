//! What masking promises of every text, every spelling in it and every way to cut it.

use super::config;
use crate::masking::{Masker, Stream, cover};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;

/// Printable ASCII without white space at its ends; characters that mean something are frequent.
fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_]{8,60}",
        "[!-~]([ -~]{6,30})[!-~]",
        "[%\\\\/u0-9+=]{8,24}",
        "(ab){4,9}",
        "(a|%25|\\\\/){8,12}"
    ]
}

/// What stands around it: mostly what may be taken for a part of it.
fn around() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~\n]{0,12}", "[a-zA-Z0-9+/]{0,12}", "[%\\\\u0-9a-f]{0,12}", "(\\\\n|\n|%|\\\\){0,3}"]
}

/// How lines end in base64, as it is written, and in JSON and in a query.
const BREAKS: [&str; 6] = ["\n", "\r\n", "\\n", "\\r\\n", "%0A", "%0d%0a"];

/// How a secret is spelled.
#[derive(Clone, Debug)]
struct Spelling {
    form: u8,
    /// How many characters stand before it in base64.
    shift: usize,
    /// For each character which escape it gets, if any.
    escapes: Vec<u8>,
    /// How many characters of base64 stand in a line, and how that ends.
    lines: Option<(usize, &'static str)>,
}

fn spelling() -> impl Strategy<Value = Spelling> {
    let escapes = prop_oneof![
        prop::collection::vec(0u8..30, 1..40),
        prop::collection::vec(0u8..7, 1..40),
        Just(vec![9]),
        Just(vec![5])
    ];
    let lines = prop::option::of((prop::sample::select(vec![60, 64, 76]), prop::sample::select(BREAKS.to_vec())));
    (0u8..5, 0usize..80, escapes, lines).prop_map(|(form, shift, escapes, lines)| Spelling {
        form,
        shift,
        escapes,
        lines,
    })
}

/// A secret so spelled, and which bytes of that must not stay.
fn spelled(secret: &str, Spelling { form, shift, escapes, lines }: &Spelling) -> (String, Vec<bool>) {
    let (text, inner) = match form {
        0 => (secret.to_owned(), 0..secret.len()),
        1 | 2 => {
            let padded = format!("{}{secret}", "u".repeat(*shift));
            let encoded = if *form == 1 { STANDARD.encode(&padded) } else { URL_SAFE.encode(&padded) };
            let start = (shift * 8).div_ceil(6);
            // Where a line ends within the secret's first group, what the group holds of it may stay (docs/masking.md).
            let group_end = start.next_multiple_of(4);
            let is_cut = lines.is_some_and(|(length, _)| group_end % length == 0);
            (encoded, if is_cut { group_end } else { start }..padded.len() * 8 / 6)
        }
        _ => {
            let digits = secret.bytes().map(|b| if *form == 3 { format!("{b:02x}") } else { format!("{b:02X}") });
            (digits.collect(), 0..secret.len() * 2)
        }
    };
    let lines = lines.filter(|_| matches!(form, 1 | 2));
    let (mut out, mut secret_bytes) = (String::new(), Vec::new());
    for (at, (byte, escape)) in text.bytes().zip(escapes.iter().cycle()).enumerate() {
        if let Some((_, line_break)) = lines.filter(|(length, _)| at > 0 && at % length == 0) {
            out += line_break;
            secret_bytes.resize(out.len(), false);
        }
        match escape {
            0 => out += &format!("%{byte:02x}"),
            1 => out += &format!("%{byte:02X}"),
            2 => out += &format!("\\u{byte:04x}"),
            3 => out += &format!("\\u{byte:04X}"),
            4 if b"/\\\"'".contains(&byte) => out.extend(['\\', byte.into()]),
            5 if *form == 0 && byte == b' ' => out.push('+'),
            _ => out.push(byte.into()),
        }
        secret_bytes.resize(out.len(), inner.contains(&at));
    }
    (out, secret_bytes)
}

/// Sends a text through in these cuts. Answers what came out, and the most that was held.
fn cut(masker: &Masker, text: &[u8], mut cuts: Vec<usize>) -> Vec<u8> {
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let (mut out, mut stream) = (text.to_vec(), Stream::default());
    for (number, pair) in cuts.windows(2).enumerate() {
        let base = pair[0] - stream.held();
        let found = stream.feed(masker, &text[pair[0]..pair[1]], number + 2 == cuts.len());
        found.echoes.into_iter().for_each(|echo| cover(&mut out[base..], echo));
        assert!(found.held <= masker.most_held());
    }
    assert_eq!(stream.held(), 0);
    out
}

/// Each case cuts a text in many ways: fewer of them take as long as others.
fn fewer() -> Config {
    Config { cases: config().cases.div_ceil(3), ..config() }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn no_spelling_gets_through_however_it_is_cut(
        secrets in prop::collection::vec(secret(), 1..3),
        spelling in spelling(),
        (before, after) in (around(), around()),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let all: Vec<_> = secrets.iter().map(|secret| Secret::new(&**secret)).collect();
        let masker = Masker::new(&all).unwrap();
        let (spelled, secret_bytes) = spelled(&secrets[0], &spelling);
        let text = format!("{before}{spelled}{after}").into_bytes();
        let left = |out: &[u8]| {
            let bytes = out[before.len()..].iter().zip(&secret_bytes);
            bytes.filter(|(byte, is_secret)| **is_secret && **byte != b'*').map(|(byte, _)| char::from(*byte)).collect::<String>()
        };
        let cuts: Vec<_> = cuts.iter().map(|at| at.index(text.len() + 1)).collect();
        let out = cut(&masker, &text, cuts.clone());
        prop_assert_eq!(out.len(), text.len());
        prop_assert_eq!(left(&out), "", "{} cut at {:?}", String::from_utf8_lossy(&text), cuts);
        // One byte a chunk is the most that can be cut.
        prop_assert_eq!(left(&cut(&masker, &text, (0..text.len()).collect())), "");
    }

    #[test]
    fn what_holds_no_secret_stays_as_it_is(
        (secret, other) in ("[a-z]{8,20}", "[A-Z0-9%/+\\\\ \n\"]{0,200}"),
        almost in any::<Index>(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        // All but one character of it, apart from what may stand for that one.
        let almost = almost.index(secret.len());
        let text = format!("{}-{}-{other}-{}", &secret[..almost], &secret[almost + 1..], &secret[1..]).into_bytes();
        let masker = Masker::new([&Secret::new(&*secret)]).unwrap();
        let cuts = cuts.iter().map(|at| at.index(text.len() + 1)).collect();
        let out = cut(&masker, &text, cuts);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&text));
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<Index>(), 0..6)) {
        let masker = Masker::new([&Secret::new("a secret of some length")]).unwrap();
        let cuts = cuts.iter().map(|at| at.index(bytes.len() + 1)).collect();
        prop_assert_eq!(cut(&masker, &bytes, cuts), bytes);
    }
}
