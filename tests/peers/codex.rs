//! Codex, by a `model_provider` that speaks the Responses API.

use std::sync::Arc;

use attache_core::refusal::Reason;
use attache_tests::upstream::Held;

use crate::recorded::{OPENAI, answer, events, response_events};
use crate::scene::{Said, Scene, is_installed, shown};

const CODEX: &str = "codex exec --skip-git-repo-check --color never";

async fn start() -> Option<Scene> {
    if !is_installed("codex-") {
        return None;
    }
    let scene = OPENAI.scene().await;
    std::fs::create_dir(scene.path(".codex")).expect("a directory");
    std::fs::write(scene.path(".codex/config.toml"), shown("toml codex").replace("127.0.0.1:3030", &scene.gateway()))
        .expect("the config");
    let rest = Arc::new(Held::default());
    rest.go();
    let said = move |text| Some(events(&response_events(text), 1, &rest));
    answer(&scene.stack, move |asked| said("Good day from the recording").filter(|_| asked.path == "/v1/responses"));
    Some(scene)
}

fn answered(said: &Said) {
    assert_eq!(said.out.trim(), "Good day from the recording", "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_shows_works_for_a_reader() {
    let Some(scene) = start().await else { return };
    answered(&scene.shell("watcher", &format!("{CODEX} 'say something'")).await.ok());
    let hits = scene.stack.upstream().hits();
    let [hit] = &hits[..] else { panic!("one request, not {hits:?}") };
    assert_eq!((hit.path_text().as_str(), &hit.authority[..]), ("/v1/responses", OPENAI.host.as_bytes()));
    assert_eq!(hit.fields.all("authorization"), [format!("Bearer {}", OPENAI.secret).as_bytes()]);
    scene.reconcile().await;
}

/// Where it is told that its provider has WebSockets, it asks for one, hears 426, and goes on without.
#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_without_a_web_socket() {
    let Some(scene) = start().await else { return };
    let sockets = "-c model_providers.gateway.supports_websockets=true";
    answered(&scene.shell("watcher", &format!("{CODEX} {sockets} 'say something'")).await.ok());
    let methods: Vec<_> = scene.stack.upstream().requests().iter().map(|hit| hit.method.clone()).collect();
    assert_eq!(methods, ["POST"], "the upgrade went no further than the gateway");
    let log = scene.stack.envoy.log();
    assert!(log.contains(r#""response_code":426"#), "nobody asked for a WebSocket: {log}");
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_to_do() {
    let Some(scene) = start().await else { return };
    let once = "-c model_providers.gateway.stream_max_retries=0 -c model_providers.gateway.request_max_retries=0";
    let stranger = format!("OPENAI_API_KEY=sk-ATTACHEnobody {CODEX} {once} 'say something'");
    scene.shell("watcher", &stranger).await.refused(Reason::PlaceholderUnknown);
    assert!(scene.stack.upstream().requests().is_empty(), "what was refused arrived");
    scene.stack.reconcile().await;
}
