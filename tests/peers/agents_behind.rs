//! Codex and Claude Code behind the forward proxy: their own hosts, and nothing in a config of theirs.

use std::sync::Arc;

use attache_tests::stack::SOON;
use attache_tests::upstream::Held;
use attache_tests::util;

use crate::behind::Client;
use crate::recorded::{
    ANTHROPIC, OPENAI, answer, anthropic_events, anthropic_message, events, response_events, wants_stream, whole,
};
use crate::scene::is_installed;

/// It asks for a WebSocket, hears 426, and goes on without.
#[tokio::test(flavor = "multi_thread")]
async fn codex_speaks_to_its_own_host_and_goes_on_without_a_web_socket() {
    if !is_installed("codex-") {
        return;
    }
    let scene = OPENAI.behind().await;
    let rest = Arc::<Held>::default();
    rest.go();
    answer(&scene.stack, move |asked| {
        let said = || events(&response_events("Good day from the recording"), 1, &rest);
        (asked.path == "/v1/responses" && asked.method == "POST").then(said)
    });
    let script = "printenv OPENAI_API_KEY | codex login --with-api-key 2>/dev/null\n\
        codex exec --skip-git-repo-check --color never 'say something'";
    let said = scene.run_by("watcher", "SSL_CERT_FILE", script).await.ok();
    assert_eq!(said.out.trim(), "Good day from the recording", "{}", said.err);
    let hits = scene.stack.upstream().hits();
    let asked: Vec<_> = hits.iter().filter(|hit| hit.path_text() == "/v1/responses").collect();
    let [hit] = &asked[..] else { panic!("one request, not {hits:?}") };
    assert_eq!((hit.method.as_ref(), &hit.authority[..]), ("POST".as_bytes(), OPENAI.host.as_bytes()));
    assert_eq!(hit.fields.all("authorization"), [format!("Bearer {}", OPENAI.secret).as_bytes()]);
    // Nobody asked for a WebSocket, else.
    util::eventually(SOON, || scene.stack.envoy.log().contains(r#""response_code":426"#)).await;
    let tested = "codex exec: one exchange, streamed; WebSocket answered with 426, then POST";
    let client = Client { name: "Codex", host: OPENAI.host, version: "codex --version", ca: "SSL_CERT_FILE", tested };
    scene.row("watcher", &client).await;
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_speaks_to_its_own_host() {
    if !is_installed("claude-") {
        return;
    }
    let scene = ANTHROPIC.behind().await;
    let rest = Arc::<Held>::default();
    rest.go();
    answer(&scene.stack, move |asked| match (asked.path.as_str(), wants_stream(asked)) {
        ("/v1/messages", true) => Some(events(&anthropic_events(&["Good day", " from the recording"]), 3, &rest)),
        ("/v1/messages", false) => Some(whole(&anthropic_message("Good day from the recording"))),
        _ => None,
    });
    let said = scene.run_by("watcher", "NODE_EXTRA_CA_CERTS", "claude -p 'say something'").await.ok();
    assert_eq!(said.out.trim(), "Good day from the recording", "{}", said.err);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().any(|hit| hit.path_text().starts_with("/v1/messages")), "{hits:?}");
    for hit in hits {
        assert_eq!(hit.fields.all("x-api-key"), [ANTHROPIC.secret.as_bytes()]);
        assert_eq!(hit.authority, ANTHROPIC.host);
    }
    let tested = "claude -p: one exchange, streamed";
    let client = Client {
        name: "Claude Code",
        host: ANTHROPIC.host,
        version: "claude --version",
        ca: "NODE_EXTRA_CA_CERTS",
        tested,
    };
    scene.row("watcher", &client).await;
    scene.reconcile().await;
}
