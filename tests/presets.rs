//! Every preset, on a real Envoy: where its credential stands upstream, what its readers may post, and
//! that its base URLs work as SDKs use them.
//!
//! A preset without a row here fails, and so does a read rule that no row tries.

use attache_broker::config::presets;
use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::{Attache, Recorded, Stack, refusal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A credential that the agent brings along, in every other place where one could stand.
const OWN: &str = "agents-own-credential";
const JSON: &str = "application/json";

/// A preset, and what it promises.
struct Row {
    preset: &'static str,
    /// Where the broker finds the secret, and the agent its placeholder.
    variable: &'static str,
    secret: &'static str,
    /// A variable with a base URL, what an SDK appends to it, and the path that this must be upstream.
    sdk: Option<(&'static str, &'static str, &'static str)>,
    destinations: &'static [Destination],
}

/// One host of a preset.
struct Destination {
    host: &'static str,
    /// A header as the service's clients send it, and as the service must receive it.
    header: &'static str,
    sent: fn(&str) -> String,
    received: fn(&str) -> String,
    /// POSTs that read: target, media type, body. One for each read rule.
    reads: &'static [(&'static str, &'static str, &'static str)],
    /// What a reader may not do, though it is much like what it may.
    writes: &'static [(&'static str, &'static str)],
}

static ROWS: [Row; presets::NAMES.len()] = [
    Row {
        preset: "anthropic",
        variable: "ANTHROPIC_API_KEY",
        secret: "sk-ant-api03-TheRealKeyThatNoAgentEverSees-0000000000000000000000000000000000000000000000000000000000000001",
        sdk: Some(("ANTHROPIC_BASE_URL", "/v1/messages", "/v1/messages")),
        destinations: &[Destination {
            host: "api.anthropic.com",
            header: "x-api-key",
            sent: plain,
            received: plain,
            reads: &[
                ("/v1/messages", JSON, "{}"),
                ("/v1/messages/count_tokens", JSON, "{}"),
                ("/v1/complete", JSON, "{}"),
            ],
            writes: &[("POST", "/v1/messages/batches"), ("POST", "/v1/files"), ("DELETE", "/v1/messages")],
        }],
    },
    Row {
        preset: "github",
        variable: "GITHUB_TOKEN",
        secret: GITHUB,
        sdk: None,
        destinations: &[
            Destination {
                host: "api.github.com",
                header: "authorization",
                sent: bearer,
                received: bearer,
                reads: &[("/graphql", JSON, r#"{"query":"{viewer{login}}"}"#)],
                writes: &[("GET", "/graphql?query=mutation%7Ba%7D"), ("POST", "/user/repos"), ("PATCH", "/repos/o/r")],
            },
            Destination {
                host: "uploads.github.com",
                header: "authorization",
                sent: |token| format!("token {token}"),
                received: bearer,
                reads: &[],
                writes: &[("POST", "/repos/o/r/releases/1/assets?name=x")],
            },
            Destination {
                host: "github.com",
                header: "authorization",
                sent: |token| basic("me", token),
                received: |token| basic("x-access-token", token),
                reads: &[
                    ("/o/r/git-upload-pack", "application/x-git-upload-pack-request", "0000"),
                    ("/o/r/git-upload-archive", "application/x-git-upload-archive-request", "0000"),
                    ("/o/r/info/lfs/objects/batch", "application/vnd.git-lfs+json", r#"{"operation":"download"}"#),
                ],
                writes: &[("POST", "/o/r/git-receive-pack"), ("GET", "/o/r/info/refs?service=git-receive-pack")],
            },
        ],
    },
    Row {
        preset: "openai",
        variable: "OPENAI_API_KEY",
        secret: "sk-TheRealKeyThatNoAgentEverSees000000000000000000002",
        sdk: Some(("OPENAI_BASE_URL", "/chat/completions", "/v1/chat/completions")),
        destinations: &[Destination {
            host: "api.openai.com",
            header: "authorization",
            sent: bearer,
            received: bearer,
            reads: &[
                ("/v1/chat/completions", JSON, "{}"),
                ("/v1/responses", JSON, "{}"),
                ("/v1/completions", JSON, "{}"),
                ("/v1/embeddings", JSON, "{}"),
                ("/v1/moderations", JSON, "{}"),
                ("/v1/audio/speech", JSON, "{}"),
                ("/v1/images/generations", JSON, "{}"),
            ],
            writes: &[("POST", "/v1/files"), ("POST", "/v1/fine_tuning/jobs"), ("POST", "/v1/audio/transcriptions")],
        }],
    },
];

fn plain(token: &str) -> String {
    token.to_owned()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))
}

#[test]
fn every_preset_and_every_read_rule_has_a_row() {
    assert_eq!(ROWS.each_ref().map(|row| row.preset), presets::NAMES);
    for row in &ROWS {
        let preset = presets::find(row.preset).expect("a preset");
        let source = preset.source.as_ref().and_then(|source| source.env.as_ref());
        assert_eq!(source.map(|variable| variable.0.as_str()), Some(row.variable), "{}", row.preset);
        let rules = preset.destinations.iter().map(|destination| {
            let access = destination.access.clone().unwrap_or_default().resolve().expect("good rules");
            let reads = access.reads.len() + access.graphql.map_or(0, |graphql| graphql.paths.len());
            (destination.host.0.to_string(), reads)
        });
        let tried = row.destinations.iter().map(|tried| (tried.host.to_owned(), tried.reads.len()));
        assert_eq!(tried.collect::<Vec<_>>(), rules.collect::<Vec<_>>(), "{}", row.preset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_credential_stands_where_its_service_wants_it_alone() {
    let stack = start().await;
    for (row, destination) in rows() {
        let Destination { host, header, sent, received, .. } = destination;
        let shown = sent(&stack.broker.exported("all", row.variable));
        let mut headers = vec![(*header, shown.as_str())];
        let others = ["authorization", "x-api-key", "api-key", "cookie", "x-goog-api-key", "proxy-authorization"];
        headers.extend(others.iter().filter(|other| *other != header).map(|other| (*other, OWN)));
        let before = stack.upstream().requests().len();
        let target = format!("/x?page=2&access_token={OWN}");
        let agent = stack.agent();
        let first = agent.request(stack.proxy, "GET", host, &target, &headers, b"").await;
        let second = agent.h2(stack.proxy).await.request("GET", host, &target, &headers, b"").await;
        assert_eq!((first.status, second.expect("an answer").status), (200, 200), "{host}: {}", first.text());
        let hits = stack.upstream().wait_for(before + 2, SOON).await;
        assert_eq!(hits.len(), before + 2, "{host}");
        for hit in &hits[before..] {
            assert_eq!(hit.fields.all(header), [received(row.secret).as_bytes()], "{host}");
            assert_eq!((&hit.authority[..], hit.sni.as_deref()), (host.as_bytes(), Some(*host)));
            for other in others.iter().filter(|other| *other != header) {
                assert!(!hit.fields.has(other), "{host}: {other} went upstream");
            }
            assert!(!holds(hit, OWN) && !holds(hit, "ATTACHE"), "{host}: {}", hit.path_text());
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_posts_what_reads_and_nothing_else() {
    let stack = start().await;
    for (row, Destination { host, header, sent, reads, writes, .. }) in rows() {
        let shown = sent(&stack.broker.exported("readers", row.variable));
        for (target, media, body) in *reads {
            let headers = [(*header, shown.as_str()), ("content-type", media)];
            let answer = stack.agent().request(stack.proxy, "POST", host, target, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 200, "POST {host}{target}: {}", answer.text());
        }
        let before = stack.upstream().requests().len();
        for (method, target) in *writes {
            let headers = [(*header, shown.as_str()), ("content-type", JSON)];
            let answer = stack.agent().request(stack.proxy, method, host, target, &headers, b"{}").await;
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
        let exports_url = preset.agent_env.iter().flatten().any(|(name, _)| name.0.ends_with("_BASE_URL"));
        assert_eq!(exports_url, row.sdk.is_some(), "{}", row.preset);
        let (Some((variable, appended, expected)), [Destination { host, header, sent, received, .. }]) =
            (row.sdk, row.destinations)
        else {
            continue;
        };
        let base = stack.broker.exported("readers", variable);
        let (authority, prefix) = base.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
        // The stack's Envoy took another port than the config's 0, which the broker cannot know.
        assert_eq!(authority, stack.config.listen.proxy.to_string(), "{base}");
        assert!(!base.ends_with('/'), "{base}");
        let authority = stack.proxy.to_string();
        let shown = sent(&stack.broker.exported("readers", row.variable));
        let headers = [(*header, shown.as_str()), ("content-type", JSON)];
        let before = stack.upstream().requests().len();
        let target = format!("/{prefix}{appended}");
        let answer = stack.agent().request(stack.proxy, "POST", &authority, &target, &headers, b"{}").await;
        assert_eq!(answer.status, 200, "{base}: {}", answer.text());
        let hits = stack.upstream().wait_for(before + 1, SOON).await;
        assert_eq!((hits[before].path_text().as_str(), &hits[before].authority[..]), (expected, host.as_bytes()));
        assert_eq!(hits[before].fields.all(header), [received(row.secret).as_bytes()], "{base}");
    }
    stack.reconcile().await;
}

fn rows() -> impl Iterator<Item = (&'static Row, &'static Destination)> {
    ROWS.iter().flat_map(|row| row.destinations.iter().map(move |destination| (row, destination)))
}

/// A stack with every preset, secrets from the environment, and one session that may use them all.
async fn start() -> Stack<Attache> {
    let mut plan = Plan::default();
    // The standard config has GitHub's.
    for row in ROWS.iter().filter(|row| row.preset != "github") {
        let hosts = row.destinations.iter().map(|it| format!("{{host: {}, upstream: DIAL}}", it.host));
        let yaml = format!("{{preset: {}, destinations: [{}]}}", row.preset, hosts.collect::<Vec<_>>().join(", "));
        plan = plan.credential(row.preset, row.secret, &yaml).env(row.variable, row.secret);
    }
    let all = presets::NAMES.join(", ");
    let plan = plan.session(&format!("{{name: all, credentials: [{all}]}}"));
    let stack = plan.session(&format!("{{name: readers, credentials: [{all}], access_mode: read-only}}")).start().await;
    ROWS.iter().for_each(|row| stack.site.oracle.exports(row.preset, row.variable));
    stack
}

/// Whether any part of a request's head holds this text.
fn holds(request: &Recorded, text: &str) -> bool {
    let head = [&request.path[..], &request.fields.to_lines()].concat();
    String::from_utf8_lossy(&head).contains(text)
}
