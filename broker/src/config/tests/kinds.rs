//! What holds for each kind of source, whichever it is: the table, walked.

use super::{load, places};
use crate::config::{ConfigErrors, KINDS, Kind, SourceKind};
use std::collections::BTreeSet;

/// A config with one credential, from this kind alone.
fn config(kind: &Kind, shared: &str, secret: &str) -> String {
    let (word, shared) =
        (kind.word, if shared.is_empty() { String::new() } else { format!("{}: {shared}", kind.word) });
    format!(
        "sources: {{{shared}}}\ncredentials:\n  it: {{source: {{{word}: {secret}}}, inject: bearer, destinations: \
         [{{host: h.test}}]}}\n"
    )
}

/// `{a: b}` with a field that nobody knows.
fn with_another(map: &str) -> Option<String> {
    Some(format!("{}, bogus: 1}}", map.strip_suffix('}')?))
}

fn paths(text: &str) -> Vec<String> {
    places(text).iter().filter_map(|place| Some(place.split_once(' ')?.1.to_owned())).collect()
}

fn words(errors: &ConfigErrors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn each_has_a_word_of_its_own_which_the_config_takes() {
    let of = |word: &str| serde_json::from_value::<SourceKind>(word.into());
    for kind in &KINDS {
        assert_eq!(of(kind.word).unwrap(), kind.kind);
    }
    let words: BTreeSet<_> = KINDS.iter().map(|kind| kind.word).collect();
    assert_eq!(words.len(), KINDS.len());
    assert!(of("bogus").is_err());
}

#[test]
fn each_example_is_read_and_stands_on_its_page() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let all = std::fs::read_to_string(docs.join("credentials.md")).unwrap();
    for kind in &KINDS {
        let config =
            load(&config(kind, kind.shared, kind.secret)).unwrap_or_else(|error| panic!("{}: {error}", kind.word));
        let [lookup] = &config.credentials[0].lookup[..] else { panic!("{config:?}") };
        assert_eq!(lookup.kind(), kind.kind);
        assert!(all.contains(&format!("| `{}`", kind.word)), "credentials.md has no row for {}", kind.word);
        let page = std::fs::read_to_string(docs.join(kind.page)).unwrap();
        assert!(page.contains(&format!("{}: ", kind.word)), "{} does not show {}", kind.page, kind.word);
    }
}

#[test]
fn what_nobody_knows_is_refused_at_its_place() {
    for kind in &KINDS {
        let shared = with_another(kind.shared).unwrap_or_else(|| "{bogus: 1}".to_owned());
        let found = paths(&config(kind, &shared, kind.secret));
        // What has nothing in common has no place for it either.
        let expected = [format!("sources.{}.bogus", kind.word), format!("sources.{}", kind.word)];
        assert!(found.iter().any(|path| expected.contains(path)), "{}: {found:?}", kind.word);
        let Some(secret) = with_another(kind.secret) else { continue };
        let found = paths(&config(kind, kind.shared, &secret));
        assert_eq!(found, [format!("credentials.it.source.{}.bogus", kind.word)]);
    }
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    for kind in &KINDS {
        for wrong in ["[1]", "''", "{bogus: 1}"] {
            let found = paths(&config(kind, kind.shared, wrong));
            let at = format!("credentials.it.source.{}", kind.word);
            assert!(
                !found.is_empty() && found.iter().all(|path| path.starts_with(&at)),
                "{} {wrong}: {found:?}",
                kind.word
            );
        }
    }
}

#[test]
fn what_takes_something_shared_says_what_is_missing() {
    for kind in KINDS.iter().filter(|kind| !kind.shared.is_empty()) {
        let text = config(kind, "", kind.secret);
        assert_eq!(paths(&text), [format!("credentials.it.source.{}", kind.word)]);
        let said = words(&load(&text).unwrap_err());
        assert!(said[0].contains(&format!("{}: {{", kind.word)), "{said:?}");
    }
}

#[test]
fn each_alone_may_be_left_out_of_the_order() {
    for kind in &KINDS {
        let others: Vec<_> = KINDS.iter().filter(|other| other.kind != kind.kind).map(|other| other.word).collect();
        let text =
            config(kind, kind.shared, kind.secret).replace("sources: {", &format!("sources: {{order: {others:?}, "));
        assert_eq!(paths(&text), ["credentials.it.source"], "{}", kind.word);
    }
}
