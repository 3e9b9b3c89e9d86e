//! What runs decides, whatever stands around it.

use super::{bytes, config, made_of};
use crate::access::{Access, Body, Operation};
use crate::policy::{AccessMode, AccessSpec, GraphqlSpec};
use crate::refusal::Reason;
use crate::request::Media;
use proptest::prelude::*;

/// What parsers stumble over.
const PIECES: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "a",
    "b",
    ":",
    "$",
    "@",
    "!",
    "=",
    "|",
    "&",
    "...",
    ".",
    "-",
    "0",
    "1.5",
    "1e",
    "\"",
    "\"\"\"",
    "\\\"\"\"",
    "\\",
    "\\u",
    "\\u{",
    "\\ud800",
    "#",
    "\n",
    "\r\n",
    " ",
    ",",
    "query",
    "mutation",
    "fragment",
    "subscription",
    "on",
    "type",
    "extend",
    "schema",
    "é",
    "\u{1f4a9}",
    "Q",
];
/// What stands between tokens and means nothing.
const NOTHING: &[&str] =
    &[" ", "\n", "\t", ",", "\r\n", "# } mutation { b }\n", "# \"\n", "#\n", "# query Q { a } \"\"\"\r\n"];
const NAMES: &[&str] = &["A", "B", "C", "query", "mutation", "subscription", "on", "fragment"];
const SELECTIONS: &[&str] = &[
    "a",
    "mutation",
    "b: mutation(x: \"} mutation {\")",
    "...F",
    "... on T { mutation }",
    "subscription @d(x: [{y: 1}])",
];

fn judge(media: Media, body: &[u8]) -> Result<(), Reason> {
    let spec = GraphqlSpec { paths: vec!["/graphql".into()], subscriptions: false };
    let access = Access::compile(&AccessSpec { graphql: Some(spec), ..AccessSpec::default() }).unwrap();
    let operation = Operation { method: b"POST", path: b"/graphql", media, ..Operation::default() };
    access.check(AccessMode::ReadOnly, operation, || Body::Whole(body))
}

/// Tokens, with some of nothing before each.
fn spread(tokens: Vec<String>) -> impl Strategy<Value = String> {
    let nothing = prop::collection::vec(made_of(NOTHING, 4), tokens.len());
    nothing.prop_map(move |nothing| {
        // One space where a name would run into the next.
        nothing.iter().zip(&tokens).flat_map(|(nothing, token)| [nothing, " ", token]).collect()
    })
}

/// A document with these operations, and a fragment.
fn document(operations: &[(&'static str, &'static str, &'static str)]) -> Vec<String> {
    let mut tokens: Vec<String> = ["fragment", "F", "on", "Mutation", "{ c }"].map(str::to_owned).into();
    for (kind, name, selection) in operations {
        tokens.extend([*kind, *name, "{", *selection, "}"].map(str::to_owned));
    }
    tokens
}

fn operations() -> impl Strategy<Value = Vec<(&'static str, &'static str, &'static str)>> {
    let kind = prop::sample::select(&["query", "query", "mutation", "subscription"][..]);
    let operation = (kind, prop::sample::select(NAMES), prop::sample::select(SELECTIONS));
    prop::collection::vec(operation, 1..4)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn only_a_query_that_surely_runs_is_a_read(
        (operations, asked, text) in operations().prop_flat_map(|operations| {
            let text = spread(document(&operations));
            (Just(operations), prop::option::of(prop::sample::select(NAMES)), text)
        })
    ) {
        let body = serde_json::json!({"query": text, "operationName": asked}).to_string();
        let verdict = judge(Media::Json, body.as_bytes());
        let named = |name: &str| operations.iter().filter(move |(_, known, _)| *known == name).count();
        let runs = match asked {
            Some(asked) => operations.iter().find(|(_, name, _)| *name == asked),
            None => operations.first().filter(|_| operations.len() == 1),
        };
        let certain = operations.iter().all(|(_, name, _)| named(name) == 1);
        let expected = match runs.filter(|_| certain) {
            Some(("query", ..)) => Ok(()),
            Some(_) => Err(Reason::ReadOnly),
            None => Err(Reason::BodyUnreadable),
        };
        prop_assert_eq!(verdict, expected, "{:?} {}", asked, text);
    }

    #[test]
    fn a_list_with_one_write_is_none_that_reads(reads in 0..4usize, after in 0..4usize) {
        let query = r#"{"query":"{a}"}"#;
        let mutation = r#"{"query":"mutation{a}"}"#;
        let calls = [vec![query; reads], vec![mutation], vec![query; after]].concat().join(",");
        prop_assert_eq!(judge(Media::Json, format!("[{calls}]").as_bytes()), Err(Reason::ReadOnly));
    }

    /// The parser is not ours: whatever it is given, it gives an answer.
    #[test]
    fn nothing_that_is_sent_ends_the_judge(text in made_of(PIECES, 40), noise in bytes(60)) {
        judge(Media::Graphql, text.as_bytes()).ok();
        judge(Media::Graphql, &noise).ok();
        judge(Media::Graphql, format!("{{a(x:{text}").as_bytes()).ok();
        judge(Media::Graphql, format!("{{a(x:\"{text}\")}}").as_bytes()).ok();
    }
}
