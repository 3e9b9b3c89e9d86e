//! Anthropic's Python SDK.

use std::sync::Arc;

use attache_core::refusal::Reason;
use attache_tests::upstream::Held;

use crate::recorded::{ANTHROPIC, answer, anthropic_events, anthropic_message, events, wants_stream, whole};
use crate::scene::{Scene, is_installed, shown};

async fn start(rest: &Arc<Held>) -> Option<Scene> {
    if !is_installed("python-openai") {
        return None;
    }
    let scene = ANTHROPIC.scene().await;
    let rest = Arc::clone(rest);
    answer(&scene.stack, move |asked| match (asked.path.as_str(), wants_stream(asked)) {
        ("/v1/messages", true) => Some(events(&anthropic_events(&["Good", " day"]), 3, &rest)),
        ("/v1/messages", false) => Some(whole(&anthropic_message("Good day"))),
        _ => None,
    });
    Some(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_shows_works_for_a_reader() {
    let rest = Arc::new(Held::default());
    let Some(scene) = start(&rest).await else { return };
    rest.go();
    std::fs::write(scene.path("shown.py"), shown("python anthropic")).expect("a file");
    let said = scene.shell("watcher", "python shown.py").await.ok();
    assert_eq!(said.out, "Good day\nGood day\n");
    let hits = scene.stack.upstream().hits();
    assert_eq!(hits.len(), 2);
    for hit in hits {
        assert_eq!(hit.fields.all("x-api-key"), [ANTHROPIC.secret.as_bytes()]);
        assert!(!hit.fields.has("authorization") && hit.path_text() == "/v1/messages", "{hit:?}");
        assert_eq!(hit.authority, ANTHROPIC.host);
    }
    scene.reconcile().await;
}

/// What has come is with the client before the rest has been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_piece_by_piece() {
    let rest = Arc::new(Held::default());
    let Some(scene) = start(&rest).await else { return };
    let script = "from anthropic import Anthropic\nfrom pathlib import Path\n\
        ask = [{'role': 'user', 'content': 'hello'}]\n\
        with Anthropic().messages.stream(model='claude-sonnet-4-5', max_tokens=99, messages=ask) as stream:\n\
        \x20   for text in stream.text_stream: Path('begun').write_text(text)\n\
        \x20   print(stream.get_final_text())\n";
    std::fs::write(scene.path("stream.py"), script).expect("a file");
    let said = scene.while_held("models", "python stream.py", "begun", &rest).await.ok();
    assert_eq!(said.out, "Good day\n");
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_to_do() {
    let Some(scene) = start(&Arc::default()).await else { return };
    let client = "from anthropic import Anthropic\nc = Anthropic(base_url='http://127.0.0.1:3030/api.anthropic.com')\n";
    for call in ["c.messages.batches.create(requests=[])", "c.messages.batches.delete('x')"] {
        let said = scene.shell("watcher", &format!("python -c \"{client}{call}\"")).await.refused(Reason::ReadOnly);
        assert!(said.err.contains("PermissionDeniedError: Error code: 403"), "{}", said.err);
    }
    let caught = "import anthropic\ntry: c.messages.batches.delete('x')\n\
        except anthropic.PermissionDeniedError as e:\n\
        \x20   print(e.response.headers['x-attache-reason'], e.response.json()['hint'])";
    let said = scene.shell("watcher", &format!("python -c \"{client}{caught}\"")).await.ok().shows(Reason::ReadOnly);
    assert!(said.out.starts_with("read_only "), "{}", said.out);
    assert!(scene.stack.upstream().requests().is_empty(), "what was refused arrived");
    scene.stack.reconcile().await;
}
