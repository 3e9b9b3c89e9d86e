//! GitHub's command line behind the forward proxy, against a recorded API: `api.github.com` is built into it.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};
use serde_json::json;

use crate::behind::Client;
use crate::recorded::{answer, whole};
use crate::scene::{Scene, has};

const CA: &str = "SSL_CERT_FILE";

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_and_writes_and_a_reader_is_told_why_it_may_not() {
    if !has(&["gh"]) {
        return;
    }
    let scene = Scene::of(Plan::default().forward_proxy()).await;
    answer(&scene.stack, |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/user") => Some(whole(&json!({"login": "octocat"}))),
        ("POST", "/repos/o/r/issues") => Some(whole(&json!({"number": 7}))),
        ("POST", "/graphql") => Some(whole(&json!({"data": {"viewer": {"login": "octocat"}}}))),
        _ => None,
    });
    let gh = |rest: &str| format!("export GH_NO_UPDATE_NOTIFIER=1 GH_PROMPT_DISABLED=1\ngh {rest}");
    let reads = ["api user --jq .login", "api graphql -f 'query=query { viewer { login } }' --jq .data.viewer.login"];
    for read in reads {
        assert_eq!(scene.run_by("reader", CA, &gh(read)).await.ok().out, "octocat\n", "{read}");
    }
    let create = gh("api -X POST repos/o/r/issues -f title=x --jq .number");
    let said = scene.run_by("reader", CA, &create).await.refused(Reason::ReadOnly);
    let line = format!("gh: request refused by attache: {}", Reason::ReadOnly.hint());
    assert!(said.err.starts_with(&line), "{}", said.err);
    assert_eq!(scene.stack.upstream().requests().len(), reads.len(), "a write of a reader arrived");
    assert_eq!(scene.run_by("writer", CA, &create).await.ok().out, "7\n");
    let hits = scene.stack.upstream().hits();
    assert_eq!(hits.len(), reads.len() + 1);
    for hit in hits {
        let sent = hit.fields.all("authorization").concat();
        assert_eq!(String::from_utf8_lossy(&sent).split(' ').next_back(), Some(GITHUB));
        assert_eq!(hit.authority, b"api.github.com"[..]);
    }
    let tested = "REST and GraphQL reads, a write; a reader's write is refused";
    let version = "gh --version | head -1 | cut -d' ' -f3";
    scene.row("reader", &Client { name: "gh", version, ca: CA, host: "api.github.com", tested }).await;
    scene.reconcile().await;
}
