//! kubectl behind the forward proxy: a cluster's own `https://` URL, and a token as ever.

use attache_core::refusal::Reason;

use crate::behind::Client;
use crate::kubectl::{TOKEN, plan, serve};
use crate::scene::{Scene, has};

const KUBECTL: &str = "kubectl --server https://k8s.example.com --token \"$K8S_TOKEN\"";

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_and_deletes_by_the_clusters_own_url() {
    if !has(&["kubectl"]) {
        return;
    }
    let scene = Scene::of(plan().forward_proxy()).await;
    serve(&scene);
    let said = scene.run_by("viewer", "SSL_CERT_FILE", &format!("{KUBECTL} get pods -o name")).await.ok();
    assert_eq!(said.out, "pod/letter\n");
    let delete = format!("{KUBECTL} delete pod letter --wait=false");
    let said = scene.run("viewer", &delete).await.refused(Reason::ReadOnly);
    assert!(said.err.starts_with("Error from server (read_only): request refused by attache: "), "{}", said.err);
    let deletes = || scene.stack.upstream().requests().iter().filter(|hit| hit.method == "DELETE").count();
    assert_eq!(deletes(), 0, "a viewer's deletion arrived");
    scene.run("admin", &delete).await.ok();
    assert_eq!(deletes(), 1);
    let bearer = format!("Bearer {TOKEN}");
    assert!(scene.stack.upstream().hits().iter().all(|hit| hit.fields.all("authorization") == [bearer.as_bytes()]));
    let version = "kubectl version --client | sed -n 's/^Client Version: v//p'";
    let tested = "get, delete; a viewer's deletion is refused";
    scene
        .row("viewer", &Client { name: "kubectl", host: "k8s.example.com", version, ca: "SSL_CERT_FILE", tested })
        .await;
    scene.reconcile().await;
}
