//! Narrowing never widens: whatever a read-only session may do, a read-write one may; whatever is bound to fewer paths, to more.

use super::{config, made_of};
use crate::access::{Access, Body, Operation};
use crate::fixture::{PLACEHOLDER, accepted, destination, granted, header, request, spec};
use crate::policy::{AccessMode, AccessSpec, BodyRule, OperationSpec, Policy};
use crate::request::Media;
use crate::wire::Granted;
use proptest::prelude::*;

const PATHS: &[&str] = &["/a", "/b", "/*", "/info", "/refs", "/%61"];
const REQUESTED: &[&str] = &["/a", "/b", "/info", "/refs", "/%61", "/x"];
const QUERIES: &[&str] = &["&", "=", "service", "push", "pull", "_method", "%5fmethod", "%73ervice"];
const REPOSITORY: &[&str] = &[
    "/o/r",
    "/info/refs",
    "/git-upload-pack",
    "/git-receive-pack",
    "?",
    "&",
    "service=git-receive-pack",
    "/",
    "%2d",
    "_method=PUT",
];
const BOUND: &[&str] = &["/proxy/", "/proxy/network/", "/proxy/network", "/status", "/"];
const UNDER: &[&str] = &["/proxy", "/network", "/status", "/x", "/", "proxy", ";a", "%2e", "?"];
const METHODS: &[&str] = &["GET", "HEAD", "OPTIONS", "POST", "PUT", "QUERY", "get"];

fn operations() -> impl Strategy<Value = Vec<OperationSpec>> {
    let body = BodyRule::Json { member: "operation".into(), any_of: vec!["download".into()] };
    let operation = (
        prop::sample::select(&METHODS[..6]),
        prop::collection::vec(prop::sample::select(PATHS), 1..4),
        prop::option::of(prop::sample::select(&["push", "pull"][..])),
        prop::option::of(Just(body)),
        any::<bool>(),
    )
        .prop_map(|(method, path, service, body, open)| OperationSpec {
            method: method.into(),
            path: path.concat() + if open { "/**" } else { "" },
            query: service.into_iter().map(|service| ("service".into(), service.into())).collect(),
            no_other_query: open,
            body,
        });
    prop::collection::vec(operation, 0..3)
}

fn body() -> impl Strategy<Value = Body<'static>> {
    prop::sample::select(vec![
        Body::Unread,
        Body::TooLarge,
        Body::Whole(br#"{"operation":"download"}"#),
        Body::Whole(br#"{"operation":"upload"}"#),
        Body::Whole(b""),
    ])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn read_only_allows_nothing_that_read_write_does_not(
        (reads, writes) in (operations(), operations()),
        method in prop::sample::select(METHODS),
        path in made_of(REQUESTED, 4),
        written in prop::option::of(made_of(QUERIES, 6)),
        disguised in any::<bool>(),
        body in body(),
    ) {
        let writes = without_bodies(writes);
        let access = Access::compile(&AccessSpec { reads: reads.clone(), writes: writes.clone(), ..AccessSpec::default() }).unwrap();
        let query = written.as_deref().map(str::as_bytes);
        let operation = Operation { method: method.as_bytes(), path: path.as_bytes(), query, disguised, media: Media::Json, carrier: None, strip: None };
        let verdict = |access: &Access, mode| access.check(mode, operation, || body).is_ok();
        let reads_only = verdict(&access, AccessMode::ReadOnly);
        prop_assert!(!reads_only || verdict(&access, AccessMode::ReadWrite));
        // A disguise never widens, more writes never widen, fewer reads never widen.
        prop_assert!(!(reads_only && disguised));
        if reads_only {
            let without_writes = Access::compile(&AccessSpec { reads: reads.clone(), ..AccessSpec::default() }).unwrap();
            prop_assert!(verdict(&without_writes, AccessMode::ReadOnly));
        }
        let bare = Access::compile(&AccessSpec { writes, ..AccessSpec::default() }).unwrap();
        if verdict(&bare, AccessMode::ReadOnly) {
            prop_assert!(matches!(method, "GET" | "HEAD" | "OPTIONS"), "without a rule only safe methods read");
            prop_assert!(reads_only);
        }
    }

    #[test]
    fn a_grant_to_read_sends_nothing_that_a_grant_to_write_does_not(
        method in prop::sample::select(METHODS),
        target in made_of(REPOSITORY, 5),
        disguise in any::<bool>(),
        body in body(),
    ) {
        let policy = Policy::compile(spec()).unwrap();
        let plain = request(method, "github.com", target).bearer(PLACEHOLDER);
        let asked = if disguise { plain.with("x-http-method-override", "PUT") } else { plain };
        let sent = |access_mode| {
            let granted = Granted { access_mode, ..granted("github", header("authorization", "Basic abcd")) };
            asked.upstream_with(&policy, &accepted(&policy, destination::GIT, granted), body).ok().map(|sent| sent.0)
        };
        if let Some(sent_to_read) = sent(AccessMode::ReadOnly) {
            prop_assert_eq!(sent(AccessMode::ReadWrite), Some(sent_to_read));
        }
    }

    #[test]
    fn a_binding_to_fewer_paths_opens_none_more(
        some in prop::collection::vec(prop::sample::select(BOUND), 1..3),
        more in prop::collection::vec(prop::sample::select(BOUND), 0..3),
        target in made_of(UNDER, 5),
    ) {
        let asked = request("POST", "unifi.lan:8443", target).bearer(PLACEHOLDER);
        let sent = |paths: Vec<&str>| {
            let mut spec = spec();
            spec.destinations[destination::UNIFI].bindings[0].paths = paths.into_iter().map(Into::into).collect();
            let policy = Policy::compile(spec).unwrap();
            let grant = accepted(&policy, destination::UNIFI, granted("unifi", header("x-unifi-key", "real")));
            asked.upstream(&policy, &grant).is_ok()
        };
        if sent(some.clone()) {
            prop_assert!(sent([some, more].concat()), "more paths");
            prop_assert!(sent(Vec::new()), "every path");
        }
    }
}

/// Only reads have body rules.
fn without_bodies(writes: Vec<OperationSpec>) -> Vec<OperationSpec> {
    writes.into_iter().map(|write| OperationSpec { body: None, ..write }).collect()
}
