//! A credential in the query: set once, beside everything else as it was.

use crate::fixture::{OWN, PLACEHOLDER, SECRET, accepted, compiled, destination, get, granted, query, test};
use crate::policy::Unmatched;

/// The target that arrives upstream.
fn arrives(authority: &str, target: &str) -> String {
    let policy = compiled(Unmatched::Deny);
    let grant = accepted(&policy, destination::MAPS, granted("maps", query("key", SECRET)));
    let sent = get(authority, target).with("x-api-key", PLACEHOLDER).upstream(&policy, &grant).unwrap();
    assert!(sent.all("x-api-key").is_empty(), "the placeholder's header goes");
    sent.target()
}

#[test]
fn the_parameter_is_set_and_the_others_stay() {
    let cases: [(&str, String); 8] = [
        ("/x", format!("/x?key={SECRET}")),
        ("/x?", format!("/x?key={SECRET}")),
        ("/x?&&", format!("/x?key={SECRET}")),
        ("/x?a=1", format!("/x?a=1&key={SECRET}")),
        ("/x?b=%26&a=1&b=+", format!("/x?b=%26&a=1&b=+&key={SECRET}")),
        ("/x?a=?/=&c", format!("/x?a=?/=&c&key={SECRET}")),
        ("/x?keys=1&ke=2&mykey=3", format!("/x?keys=1&ke=2&mykey=3&key={SECRET}")),
        ("/a%20b;v=1?a", format!("/a%20b;v=1?a&key={SECRET}")),
    ];
    for (target, sent) in cases {
        assert_eq!(arrives("maps.example", target), sent, "{target}");
    }
}

#[test]
fn the_placeholder_in_the_query_is_replaced() {
    let sent = arrives("maps.example", &format!("/x?a=1&key={PLACEHOLDER}&b=2"));
    assert_eq!(sent, format!("/x?a=1&b=2&key={SECRET}"));
}

#[test]
fn the_agents_own_value_goes_in_any_encoding() {
    for own in ["key", "%6bey", "k%65y", "%6B%65%79", "Key", "KEY", "%4bey"] {
        for target in [format!("/x?{own}={OWN}&a=1"), format!("/x?a=1&{own}={OWN}&{own}={OWN}")] {
            assert_eq!(arrives("maps.example", &target), format!("/x?a=1&key={SECRET}"), "{target}");
        }
        assert_eq!(arrives("maps.example", &format!("/x?{own}")), format!("/x?key={SECRET}"), "{own} without a value");
    }
}

#[test]
fn other_credentials_in_the_query_go() {
    let sent = arrives("maps.example", &format!("/x?access_token={OWN}&a=1"));
    assert_eq!(sent, format!("/x?a=1&key={SECRET}"));
}

#[test]
fn other_credentials_go_from_between_semicolons_too() {
    for (written, sent) in [
        (format!("a=1;access_token={OWN}"), "a=1&".to_owned()),
        (format!("a=1;Access%5Ftoken={OWN};b=2"), "a=1;b=2&".to_owned()),
        (format!("access_token;a=1;key={OWN}&c=3"), "a=1&c=3&".to_owned()),
        // To a server that splits at `&` alone, all of it is the credential.
        (format!("access_token={OWN};b=2&c=3"), "c=3&".to_owned()),
        (format!("api_key;key={OWN}"), String::new()),
        ("a;b=1;;c&d".to_owned(), "a;b=1;;c&d&".to_owned()),
    ] {
        let arrived = arrives("maps.example", &format!("/x?{written}"));
        assert_eq!(arrived, format!("/x?{sent}key={SECRET}"), "{written}");
    }
}

#[test]
fn a_grant_may_set_several_parameters() {
    let policy = compiled(Unmatched::Deny);
    let mut answer = granted("maps", query("key", SECRET));
    answer.injections.push(query("client", "c"));
    let grant = accepted(&policy, destination::MAPS, answer);
    for (target, kept) in [("/x", "?"), ("/x?a=1&client=own", "?a=1&")] {
        let sent = get("maps.example", target).with("x-api-key", PLACEHOLDER).upstream(&policy, &grant).unwrap();
        assert_eq!(sent.target(), format!("/x{kept}key={SECRET}&client=c"));
    }
}

#[test]
fn the_gateways_prefix_stays_for_the_route_to_cut() {
    assert_eq!(arrives("127.0.0.1:3030", "/maps/x?a=1"), format!("/maps/x?a=1&key={SECRET}"));
}
