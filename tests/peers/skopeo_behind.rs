//! skopeo behind the forward proxy: an image from a recorded registry that challenges.

use attache_tests::stack::Plan;
use attache_tests::{Reply, util};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::behind::Client;
use crate::recorded::answer;
use crate::scene::{Scene, has};

const PASSWORD: &str = "dckr_pat_TheRealTokenOfTheRegistry0000004";
const CREDENTIAL: &str = "{source: {file: images}, inject: {basic: agent}, basic_challenge: true, \
     agent_env: {IMAGES_TOKEN: placeholder}, destinations: [{host: images.extra.test, upstream: DIAL}]}";
const LAYER: &[u8] = b"what a layer holds is not looked into";

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image of one layer: its configuration and its manifest.
fn image() -> (Vec<u8>, Vec<u8>) {
    let bytes = |value: Value| value.to_string().into_bytes();
    let config = bytes(json!({"architecture": "amd64", "os": "linux", "config": {},
                              "rootfs": {"type": "layers", "diff_ids": [digest(LAYER)]}}));
    let part = |kind: &str, of: &[u8]| {
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                                             "size": of.len(), "digest": digest(of)})
    };
    let manifest = bytes(json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                                "config": part("config.v1+json", &config), "layers": [part("layer.v1.tar", LAYER)]}));
    (config, manifest)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_copies_an_image_from_a_registry_that_challenges() {
    if !has(&["skopeo"]) {
        return;
    }
    let plan = Plan::default().credential("images", PASSWORD, CREDENTIAL);
    let plan = plan.session("{name: puller, credentials: [images], access_mode: read-only}");
    let scene = Scene::of(plan.forward_proxy()).await;
    let (config, manifest) = image();
    let blob = |of: &[u8]| format!("/v2/o/letter/blobs/{}", digest(of));
    let (at_config, at_layer) = (blob(&config), blob(LAYER));
    answer(&scene.stack, move |asked| match asked.path.as_str() {
        "/v2/" => Some(Reply::new(200)),
        "/v2/o/letter/manifests/1" => {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            Some(Reply::new(200).field("content-type", kind).body(manifest.clone()))
        }
        path if path == at_config => Some(Reply::new(200).body(config.clone())),
        path if path == at_layer => Some(Reply::new(200).body(LAYER)),
        _ => None,
    });
    // Of the one that `scripts/peers` has unpacked.
    let at = util::workspace_root().join(".tools/skopeo").display().to_string();
    let skopeo = format!("export LD_LIBRARY_PATH={at}/usr/lib/x86_64-linux-gnu:{at}/lib/x86_64-linux-gnu\nskopeo");
    let copy =
        "copy -q --insecure-policy --src-creds \"agent:$IMAGES_TOKEN\" docker://images.extra.test/o/letter:1 dir:out";
    scene.run_by("puller", "SSL_CERT_FILE", &format!("{skopeo} {copy}")).await.ok();
    let layer = digest(LAYER).replace("sha256:", "");
    assert_eq!(std::fs::read(scene.path("out").join(layer)).expect("the layer"), LAYER);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().all(|hit| hit.authority == "images.extra.test"), "{hits:?}");
    let version = format!("{skopeo} --version | cut -d' ' -f3");
    let client = Client {
        name: "skopeo",
        version: &version,
        ca: "SSL_CERT_FILE",
        host: "images.extra.test",
        tested: "copy of an image from a registry that challenges",
    };
    scene.row("puller", &client).await;
    scene.reconcile().await;
}
