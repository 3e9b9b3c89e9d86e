//! Everything that was kept of fuzzing still holds, and every target has something kept.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test")]

use attache_fuzz_targets::{TARGETS, published, run};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn each_target_has_a_corpus_and_a_program_of_its_own() {
    let known: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), known);
    let programs = names(&corpus().join("../fuzz_targets"));
    assert_eq!(programs, known.iter().map(|name| format!("{name}.rs")).collect());
    let manifest = fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in tests/fuzz/Cargo.toml");
    }
}

#[test]
fn what_was_kept_still_holds() {
    for (name, _) in TARGETS {
        let dir = corpus().join(name);
        let kept = names(&dir);
        assert!(kept.len() >= 5, "{name}: only {} inputs are kept", kept.len());
        for input in kept {
            let data = fs::read(dir.join(&input)).unwrap();
            let held = std::panic::catch_unwind(|| run(name, &data));
            assert!(held.is_ok(), "{name} does not hold of tests/fuzz/corpus/{name}/{input}");
        }
    }
}

/// What `KEEP=1 make fuzz` has kept beside the corpus: an input a line, in base64.
#[test]
fn what_was_found_still_holds() {
    let dir = corpus().join("../found");
    let known: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&dir), known);
    for (name, _) in TARGETS {
        let found = fs::read_to_string(dir.join(name)).unwrap();
        assert!(found.lines().count() >= 5, "{name}: little was found");
        for (line, input) in found.lines().enumerate() {
            let data = STANDARD.decode(input).unwrap();
            let held = std::panic::catch_unwind(|| run(name, &data));
            assert!(held.is_ok(), "{name} does not hold of tests/fuzz/found/{name}, line {}", line + 1);
        }
    }
}

/// What the targets that need no broker are tried on is what one publishes.
#[test]
fn the_policy_is_what_a_broker_publishes() {
    const WRITE: &str = "ATTACHE_FUZZ_POLICY";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy.json");
    let expected = published();
    if std::env::var_os(WRITE).is_some_and(|what| what == "write") {
        fs::write(&file, &expected).unwrap();
    }
    let hint = format!("write it anew: {WRITE}=write cargo test -p attache-fuzz-targets");
    assert_eq!(fs::read_to_string(&file).unwrap(), expected, "{hint}");
}
