//! What our images are to others: the filter's is one that Istio fetches by `oci://`, the broker's runs as nobody in
//! particular.

use std::path::Path;
use std::process::Command;

use attache_tests::util;
use serde_json::Value;

use crate::engine::Engine;

/// By the rules of Istio's fetcher (`pkg/wasm/imagefetcher.go`) for images as Docker pushes them: of the last layer, a
/// gzipped tar, the first file whose base name is `plugin.wasm`. Here the layer is not gzipped yet: a push does that.
pub async fn of_the_filter(engine: &Engine) {
    let dir = engine.dir().join("saved");
    std::fs::create_dir(&dir).expect("a directory of ours");
    let archive = engine.dir().join("filter.tar");
    let saved = engine.docker(&["save", "--output", archive.to_str().expect("text"), "attache-filter:latest"]).await;
    assert!(saved.status.success(), "{saved:?}");
    tar(&["-C", dir.to_str().expect("text"), "-xf", archive.to_str().expect("text")]);
    let manifest: Value = serde_json::from_slice(&read(&dir.join("manifest.json"))).expect("a manifest");
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1, "nothing but the module");
    let layer = dir.join(layers[0].as_str().expect("a path"));
    let layer = layer.to_str().expect("text");
    let listed = String::from_utf8(tar(&["-tf", layer])).expect("text");
    let module = listed.lines().find(|path| path.rsplit('/').next() == Some("plugin.wasm"));
    let module = module.unwrap_or_else(|| panic!("no plugin.wasm among {listed}"));
    assert_eq!(tar(&["-xOf", layer, module]), read(&util::filter_wasm()), "another module");
}

/// A numeric user that is not root, and labels that say what it is.
pub async fn of_the_broker(engine: &Engine) {
    let said = engine.docker(&["image", "inspect", "attache-broker:latest", "attache-filter:latest"]).await;
    let images: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!(images[0]["Config"]["User"], "101:101");
    let version = env!("CARGO_PKG_VERSION");
    for (image, title) in images.iter().zip(["attache-broker", "attache-filter"]) {
        let labels = &image["Config"]["Labels"];
        for (label, value) in [("title", title), ("version", version), ("licenses", "Apache-2.0")] {
            assert_eq!(labels[format!("org.opencontainers.image.{label}")], value, "{title}");
        }
    }
    let ran = ["run", "--rm", "--read-only", "--network", "none", "attache-broker:latest", "--version"];
    let ran = engine.docker(&ran).await;
    assert!(ran.status.success() && ran.out.contains(version), "{ran:?}");
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tar(arguments: &[&str]) -> Vec<u8> {
    let said = Command::new("tar").args(arguments).output().expect("tar");
    assert!(said.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}
