//! What Istio's agent in the pod does with extension discovery (`pkg/wasm/convert.go`): it fetches the module, holds
//! its digest against the one that is asked for, and hands Envoy a file; where that fails, a filter that denies
//! everything. Its streams to istiod and to Envoy are files here, and what is fetched is at hand.

use std::path::Path;

use attache_broker::envoy::find;
use serde_json::{Value, json};

use crate::istiod::{Proxy, Surroundings};

/// Hands every discovered filter to Envoy.
pub fn deliver(proxy: &mut Proxy, around: &Surroundings<'_>) {
    let mut extensions = std::mem::take(&mut proxy.extensions);
    for extension in &mut extensions {
        convert(extension, around);
    }
    for filter in proxy.http_filters().iter_mut().filter(|filter| filter.get("config_discovery").is_some()) {
        let found =
            extensions.iter().find(|extension| extension["name"] == filter["name"]).expect("a discovered filter");
        let mut resource = found.clone();
        resource["@type"] = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into();
        let name = filter["name"].as_str().expect("a name").replace('/', "_");
        let path = around.dir.join(format!("{name}.ecds.json"));
        std::fs::write(&path, json!({"version_info": "1", "resources": [resource]}).to_string()).expect("a file");
        let source = &mut filter["config_discovery"]["config_source"];
        *source = json!({"path_config_source": {"path": path}, "resource_api_version": "V3"});
    }
    if let Value::Object(members) = &mut proxy.listener {
        members.remove("simulated_port");
    }
}

fn convert(extension: &mut Value, around: &Surroundings<'_>) {
    let vm = &mut extension["typed_config"]["config"]["vm_config"];
    if let Some(variables) = vm.pointer_mut("/environment_variables/key_values").and_then(Value::as_object_mut) {
        variables.retain(|name, _| !name.starts_with("ISTIO_META"));
    }
    match fetched(&vm["code"]["remote"], around) {
        Some(file) => vm["code"] = json!({"local": {"filename": file}}),
        None => {
            extension["typed_config"] = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules": {},
                "rules_stat_prefix": "wasm-default-deny",
            });
        }
    }
}

/// The module, in a file that its digest names. (Of an image, Istio compares the digest of its manifest.)
fn fetched(remote: &Value, around: &Surroundings<'_>) -> Option<std::path::PathBuf> {
    assert!(remote["http_uri"]["uri"].as_str().is_some_and(|uri| uri.starts_with("https://")));
    let module = std::fs::read(around.module).expect("the module");
    let digest = find::sha256(&module);
    if remote["sha256"] != digest {
        return None;
    }
    let file = around.dir.join(format!("{digest}.wasm"));
    if !Path::new(&file).exists() {
        std::fs::write(&file, module).expect("a file");
    }
    Some(file)
}
