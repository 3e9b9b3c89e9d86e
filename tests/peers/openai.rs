//! OpenAI's Python SDK.

use std::sync::Arc;

use attache_core::refusal::Reason;
use attache_tests::upstream::Held;
use serde_json::json;

use crate::recorded::{OPENAI, answer, chat_chunks, events, response, response_events, wants_stream, whole};
use crate::scene::{Scene, is_installed, shown};

async fn start(rest: &Arc<Held>) -> Option<Scene> {
    if !is_installed("python-openai") {
        return None;
    }
    let scene = OPENAI.scene().await;
    let rest = Arc::clone(rest);
    answer(&scene.stack, move |asked| match (asked.path.as_str(), wants_stream(asked)) {
        ("/v1/chat/completions", true) => Some(events(&chat_chunks(&["Good", " day"]), 1, &rest)),
        ("/v1/responses", true) => Some(events(&response_events("Good day"), 4, &rest)),
        ("/v1/responses", false) => Some(whole(&response("Good day"))),
        ("/v1/models", _) => Some(whole(&json!({"object": "list", "data": []}))),
        _ => None,
    });
    Some(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_shows_works_for_a_reader() {
    let rest = Arc::new(Held::default());
    let Some(scene) = start(&rest).await else { return };
    rest.go();
    std::fs::write(scene.path("shown.py"), shown("python openai")).expect("a file");
    let said = scene.shell("watcher", "python shown.py").await.ok();
    assert_eq!(said.out, "Good day\nGood day\n");
    let hits = scene.stack.upstream().hits();
    let paths: Vec<_> = hits.iter().map(|hit| hit.path_text()).collect();
    assert_eq!(paths, ["/v1/responses", "/v1/chat/completions"]);
    for hit in hits {
        assert_eq!(hit.fields.all("authorization"), [format!("Bearer {}", OPENAI.secret).as_bytes()]);
        assert_eq!(hit.authority, OPENAI.host);
    }
    scene.reconcile().await;
}

/// What has come is with the client before the rest has been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_piece_by_piece() {
    let rest = Arc::new(Held::default());
    let Some(scene) = start(&rest).await else { return };
    let script = "from openai import OpenAI\nfrom pathlib import Path\n\
        with OpenAI().responses.stream(model='gpt-4o-mini', input='hello') as stream:\n\
        \x20   for event in stream:\n\
        \x20       if event.type == 'response.output_text.delta': Path('begun').write_text(event.delta)\n\
        \x20   print(stream.get_final_response().output_text)\n";
    std::fs::write(scene.path("stream.py"), script).expect("a file");
    let said = scene.while_held("models", "python stream.py", "begun", &rest).await.ok();
    assert_eq!(said.out, "Good day\n");
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_to_do() {
    let Some(scene) = start(&Arc::default()).await else { return };
    let client = "from openai import OpenAI\nc = OpenAI(base_url='http://127.0.0.1:3030/api.openai.com/v1')\n";
    let refused = [
        ("c.fine_tuning.jobs.create(model='gpt-4o-mini', training_file='x')", "PermissionDeniedError"),
        ("c.files.create(file=b'{}', purpose='batch')", "PermissionDeniedError"),
        ("c.files.delete('x')", "PermissionDeniedError"),
    ];
    for (call, error) in refused {
        let said = scene.shell("watcher", &format!("python -c \"{client}{call}\"")).await.refused(Reason::ReadOnly);
        assert!(said.err.contains(error) && said.err.contains("Error code: 403"), "{}", said.err);
    }
    let caught = "import openai\ntry: c.files.delete('x')\nexcept openai.PermissionDeniedError as e:\n\
        \x20   print(e.response.headers['x-attache-reason'], e.code, e.response.json()['hint'])";
    let said = scene.shell("watcher", &format!("python -c \"{client}{caught}\"")).await.ok().shows(Reason::ReadOnly);
    assert!(said.out.starts_with("read_only read_only "), "{}", said.out);
    let stranger = "OPENAI_API_KEY=sk-ATTACHEnobody python -c \"from openai import OpenAI; OpenAI().models.list()\"";
    scene.shell("watcher", stranger).await.refused(Reason::PlaceholderUnknown);
    assert!(scene.stack.upstream().requests().is_empty(), "what was refused arrived");
    scene.stack.reconcile().await;
}
