//! curl, over HTTP/1.1 and HTTP/2.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};
use attache_tests::upstream::Protocol;

use crate::scene::{Scene, has, shown};

/// Prints the status after the body.
const CURL: &str = r#"curl -sS --max-time 60 -w '\n%{http_code} %{http_version}\n'"#;
const BEARER: &str = r#"-H "Authorization: Bearer $GITHUB_TOKEN""#;
const API: &str = "http://127.0.0.1:3030/api.github.com";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_shows_works() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::of(Plan::default()).await;
    let said = scene.shell("reader", &shown("sh curl")).await.ok();
    assert_eq!(said.out.lines().filter(|line| *line == "ok").count(), 2, "{}", said.out);
    said.shows(Reason::ReadOnly);
    let hits = scene.stack.upstream().hits();
    let paths: Vec<_> = hits.iter().map(|hit| hit.path_text()).collect();
    assert_eq!(paths, ["/user", "/user"], "two reads arrived, and no write");
    assert!(hits.iter().all(|hit| hit.header("authorization") == Some(format!("Bearer {GITHUB}"))));
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_pass_and_writes_are_refused_over_both_protocols() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::of(Plan::default()).await;
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let run = |rest: &str| format!("{CURL} {protocol} {BEARER} {rest}");
        let get = scene.shell("reader", &run(&format!("{API}/user"))).await.ok();
        assert_eq!(get.out, format!("ok\n\n200 {version}\n"));
        let head = scene.shell("reader", &run(&format!("-I {API}/user"))).await.ok();
        assert!(head.out.ends_with(&format!("\n200 {version}\n")), "{}", head.out);
        let refused = [
            format!("-d '{{}}' -H 'Content-Type: application/json' {API}/user/repos"),
            format!("-X DELETE {API}/repos/o/r"),
            format!("-T /etc/hostname {API}/repos/o/r/contents/x"),
        ];
        for rest in refused {
            let said = scene.shell("reader", &run(&rest)).await.ok().shows(Reason::ReadOnly);
            let (body, status) = said.out.trim_end().rsplit_once('\n').expect("two lines");
            assert_eq!(status, format!("403 {version}"), "{rest}");
            let body: serde_json::Value = serde_json::from_str(body.trim()).expect("JSON");
            assert_eq!((&body["reason"], &body["hint"]), (&"read_only".into(), &Reason::ReadOnly.hint().into()));
        }
    }
    let hits = scene.stack.upstream().hits();
    let methods: Vec<_> = hits.iter().map(|hit| String::from_utf8_lossy(&hit.method).into_owned()).collect();
    assert_eq!(methods, ["GET", "HEAD", "GET", "HEAD"]);
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole() {
    const SIZE: usize = 5_000_000;
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::of(Plan::default()).await;
    let body: Vec<u8> = (0..SIZE).map(|at| b'a' + u8::try_from(at % 26).expect("a letter")).collect();
    std::fs::write(scene.path("big"), &body).expect("a file");
    let ways = [
        // Above a megabyte curl asks first whether to go on (`Expect: 100-continue`); told so, below it.
        "--http1.1 --data-binary @big",
        "--http1.1 -H 'Expect: 100-continue' --data-binary @big",
        "--http1.1 -H 'Transfer-Encoding: chunked' --data-binary @big",
        "--http1.1 -H 'Expect:' -T - <big",
        "--http2-prior-knowledge --data-binary @big",
        "--http2-prior-knowledge -T - <big",
    ];
    for (before, way) in ways.iter().enumerate() {
        let (options, input) = way.split_once('<').unwrap_or((way, "/dev/null"));
        let json = "-H 'Content-Type: application/json'";
        let said = scene.shell("writer", &format!("{CURL} {BEARER} {json} {options} {API}/upload <{input}")).await.ok();
        assert!(said.out.starts_with("ok\n\n200 "), "{way}: {}", said.out);
        let hits = scene.stack.upstream().wait_for(before + 1, attache_tests::stack::SOON).await;
        assert_eq!(hits[before].body.len(), SIZE, "{way}");
        assert!(hits[before].body == body, "{way}: other bytes arrived");
        assert_eq!(hits[before].header("authorization"), Some(format!("Bearer {GITHUB}")), "{way}");
    }
    assert!(scene.stack.upstream().requests().iter().any(|hit| hit.protocol == Protocol::Http2));
    scene.reconcile().await;
}
