//! kubectl, against a recorded API server.
//!
//! Over plain HTTP it sends no token, whatever it is given, but the user and password of its server's URL.

use attache_core::refusal::Reason;
use attache_tests::stack::Plan;
use serde_json::json;

use crate::recorded::{answer, whole};
use crate::scene::{Scene, has, shown};

pub const TOKEN: &str = "the-real-service-account-token-of-the-cluster";
const CREDENTIAL: &str = "{preset: kubernetes, source: {file: kubernetes}, agent_env: {K8S_TOKEN: placeholder}, destinations: [{host: k8s.example.com, upstream: DIAL}]}";

async fn start() -> Option<Scene> {
    if !has(&["kubectl"]) {
        return None;
    }
    let scene = Scene::of(plan()).await;
    serve(&scene);
    Some(scene)
}

/// A cluster's token, an admin, and a viewer who may only read.
pub fn plan() -> Plan {
    let plan = Plan::default().credential("kubernetes", TOKEN, CREDENTIAL);
    let plan = plan.session("{name: admin, credentials: [kubernetes]}");
    plan.session("{name: viewer, credentials: [kubernetes], access_mode: read-only}")
}

/// The API server, with one pod.
pub fn serve(scene: &Scene) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "letter", "namespace": "default"}});
    answer(&scene.stack, move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/api") => Some(whole(&json!({"kind": "APIVersions", "versions": ["v1"]}))),
        ("GET", "/apis") => Some(whole(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}))),
        ("GET", "/api/v1") => Some(whole(&json!({
            "kind": "APIResourceList", "groupVersion": "v1",
            "resources": [{"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                           "verbs": ["delete", "get", "list"], "shortNames": ["po"]}],
        }))),
        ("GET", "/api/v1/namespaces/default/pods") => Some(whole(&json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [pod],
        }))),
        ("GET" | "DELETE", "/api/v1/namespaces/default/pods/letter") => Some(whole(&pod)),
        _ => None,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_shows_works() {
    let Some(scene) = start().await else { return };
    scene.shell("viewer", &shown("sh kubectl")).await.ok();
    let said = scene.shell("viewer", "kubectl get pods -o name").await.ok();
    assert_eq!(said.out, "pod/letter\n");
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().any(|hit| hit.path_text().starts_with("/api/v1/namespaces/default/pods")));
    let bearer = format!("Bearer {TOKEN}");
    assert!(hits.iter().all(|hit| hit.fields.all("authorization") == [bearer.as_bytes()]));

    let delete = "kubectl delete pod letter --wait=false";
    let said = scene.shell("viewer", delete).await.refused(Reason::ReadOnly);
    assert!(said.err.starts_with("Error from server (read_only): request refused by attache: "), "{}", said.err);
    let deletes = || scene.stack.upstream().requests().iter().filter(|hit| hit.method == "DELETE").count();
    assert_eq!(deletes(), 0, "a viewer's deletion arrived");
    // A GET that becomes whatever the other end makes of it.
    scene
        .shell("viewer", "kubectl get --raw /k8s.example.com/api/v1/nodes/n/proxy/run")
        .await
        .refused(Reason::ReadOnly);
    scene.shell("admin", &format!("{}{delete}", shown("sh kubectl"))).await.ok();
    assert_eq!(deletes(), 1);

    assert!(scene.stack.broker.cli(&["session", "revoke", "admin"]).status.success());
    // By its config it is the admin now.
    scene.shell("viewer", "kubectl get pods").await.refused(Reason::SessionExpired);
    scene.reconcile().await;
}
