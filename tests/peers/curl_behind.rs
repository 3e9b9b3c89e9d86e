//! curl behind the forward proxy, over HTTP/1.1 and HTTP/2.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan, SOON};

use crate::behind::Client;
use crate::scene::{Scene, has};

const CURL: &str =
    r#"curl -sS --max-time 60 -w '\n%{http_code} %{http_version}\n' -H "Authorization: Bearer $GITHUB_TOKEN""#;
const API: &str = "https://api.github.com";
const CA: &str = "CURL_CA_BUNDLE";
const SIZE: usize = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn reads_writes_and_refusals_over_both_protocols() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::of(Plan::default().forward_proxy()).await;
    std::fs::write(scene.path("big"), vec![b'a'; SIZE]).expect("a file");
    // Over HTTP/2 curl 7.88 loses an answer that comes before it has sent the body (docs/clients.md): no body there.
    let post = format!("-H 'Content-Type: application/json' -d '{{}}' {API}/user/repos");
    let delete = format!("-X DELETE {API}/repos/o/r");
    for (protocol, version, write) in [("--http1.1", "1.1", &post), ("--http2", "2", &delete)] {
        let before = scene.stack.upstream().hits().len();
        let run = |rest: &str| format!("{CURL} {protocol} {rest}");
        let get = scene.run_by("reader", CA, &run(&format!("{API}/user"))).await.ok();
        assert_eq!(get.out, format!("ok\n\n200 {version}\n"));
        let refused = scene.run_by("reader", CA, &run(write)).await.ok().shows(Reason::ReadOnly);
        assert!(refused.out.ends_with(&format!("\n403 {version}\n")), "{}", refused.out);
        // Of this size curl asks first whether to go on (`Expect: 100-continue`), over HTTP/1.1.
        let upload = format!("-H 'Content-Type: application/json' --data-binary @big {API}/upload");
        let upload = scene.run_by("writer", CA, &run(&upload)).await.ok();
        assert_eq!(upload.out, format!("ok\n\n200 {version}\n"));
        let hits = scene.stack.upstream().wait_for(before + 2, SOON).await;
        let methods: Vec<_> =
            hits[before..].iter().map(|hit| String::from_utf8_lossy(&hit.method).into_owned()).collect();
        assert_eq!(methods, ["GET", "POST"], "a read, an upload, and no write of a reader");
        assert_eq!(hits[before + 1].body.len(), SIZE);
        assert!(hits.iter().all(|hit| hit.header("authorization") == Some(format!("Bearer {GITHUB}"))));
    }
    // Whoever does not trust the authority sends nothing.
    let said = scene.run_by("reader", "NONE", &format!("{CURL} {API}/user")).await;
    assert!(!said.succeeded && said.err.contains("certificate"), "{}", said.err);
    let tested = "reads, uploads after `Expect: 100-continue`, refusals; HTTP/1.1 and HTTP/2";
    let version = "curl --version | head -1 | cut -d' ' -f2";
    scene.row("reader", &Client { name: "curl", version, ca: CA, host: "api.github.com", tested }).await;
    scene.reconcile().await;
}
