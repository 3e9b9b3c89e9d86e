//! Whatever a query holds, one credential goes upstream in it, or none.

use super::{config, made_of};
use crate::evidence::AUTH_PARAMETERS;
use crate::fixture::{PLACEHOLDER, SECRET, accepted, compiled, destination, get, granted, header, query as parameter};
use crate::matching::query;
use crate::policy::Unmatched;
use proptest::prelude::*;

const QUERIES: &[&str] = &[
    "&",
    "&",
    "&",
    "=",
    "=",
    "key",
    "KEY",
    "%6bey",
    "k%45y",
    "ke",
    "access_token",
    "%61ccess_token",
    "Access%5fToken",
    "api_key",
    "X-Amz-Security-Token",
    "oauth_token",
    "bearer.token",
    "%00",
    "a",
    "b%26",
    "+",
    "%",
    "%2",
    ";",
    "?",
    "/",
    "%3d",
];

fn query_of(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

/// A parameter's name, as the laxest of servers reads it: it folds case, ends at a NUL, overlooks white space around, and
/// takes whatever is neither letter nor digit for `_`.
fn name(text: &str) -> String {
    let name = text.split('=').next().unwrap_or_default();
    let decoded = query::decode(name.as_bytes()).collect::<Vec<_>>();
    let decoded = String::from_utf8_lossy(&decoded).to_lowercase();
    let name = decoded.split('\0').next().unwrap_or_default().trim_matches(|c| c <= ' ');
    name.chars().map(|c| if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '$' { '_' } else { c }).collect()
}

/// The parameters of a target to a server that splits at `&`, and those to one that splits at `;` too.
fn names(target: &str) -> Vec<String> {
    let query = query_of(target);
    query.split('&').chain(query.split(['&', ';'])).map(name).collect()
}

fn is_auth(name: &str) -> bool {
    AUTH_PARAMETERS.iter().any(|known| String::from_utf8_lossy(known).replace('-', "_") == name)
}

/// What was written beside them and beside the parameter that is set, in order.
fn others(target: &str, set: Option<&str>) -> Vec<String> {
    let stays = |text: &&str| !is_auth(&name(text)) && Some(name(text).as_str()) != set;
    let pieces = |text: &str| text.split(';').filter(stays).collect::<Vec<_>>().join(";");
    query_of(target).split('&').filter(stays).map(pieces).filter(|text| !text.is_empty()).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_query_credential_stands_alone(written in made_of(QUERIES, 14)) {
        let policy = compiled(Unmatched::Deny);
        let grant = accepted(&policy, destination::MAPS, granted("maps", parameter("key", SECRET)));
        let target = format!("/x?{written}");
        let request = get("maps.example", &target).with("x-api-key", PLACEHOLDER);
        let sent = request.upstream(&policy, &grant).unwrap().target();
        let names = names(&sent);
        prop_assert!(!names.iter().any(|name| is_auth(name)), "{}", sent);
        // Once to each of the two servers.
        prop_assert_eq!(names.iter().filter(|name| *name == "key").count(), 2, "{}", &sent);
        let credential = format!("key={SECRET}");
        prop_assert!(sent.ends_with(&credential), "{}", sent);
        prop_assert_eq!(others(&sent, Some("key")), others(&target, Some("key")));
    }

    #[test]
    fn a_header_credential_leaves_none_in_the_query(written in made_of(QUERIES, 14)) {
        let policy = compiled(Unmatched::Deny);
        let grant = accepted(&policy, destination::API, granted("github", header("authorization", SECRET)));
        let target = format!("/x?{written}");
        let sent = get("api.github.com", &target).bearer(PLACEHOLDER).upstream(&policy, &grant).unwrap().target();
        prop_assert!(!names(&sent).iter().any(|name| is_auth(name)), "{}", sent);
        prop_assert_eq!(others(&sent, None), others(&target, None));
        if !names(&target).iter().any(|name| is_auth(name)) {
            prop_assert_eq!(sent, target, "nothing to take out, nothing touched");
        }
    }
}
