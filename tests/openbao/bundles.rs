//! Artifacts that are JSON documents, named by a reference: as a text in a field, or as the field itself.

use serde_json::{Value, json};

use crate::server::Bao;
use crate::world::{World, says, until, until_says, until_well};

const TOKEN: &str = "the-access-token-of-an-artifact-0123";
const ACCOUNT: &str = "the-account-of-an-artifact-4567";

fn artifact(account: &str) -> Value {
    json!({"tokens": {"access_token": TOKEN, "account_id": account}, "ratio": 1.5, "hosts": ["a.test"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_names_a_document_whether_the_field_is_a_text_or_an_object() {
    let Some(bao) = Bao::start().await else { return };
    bao.kv().await;
    let references = ", references: {mount: secret, base: agents, templates: {runtime-providers: \
                      '{base}/runtime-providers/{provider}/secrets'}}";
    let sources = bao.source("{token: {env: BAO_TOKEN}}", references);
    let source = "{ref: 'runtime-providers/cliproxy:CODEX_OAUTH_BUNDLE'}, bundle: {secret: tokens.access_token, headers: \
                  {ChatGPT-Account-ID: tokens.account_id}, destinations: hosts}";
    let world = World::new(&sources, source);
    let put = async |field: Value| {
        let body = json!({"data": {"CODEX_OAUTH_BUNDLE": field}});
        bao.done("POST", "secret/data/agents/runtime-providers/cliproxy/secrets", body).await;
    };
    put(artifact(ACCOUNT)).await;
    let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
    let object = until_well(&broker).await;
    assert_eq!(object["source"], "openbao secret/data/agents/runtime-providers/cliproxy/secrets#CODEX_OAUTH_BUNDLE");
    // The same document as a text, written otherwise: it is good, and another version of the secret.
    put(json!(format!(" {} ", artifact(ACCOUNT)))).await;
    let text = until(&broker, |now| says(now) == "; " && now["fingerprint"] != object["fingerprint"]).await;
    put(artifact("the-account-of-another-8901")).await;
    until(&broker, |now| says(now) == "; " && now["fingerprint"] != text["fingerprint"]).await;
    put(json!({"tokens": {"access_token": TOKEN}})).await;
    until_says(&broker, "its field tokens.account_id is not there").await;
    put(json!([TOKEN])).await;
    until_says(&broker, "the field holds no text").await;
    let everything = world.everything(&broker);
    assert!(!everything.contains(TOKEN) && !everything.contains(ACCOUNT), "it shows");
}
