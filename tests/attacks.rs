//! The attack corpus: every case of `tests/corpus/` is tried, and ends as its file says. A new case is one file there.

#[path = "attacks/case.rs"]
mod case;
#[path = "attacks/corpus.rs"]
mod corpus;
#[path = "attacks/doors.rs"]
mod doors;
#[path = "attacks/page.rs"]
mod page;
#[path = "attacks/provider.rs"]
mod provider;
#[path = "attacks/rows.rs"]
mod rows;
#[path = "attacks/scenes.rs"]
mod scenes;
#[path = "attacks/strict.rs"]
mod strict;
#[path = "attacks/text.rs"]
mod text;
#[path = "attacks/values.rs"]
mod values;

use crate::case::{At, Case};
use crate::corpus::CLASSES;

/// All cases.
fn all() -> Vec<Case> {
    corpus::read().unwrap_or_else(|wrong| panic!("{} case(s) are not understood:\n{}", wrong.len(), wrong.join("\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_ends_as_its_case_says() {
    let cases = all();
    // One word to try some of them: `NAME=destination/userinfo`.
    let wanted = std::env::var("NAME").unwrap_or_default();
    let chosen: Vec<Case> =
        cases.iter().filter(|case| format!("{}/{}", case.class, case.name).contains(&wanted)).cloned().collect();
    let ran = scenes::run(&chosen).await;
    page::print(&chosen, &ran);
    let broken: Vec<_> = ran
        .iter()
        .filter_map(|ran| Some(format!("  - {} over {}: {}", ran.case, ran.way, ran.broken.as_ref()?)))
        .collect();
    assert!(broken.is_empty(), "{} attack(s) did not end as their cases say:\n{}", broken.len(), broken.join("\n"));
    for case in chosen.iter().filter(|case| case.at != At::Proxy || scenes::has_proxy()) {
        let name = format!("{}/{}", case.class, case.name);
        assert!(ran.iter().any(|ran| ran.case == name), "{name} ran nowhere");
    }
}

#[test]
fn the_corpus_has_cases_of_every_class() {
    let cases = all();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    for (class, _) in CLASSES {
        assert!(cases.iter().filter(|case| case.class == class).count() >= 4, "{class}");
    }
    let mut told: Vec<_> = cases.iter().map(|case| (&case.class, &case.tries)).collect();
    told.sort();
    let same: Vec<_> = told.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(same.is_empty(), "these are told in the same words twice: {same:#?}");
}

/// What the table shows is worth something only if a promise that does not hold is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_case_that_expects_another_end_fails() {
    let text = |expect: &str, more: &str| {
        format!(
            "tries: Nothing bad.\nwhy: It tries the runner.\nexpect: {expect}\n\n--- request\nGET /echo\nhost: \
             api.github.com\nauthorization: Bearer {{{{placeholder:writer.github}}}}\n{more}"
        )
    };
    let right = [
        ("right", text("served", "--- answer\nx-echo-authorization: Bearer {{stars:{{secret:github}}}}\n!x-other\n")),
        ("refused", text("refused read_only", "").replace("writer", "reader").replace("GET", "POST")),
    ];
    let wrong = [
        ("refuses-less", text("refused path_malformed", "")),
        ("another-reason", text("refused read_only", "").replace("/echo", "/%252e")),
        ("another-credential", text("served", "").replace("expect", "carries: custom\nexpect")),
        ("another-header", text("served", "--- answer\nx-echo-authorization: Bearer x\n")),
        ("a-header-that-is-there", text("served", "--- answer\n!x-echo-authorization\n")),
        ("another-body", text("served", "--- answer\n\nother\n")),
        ("whole", text("cut", "")),
        ("not-withheld", text("withheld response_unreadable", "")),
        ("another-status", text("reached 201", "")),
    ];
    let case = |(name, text): &(&str, String)| {
        Case::parse(std::path::Path::new(&format!("tests/corpus/echo/{name}.case")), text).expect("a case")
    };
    let cases: Vec<Case> = right.iter().chain(&wrong).map(case).collect();
    let ran = scenes::gateway(&cases).await;
    for run in &ran {
        let wrong = wrong.iter().any(|(name, _)| run.case == format!("echo/{name}"));
        assert_eq!(run.broken.is_some(), wrong, "{} over {}: {:?}", run.case, run.way, run.broken);
    }
    assert_eq!(ran.len(), 2 * (right.len() + wrong.len()));
}
