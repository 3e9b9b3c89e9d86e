//! The OpenAPI documents say the truth, and the broker survives whoever tests that: schemathesis asks
//! both doors everything that they allow, and much that they do not.

#[path = "conforms/scene.rs"]
mod scene;

use scene::Scene;
use serde_json::Value;

/// Requests for each operation and phase.
const EXAMPLES: &str = "25";
/// The same requests each time. Another number, other requests.
const SEED: &str = "1";

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_door_does_what_its_document_says() {
    let scene = Scene::start().await;
    let document = scene.document("control");
    let Some(said) = scene.ask("control", &document, &[]).await else { return };
    said.is_clean(&document);
    scene.is_unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filters_door_does_what_its_document_says() {
    let scene = Scene::start().await;
    let document = scene.document("data-plane");
    let Some(said) = scene.ask("data-plane", &document, &[]).await else { return };
    said.is_clean(&document);
    scene.is_unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_lies_is_found_out() {
    let scene = Scene::start().await;
    let mut document = scene.document("control");
    let ttl = &mut document["components"]["schemas"]["CreateSession"]["properties"]["ttl_ms"]["minimum"];
    assert_eq!(*ttl, 1);
    *ttl = Value::from(0);
    let Some(said) = scene.ask("control", &document, &["--include-path", "/v1/sessions"]).await else { return };
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("Schema-valid request rejected"), "{}", said.text);
}
