//! What the filter's source must not name: every one of these ends a worker's VM, for everybody,
//! on a byte that an agent chooses.

use std::path::PathBuf;

use attache_tests::util::workspace_root;

/// The one file that names the SDK's host calls, and the one call.
const DOOR: &str = "host.rs";
const CALL: &str = "hostcalls::dispatch_http_call(";

/// The SDK's own getters and setters are methods of its context traits; each unwraps a status or
/// reads bytes as UTF-8. Ours are functions of [`DOOR`].
const PANICKING: [&str; 22] = [
    "self.get_",
    "self.set_",
    "self.add_",
    "self.remove_",
    "self.resume_",
    "self.reset_",
    "self.send_http_response",
    "self.send_grpc",
    "self.dispatch_",
    "self.define_",
    "self.done(",
    "self.clear_",
    "self.enqueue_",
    "self.dequeue_",
    "self.call_foreign",
    ".unwrap()",
    ".expect(",
    "panic!",
    "unreachable!",
    "assert!",
    "from_utf8_unchecked",
    "String::from_utf8(",
];

#[test]
fn the_sdks_host_calls_are_named_once() {
    let mut calls = Vec::new();
    for (name, line) in lines() {
        if line.contains("hostcalls") {
            assert_eq!(name, DOOR, "{line}");
            calls.push(line);
        }
    }
    let (uses, others): (Vec<_>, Vec<_>) = calls.into_iter().partition(|line| line.contains(CALL));
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert_eq!(others, ["use proxy_wasm::hostcalls;"]);
}

#[test]
fn nothing_in_the_filter_panics_by_name() {
    for (name, line) in lines() {
        let named = PANICKING.iter().find(|name| line.contains(*name));
        assert!(named.is_none(), "{name}: {line}");
    }
}

#[test]
fn nothing_in_the_filter_lets_a_lint_go() {
    for (name, line) in lines() {
        let allowed = match name.as_str() {
            DOOR => line.contains("#![allow(unsafe_code)]"),
            "lib.rs" => line.contains("#![allow(missing_docs)]"),
            _ => false,
        };
        assert!(!line.contains("allow(") || allowed, "{name}: {line}");
        assert!(!line.contains("unsafe") || name == DOOR, "{name}: {line}");
    }
}

/// Every line of code in the filter, comments apart, with the name of its file.
fn lines() -> Vec<(String, String)> {
    let sources = workspace_root().join("filter/src");
    let files: Vec<PathBuf> =
        std::fs::read_dir(sources).expect("the filter").map(|file| file.expect("a file").path()).collect();
    assert!(files.len() > 5, "{files:?}");
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("source");
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        lines.extend(code.map(|line| (name.clone(), line.to_owned())));
    }
    lines
}
