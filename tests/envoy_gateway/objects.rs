//! The objects that ship, read; and held against what their kinds allow.

use std::process::Command;

use attache_tests::util;
use serde_json::Value;

/// What there is, in the order in which it is applied.
pub const FILES: [&str; 4] = ["gateway.yaml", "github.yaml", "filter.yaml", "patch.yaml"];

/// All objects.
pub fn all() -> Vec<Value> {
    FILES.iter().flat_map(|file| read(file)).collect()
}

/// Those of one file.
pub fn read(file: &str) -> Vec<Value> {
    let path = util::workspace_root().join("envoy/envoy-gateway").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    text.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("YAML")).collect()
}

/// The one object of a kind.
pub fn of(objects: &[Value], kind: &str) -> Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one.clone()
}

/// The schemas are Envoy Gateway 1.9's and the Gateway API's own, cut down to the fields that are used here: each other
/// field is known by name, and none that is unknown passes. What a schema says in CEL is not looked at.
#[test]
fn each_object_is_what_its_kind_allows() {
    let python = util::workspace_root().join(".tools/github-openapi/bin/python");
    let has = |python: &std::path::Path| Command::new(python).args(["-c", "import jsonschema"]).output();
    if !has(&python).is_ok_and(|answer| answer.status.success()) {
        return util::skipped(format_args!("no JSON schema validator: `scripts/github-openapi` gets it"));
    }
    let dir = util::temp_dir();
    let objects = dir.path().join("objects.json");
    let check = |objects_now: &Vec<Value>| {
        std::fs::write(&objects, serde_json::to_vec(objects_now).expect("JSON")).expect("a directory of ours");
        let here = util::workspace_root().join("tests/envoy_gateway");
        let mut command = Command::new(&python);
        let checked = command.arg(here.join("validate.py")).arg(here.join("schemas.json")).arg(&objects).output();
        let checked = checked.expect("Python runs");
        (checked.status.success(), String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned())
    };
    let mut all = all();
    let (sound, said) = check(&all);
    assert!(sound, "{said}");
    // The check bites.
    let policy = all.iter_mut().find(|object| object["kind"] == "EnvoyExtensionPolicy").expect("it is there");
    policy["spec"]["wasm"][0]["failClosed"] = true.into();
    let (sound, said) = check(&all);
    assert!(!sound && said.contains("failClosed"), "{said}");
}

#[test]
fn the_module_is_pinned_and_fails_closed() {
    let wasm = of(&all(), "EnvoyExtensionPolicy")["spec"]["wasm"][0].clone();
    let pinned = std::fs::read_to_string(util::workspace_root().join("envoy/filter.sha256")).expect("the pin");
    assert_eq!(wasm["code"]["http"]["sha256"], pinned.trim());
    assert_eq!((&wasm["failOpen"], &wasm["config"]["guarded"]), (&false.into(), &true.into()));
    // The filter refuses what it does not know.
    let plugin: Result<attache_core::wire::Plugin, _> = serde_json::from_value(wasm["config"].clone());
    assert!(plugin.is_ok(), "{plugin:?}");
}
