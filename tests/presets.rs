//! Every preset, on a real Envoy: in each form in which clients show its credential, exactly what its
//! service receives; what its readers may do; and that its base URLs work as SDKs use them.
//!
//! A preset without a row fails, and so does a rule that no row tries. The rows: `presets/rows.rs`.

#[path = "presets/rows.rs"]
mod rows;

use attache_broker::config::{access::AccessSpec, presets};
use attache_core::evidence::{AUTH_HEADERS, AUTH_PARAMETERS};
use attache_core::refusal::Reason;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Recorded, Stack, refusal};
use rows::{Destination, JSON, ROWS, Row};

/// A credential that the agent brings along, in every other place where one could stand.
const OWN: &str = "agents-own-credential";

#[test]
fn every_preset_and_every_rule_has_a_row() {
    assert_eq!(ROWS.each_ref().map(|row| row.preset), presets::NAMES);
    for row in &ROWS {
        let preset = presets::find(row.preset).expect("a preset");
        let source = preset.source.as_ref().and_then(|source| source.env.as_ref());
        assert_eq!(source.map(|variable| variable.0.as_str()), Some(row.source), "{}", row.preset);
        let rules = |access: &AccessSpec| {
            let access = access.resolve().expect("good rules");
            let asked = access.graphql.map_or(0, |graphql| graphql.paths.len());
            (access.reads.len() + asked, access.writes.len())
        };
        let common = preset.access.as_ref().map_or((0, 0), rules);
        let of = |host: &str| {
            let own = preset.destinations.iter().find(|destination| *destination.host.0.to_string() == *host);
            own.and_then(|destination| destination.access.as_ref()).map_or(common, rules)
        };
        let mut hosts: Vec<_> = preset.destinations.iter().map(|it| it.host.0.to_string()).collect();
        hosts.retain(|host| row.destinations.iter().all(|it| it.host != *host));
        assert!(hosts.is_empty(), "{}: {hosts:?} are not tried", row.preset);
        for Destination { host, reads, writes, .. } in row.destinations {
            let (most_reads, fewest_writes) = of(host);
            assert_eq!(reads.len(), most_reads, "{host}: one row for each rule that names a read");
            let named = writes.iter().filter(|(method, _)| *method == "GET").count();
            assert!(named >= fewest_writes, "{host}: one row for each rule that names a write");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_receives_its_credential_as_it_wants_it_and_alone() {
    let stack = start().await;
    for (row, destination) in rows() {
        let Destination { host, shown, received, .. } = destination;
        let placeholder = stack.broker.exported(&format!("all-{}", row.preset), row.variable);
        let before = stack.upstream().requests().len();
        for show in *shown {
            let shown: Vec<_> = show.iter().map(|(name, value)| (*name, value(&placeholder))).collect();
            let mut headers: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let others = ["authorization", "x-api-key", "api-key", "cookie", "x-goog-api-key", "private-token"];
            let is_free = |other: &&&str| shown.iter().all(|(name, _)| name != *other);
            headers.extend(others.iter().filter(is_free).chain(destination.foreign_headers).map(|other| (*other, OWN)));
            let target = format!("{}?page=2&access_token={OWN}{}", destination.path, destination.foreign);
            let agent = stack.agent();
            let first = agent.request(stack.proxy, "GET", host, &target, &headers, b"").await;
            let second = agent.h2(stack.proxy).await.request("GET", host, &target, &headers, b"").await;
            assert_eq!((first.status, second.expect("an answer").status), (200, 200), "{host}: {}", first.text());
        }
        let hits = stack.upstream().wait_for(before + 2 * shown.len(), SOON).await;
        assert_eq!(hits.len(), before + 2 * shown.len(), "{host}");
        for hit in &hits[before..] {
            let expected: Vec<_> = received.iter().map(|(name, value)| (*name, value(row.secret))).collect();
            for (name, value) in &expected {
                assert_eq!(hit.fields.text(name).as_deref(), Some(value.as_str()), "{}: {host}: {name}", row.preset);
                assert_eq!(hit.fields.all(name).len(), 1, "{host}: {name}");
            }
            for other in AUTH_HEADERS.iter().filter_map(|name| std::str::from_utf8(name).ok()) {
                let ours = expected.iter().any(|(name, _)| *name == other);
                assert!(ours || !hit.fields.has(other), "{host}: {other} went upstream");
            }
            assert_eq!((&hit.authority[..], hit.sni.as_deref()), (host.as_bytes(), Some(*host)));
            assert_eq!(hit.path_text(), format!("{}?page=2", destination.path), "{host}");
            assert!(AUTH_PARAMETERS.contains(&&b"access_token"[..]));
            assert!(!holds(hit, OWN) && !holds(hit, "ATTACHE"), "{host}: {}", hit.path_text());
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_posts_what_reads_and_nothing_else() {
    let stack = start().await;
    for (row, Destination { host, shown, reads, writes, path, .. }) in rows() {
        let placeholder = stack.broker.exported(&format!("reader-{}", row.preset), row.variable);
        let shown: Vec<_> = shown[0].iter().map(|(name, value)| (*name, value(&placeholder))).collect();
        let headers = |media: &'static str| -> Vec<_> {
            let shown = shown.iter().map(|(name, value)| (*name, value.as_str()));
            shown.chain([("content-type", media)]).collect()
        };
        let gets = if row.preset == "docker" { None } else { Some(("GET", *path, JSON, "")) };
        let reads = reads.iter().map(|(target, media, body)| ("POST", *target, *media, *body));
        for (method, target, media, body) in reads.chain(gets) {
            let headers = headers(media);
            let answer = stack.agent().request(stack.proxy, method, host, target, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 200, "{method} {host}{target}: {}", answer.text());
        }
        let before = stack.upstream().requests().len();
        for (method, target) in *writes {
            let answer = stack.agent().request(stack.proxy, method, host, target, &headers(JSON), b"{}").await;
            let refused = refusal::check(&answer, Reason::ReadOnly);
            assert!(refused.is_ok(), "{method} {host}{target}: {refused:?}");
        }
        assert_eq!(stack.upstream().requests().len(), before, "{host}: what was refused arrived");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base_urls_lead_where_sdks_append_their_paths() {
    let stack = start().await;
    for row in &ROWS {
        let preset = presets::find(row.preset).expect("a preset");
        let is_url = |name: &str| name.ends_with("_URL") || name.ends_with("_API_BASE");
        let exports_url = preset.agent_env.iter().flatten().any(|(name, _)| is_url(&name.0));
        assert_eq!(exports_url, row.sdk.is_some(), "{}", row.preset);
        let (Some((variable, appended, expected)), [Destination { host, shown, received, .. }, ..]) =
            (row.sdk, row.destinations)
        else {
            continue;
        };
        let session = format!("all-{}", row.preset);
        let base = stack.broker.exported(&session, variable);
        let (authority, prefix) = base.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
        // The stack's Envoy took another port than the config's 0, which the broker cannot know.
        assert_eq!(authority, stack.config.listen.proxy.to_string(), "{base}");
        assert!(!base.ends_with('/'), "{base}");
        let authority = stack.proxy.to_string();
        let placeholder = stack.broker.exported(&session, row.variable);
        let shown: Vec<_> = shown[0].iter().map(|(name, value)| (*name, value(&placeholder))).collect();
        let headers: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let before = stack.upstream().requests().len();
        let target = format!("/{prefix}{appended}");
        let answer = stack.agent().request(stack.proxy, "GET", &authority, &target, &headers, b"").await;
        assert_eq!(answer.status, 200, "{base}: {}", answer.text());
        let hits = stack.upstream().wait_for(before + 1, SOON).await;
        assert_eq!((hits[before].path_text().as_str(), &hits[before].authority[..]), (expected, host.as_bytes()));
        let (name, value) = received[0];
        assert_eq!(hits[before].fields.all(name), [value(row.secret).as_bytes()], "{base}");
    }
    stack.reconcile().await;
}

fn rows() -> impl Iterator<Item = (&'static Row, &'static Destination)> {
    ROWS.iter().flat_map(|row| row.destinations.iter().map(move |destination| (row, destination)))
}

/// A stack with every preset, secrets from the environment, and for each two sessions.
async fn start() -> Stack<Attache> {
    let mut plan = Plan::default();
    for row in &ROWS {
        // The standard config has GitHub's.
        if row.preset != "github" {
            let hosts = row.destinations.iter().map(|it| format!("{{host: {}, upstream: DIAL{}}}", it.host, it.more));
            let hosts = hosts.collect::<Vec<_>>().join(", ");
            // A source of its own for each, so that no two share a secret.
            let own = format!("ROW_{}", row.preset.to_ascii_uppercase().replace('-', "_"));
            let yaml = format!("{{preset: {}, source: {{env: {own}}}, destinations: [{hosts}]}}", row.preset);
            plan = plan.credential(row.preset, row.secret, &yaml).env(&own, row.secret);
        }
        let name = row.preset;
        plan = plan.session(&format!("{{name: all-{name}, credentials: [{name}]}}"));
        plan = plan.session(&format!("{{name: reader-{name}, credentials: [{name}], access_mode: read-only}}"));
    }
    let stack = plan.start().await;
    for row in &ROWS {
        let preset = presets::find(row.preset).expect("a preset");
        for variable in preset.agent_env.iter().flatten().map(|(name, _)| &name.0) {
            stack.site.oracle.exports(row.preset, variable);
        }
    }
    stack
}

/// Whether any part of a request's head holds this text.
fn holds(request: &Recorded, text: &str) -> bool {
    let head = [&request.path[..], &request.fields.to_lines()].concat();
    String::from_utf8_lossy(&head).contains(text)
}
