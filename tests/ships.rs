//! What ships is what was meant: the module's doors are a golden list, its size has a bound, and
//! the bootstrap that runs it holds the right flags and no secret.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use attache_core::digest::Digest;
use attache_core::wire::{Plugin, Role};
use attache_tests::stack::{CUSTOM, GITHUB, Plan, SOON};
use attache_tests::util;
use serde_json::Value;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// In bytes, as in the table of targets of the benchmark. More would mean that something came in which
/// does not belong.
const LARGEST: usize = 600_000;

/// Everything Envoy can call. Each callback more costs 3–5 µs a request.
const EXPORTS: [&str; 15] = [
    "_initialize",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_http_call_response",
    "proxy_on_memory_allocate",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
];

/// Exports that the SDK answers by itself.
const PLUMBING: [&str; 5] =
    ["_initialize", "memory", "proxy_abi_version_0_2_1", "proxy_on_context_create", "proxy_on_memory_allocate"];

/// What the module's own code asks of Envoy, beside the callout and the log of the SDK.
const OURS: [&str; 19] = [
    "proxy_close_stream",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_get_buffer_bytes",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_get_property",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_tick_period_milliseconds",
];

/// What the SDK's trait objects name besides: default methods that nothing calls.
const NEVER_CALLED: [&str; 16] = [
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_set_shared_data",
];

/// What the standard library asks of WASI: clocks, randomness, the log. No file and no socket.
const WASI: [&str; 6] = ["clock_time_get", "environ_get", "environ_sizes_get", "fd_write", "proc_exit", "random_get"];

#[test]
fn the_modules_doors_are_the_golden_ones() {
    let module = Module::shipped();
    assert_eq!(module.exports, BTreeSet::from(EXPORTS.map(str::to_owned)));
    let env = OURS.iter().chain(&NEVER_CALLED).map(|name| format!("env.{name}"));
    let golden: BTreeSet<String> =
        env.chain(WASI.iter().map(|name| format!("wasi_snapshot_preview1.{name}"))).collect();
    assert_eq!(module.imports, golden);
}

#[test]
fn the_filter_names_no_host_call_but_its_own() {
    for (path, text) in sources() {
        // Grants live in one worker's VM: what several VMs share has no place here.
        assert!(!text.contains("shared_data") && !text.contains("shared_queue"), "{}", path.display());
        let host = path.ends_with("host.rs");
        assert!(host || !text.contains("hostcalls::"), "{} calls the SDK itself", path.display());
        let calls = text.match_indices("fn proxy_").filter_map(|(at, _)| text[at + 3..].split('(').next());
        for call in calls {
            assert!(host && OURS.contains(&call), "{} declares {call}", path.display());
        }
    }
}

#[test]
fn every_callback_that_the_filter_implements_is_exported_and_no_other() {
    let sources: Vec<String> = sources().map(|(_, text)| text).collect();
    let words = sources.iter().flat_map(|source| source.split("fn on_").skip(1));
    let implemented: BTreeSet<String> = words
        .map(|rest| rest.split('(').next().unwrap_or_default())
        .map(|name| {
            format!("proxy_on_{}", if name == "http_call_response" { name } else { name.trim_start_matches("http_") })
        })
        // The deletion of a context is a `Drop` here.
        .chain(["proxy_on_delete".to_owned()])
        .collect();
    for callback in ["headers", "body", "trailers"] {
        assert!(
            implemented.contains(&format!("proxy_on_request_{callback}")),
            "a held request leaks by its {callback}"
        );
    }
    let mut exported = Module::shipped().exports;
    exported.retain(|name| !PLUMBING.contains(&name.as_str()));
    assert_eq!(exported, implemented);
}

#[test]
fn the_module_is_small_and_not_the_test_build() {
    let module = Module::shipped();
    assert!(module.bytes.len() <= LARGEST, "{} bytes, {LARGEST} at most", module.bytes.len());
    let holds = |text: &str| memchr::memmem::find(&module.bytes, text.as_bytes()).is_some();
    assert!(!holds("x-attache-trap"), "the test build has been shipped");
    assert!(!holds("this build records no use"), "the bench's build has been shipped");
    assert!(holds("x-attache-reason"), "the search works");
}

/// The same bytes wherever it is built: `make reproduce` builds them in two places.
#[test]
fn the_module_that_was_built_is_the_one_that_is_pinned() {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return util::skipped(format_args!("the filter's digest is that of builds on Linux x86_64"));
    }
    let root = util::workspace_root();
    let pinned = std::fs::read_to_string(root.join("envoy/filter.sha256")).expect("the pin");
    let built = Digest::of(&Module::shipped().bytes).to_hex();
    assert_eq!(pinned, format!("{built}\n"), "run `make pin`, and look at why it has changed");
    for file in files_below(&root.join("envoy")) {
        let text = String::from_utf8(std::fs::read(&file).expect("a file")).unwrap_or_default();
        let digests = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
        for digest in digests {
            assert!(digest == built, "{} names another digest: run `make pin`", file.display());
        }
    }
    let module = Module::shipped();
    for leak in [root.to_str().expect("text"), "/registry/src/", "/.cargo/", "/.rustup/"] {
        assert!(
            memchr::memmem::find(&module.bytes, leak.as_bytes()).is_none(),
            "{leak} of the machine is in the module"
        );
    }
}

/// Those of the repository: what an operator keeps there (docs/compose.md) is his own.
fn files_below(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let entries = entries.filter(|path| !path.ends_with("envoy/secrets") && !path.ends_with("envoy/.env"));
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_holds_the_flag_on_the_judge_alone_and_no_secret() {
    let seen = Arc::new(Mutex::new(Value::Null));
    let copy = Arc::clone(&seen);
    let stack = Plan::default().edit(move |bootstrap| *copy.lock().unwrap() = bootstrap.clone()).start().await;
    let bootstrap = seen.lock().unwrap().take();

    let filters =
        bootstrap.pointer("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters");
    let [judge, gate, health, assertion, router] = &filters.and_then(Value::as_array).expect("a chain")[..] else {
        panic!("{filters:#?}")
    };
    let (judge, gate) = (entry(judge), entry(gate));
    assert_eq!((judge.plugin.role, judge.flag), (Role::Judge, Value::Bool(true)));
    assert_eq!((gate.plugin.role, gate.flag), (Role::Gate, Value::Null), "the flag turns back-pressure into a 413");
    // Between gate and router stands what asserts the cluster, and what is off but for `/health`.
    assert_eq!((&health["name"], &health["disabled"]), (&"attache.health".into(), &true.into()));
    assert_eq!(assertion["name"], "attache.assertion");
    assert_eq!(router["name"], "envoy.filters.http.router");
    assert_eq!(judge.vm, gate.vm, "one VM holds both");
    assert_eq!(judge.vm["vm_id"], "attache_default");
    assert_eq!(judge.failure_policy, "FAIL_RELOAD");

    let token = stack.config.state_dir.join("data-plane.token");
    let token = std::fs::read_to_string(token).expect("the data plane's token");
    let dump = stack.envoy.config_dump().await;
    assert!(dump.contains("attache_data_plane"), "the dump is whole");
    for secret in [GITHUB, CUSTOM, token.trim()] {
        assert!(secret.len() > 16 && !bootstrap.to_string().contains(secret), "a secret in the bootstrap");
        assert!(!dump.contains(secret), "a secret in /config_dump");
    }
    let answer = stack.get("api.github.com", "/user", &stack.placeholder("writer", "github")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stack.upstream().wait_for(1, SOON).await;
    stack.reconcile().await;
}

/// The filter's sources.
fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let files = std::fs::read_dir(util::workspace_root().join("filter/src")).expect("the filter's sources");
    let paths = files.map(|file| file.expect("a file").path());
    paths.map(|path| (path.clone(), std::fs::read_to_string(path).expect("a source")))
}

/// A compiled module, read.
struct Module {
    bytes: Vec<u8>,
    exports: BTreeSet<String>,
    imports: BTreeSet<String>,
}

impl Module {
    fn shipped() -> Self {
        let bytes = std::fs::read(util::filter_wasm()).expect("the module");
        let (mut exports, mut imports) = (BTreeSet::new(), BTreeSet::new());
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload.expect("a valid module") {
                Payload::ExportSection(section) => {
                    let all = section.into_iter().map(|export| export.expect("an export"));
                    exports.extend(
                        all.inspect(|export| {
                            let kind = if export.name == "memory" { ExternalKind::Memory } else { ExternalKind::Func };
                            assert_eq!(export.kind, kind, "{}", export.name);
                        })
                        .map(|export| export.name.to_owned()),
                    );
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.expect("an import");
                        assert!(matches!(import.ty, TypeRef::Func(_)), "{} is no function", import.name);
                        imports.insert(format!("{}.{}", import.module, import.name));
                    }
                }
                _ => {}
            }
        }
        Self { bytes, exports, imports }
    }
}

/// An entry of the filter chain.
struct Entry {
    plugin: Plugin,
    flag: Value,
    vm: Value,
    failure_policy: Value,
}

fn entry(filter: &Value) -> Entry {
    let config = &filter["typed_config"]["config"];
    let settings = config["configuration"]["value"].as_str().expect("settings");
    Entry {
        // Refuses unknown fields: what could hold a secret has no place.
        plugin: serde_json::from_str(settings).expect("the plugin's settings"),
        flag: config["allow_on_headers_stop_iteration"].clone(),
        vm: config["vm_config"].clone(),
        failure_policy: config["failure_policy"].clone(),
    }
}
