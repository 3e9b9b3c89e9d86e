//! What a service wants beside a credential stands there, once, and nothing else is touched.

use crate::fixture::{PLACEHOLDER, Request, SECRET};
use crate::fixture::{accepted, bind, compiled, destination, get, granted, header, spec, test};
use crate::policy::{CompanionSpec, Policy, Unmatched};

fn upstream(request: &Request) -> Request {
    let companion =
        |header: &str, value: &str, merge| CompanionSpec { header: header.into(), value: value.into(), merge };
    let mut spec = spec();
    spec.unmatched = Unmatched::Deny;
    spec.destinations[destination::API].bindings = vec![crate::policy::BindingSpec {
        with: vec![companion("x-beta", "ours", true), companion("X-Account", "a-1", false)],
        ..bind("github", "authorization")
    }];
    let policy = Policy::compile(spec).unwrap();
    let injection = header("authorization", &format!("Bearer {SECRET}"));
    request.upstream(&policy, &accepted(&policy, destination::API, granted("github", injection))).unwrap()
}

fn api() -> Request {
    get("api.github.com", "/user").bearer(PLACEHOLDER)
}

#[test]
fn a_list_is_joined_and_a_value_replaced() {
    for (written, sent) in [
        (&[][..], "ours"),
        (&["theirs"], "theirs,ours"),
        (&["a, b"], "a, b,ours"),
        (&["a", "b"], "a,b,ours"),
        (&["ours,a"], "ours,a"),
        (&["a, ours"], "a, ours"),
        (&["oursx"], "oursx,ours"),
    ] {
        let asked = written.iter().fold(api(), |request, value| request.with("x-beta", value));
        assert_eq!(upstream(&asked).all("x-beta"), [sent], "{written:?}");
    }
    assert_eq!(upstream(&api().with("x-account", "another")).all("x-account"), ["a-1"]);
    let sent = upstream(&api().with("accept", "text/plain"));
    assert_eq!(sent.all("accept"), ["text/plain"]);
    assert_eq!(sent.all("authorization"), [format!("Bearer {SECRET}")]);
}

#[test]
fn elsewhere_there_is_none() {
    let policy = compiled(Unmatched::Deny);
    let injection = header("authorization", &format!("Bearer {SECRET}"));
    let sent = api().upstream(&policy, &accepted(&policy, destination::API, granted("github", injection))).unwrap();
    assert!(sent.all("x-beta").is_empty() && sent.all("x-account").is_empty());
}
