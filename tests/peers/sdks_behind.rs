//! The Python SDKs of OpenAI and Anthropic behind the forward proxy: their own hosts, no `base_url`.

use std::sync::Arc;

use attache_core::refusal::Reason;
use attache_tests::upstream::Held;

use crate::behind::Client;
use crate::recorded::{
    ANTHROPIC, OPENAI, answer, anthropic_events, anthropic_message, chat_chunks, events, response, wants_stream, whole,
};
use crate::scene::is_installed;

const BY_OPENAI: &str = r#"
from openai import OpenAI
from pathlib import Path
client = OpenAI()
assert str(client.base_url) == "https://api.openai.com/v1/", client.base_url
print(client.responses.create(model="gpt-4o-mini", input="hello").output_text)
ask = [{"role": "user", "content": "hello"}]
for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=ask, stream=True):
    print(chunk.choices[0].delta.content or "", end="")
    Path("begun").write_text("")
"#;

const BY_ANTHROPIC: &str = r#"
from anthropic import Anthropic
from pathlib import Path
client = Anthropic()
assert str(client.base_url) == "https://api.anthropic.com", client.base_url
ask = {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": [{"role": "user", "content": "hello"}]}
print(client.messages.create(**ask).content[0].text)
with client.messages.stream(**ask) as stream:
    for text in stream.text_stream:
        print(text, end="")
        Path("begun").write_text("")
"#;

const TESTED: &str = "a message; one streamed, piece by piece; a refusal";

#[tokio::test(flavor = "multi_thread")]
async fn openai_speaks_to_its_own_host() {
    if !is_installed("python-openai") {
        return;
    }
    let scene = OPENAI.behind().await;
    let rest = Arc::<Held>::default();
    let held = Arc::clone(&rest);
    answer(&scene.stack, move |asked| match (asked.path.as_str(), wants_stream(asked)) {
        ("/v1/responses", false) => Some(whole(&response("Good day"))),
        ("/v1/chat/completions", true) => Some(events(&chat_chunks(&["Good", " day"]), 1, &held)),
        _ => None,
    });
    std::fs::write(scene.path("shown.py"), BY_OPENAI).expect("a file");
    let run = scene.run_by("watcher", "SSL_CERT_FILE", "python shown.py");
    assert_eq!(scene.meanwhile(run, "begun", &rest).await.ok().out, "Good day\nGood day");
    for hit in scene.stack.upstream().hits() {
        assert_eq!(hit.fields.all("authorization"), [format!("Bearer {}", OPENAI.secret).as_bytes()]);
        assert_eq!(hit.authority, OPENAI.host);
        assert!(!hit.fields.has("proxy-authorization"), "{hit:?}");
    }
    let refused = "python -c \"from openai import OpenAI; OpenAI().files.delete('x')\"";
    scene.run("watcher", refused).await.refused(Reason::ReadOnly);
    let version = "python -c 'import openai; print(openai.__version__)'";
    let client = Client { name: "openai (Python)", host: OPENAI.host, version, ca: "SSL_CERT_FILE", tested: TESTED };
    scene.row("watcher", &client).await;
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_speaks_to_its_own_host() {
    if !is_installed("python-openai") {
        return;
    }
    let scene = ANTHROPIC.behind().await;
    let rest = Arc::<Held>::default();
    let held = Arc::clone(&rest);
    answer(&scene.stack, move |asked| match (asked.path.as_str(), wants_stream(asked)) {
        ("/v1/messages", true) => Some(events(&anthropic_events(&["Good", " day"]), 3, &held)),
        ("/v1/messages", false) => Some(whole(&anthropic_message("Good day"))),
        _ => None,
    });
    std::fs::write(scene.path("shown.py"), BY_ANTHROPIC).expect("a file");
    let run = scene.run_by("watcher", "SSL_CERT_FILE", "python shown.py");
    assert_eq!(scene.meanwhile(run, "begun", &rest).await.ok().out, "Good day\nGood day");
    for hit in scene.stack.upstream().hits() {
        assert_eq!(hit.fields.all("x-api-key"), [ANTHROPIC.secret.as_bytes()]);
        assert_eq!(hit.authority, ANTHROPIC.host);
    }
    let refused = "python -c \"from anthropic import Anthropic; Anthropic().messages.batches.delete('x')\"";
    scene.run("watcher", refused).await.refused(Reason::ReadOnly);
    let version = "python -c 'import anthropic; print(anthropic.__version__)'";
    let client =
        Client { name: "anthropic (Python)", host: ANTHROPIC.host, version, ca: "SSL_CERT_FILE", tested: TESTED };
    scene.row("watcher", &client).await;
    scene.reconcile().await;
}
