//! The house: layers, sizes, and words that stand nowhere in it.

use std::path::Path;

use super::{at, files, none, read, sources};

/// No file is longer, in lines.
const LONGEST: usize = 600;

/// What core may stand on: nothing that opens, waits, looks at a clock or runs anything.
const CORE: [&str; 15] = [
    "apollo-parser",
    "arrayvec",
    "base64",
    "crc32fast",
    "foldhash",
    "hmac",
    "itoa",
    "memchr",
    "schemars",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "utoipa",
    "zeroize",
];
/// What the filter may stand on.
const FILTER: [&str; 4] = ["attache-core", "log", "proxy-wasm", "serde_json"];

/// Core is pure: no IO, no clock, no environment, no async, no host.
#[test]
fn core_names_nothing_outside_itself() {
    let banned = [
        "std::fs",
        "std::net",
        "std::time",
        "std::env",
        "std::io",
        "std::thread",
        "std::process",
        "SystemTime",
        "Instant",
        "tokio",
        "async fn",
        "proxy_wasm",
        "attache_broker",
        "extern \"C\"",
    ];
    none(named(&["core/src"], &banned, |_| false));
}

#[test]
fn filter_and_broker_never_see_each_other() {
    none(named(&["filter"], &["attache_broker", "tokio"], |_| false));
    none(named(&["broker/src"], &["proxy_wasm", "attache_filter::"], |_| false));
}

#[test]
fn host_calls_and_unsafe_stand_in_one_file() {
    let host = |path: &Path| path == Path::new("filter/src/host.rs");
    none(named(&["core", "filter/src", "broker"], &["hostcalls", "extern \"C\""], host));
    let unsafe_code = ["unsafe {", "unsafe fn", "unsafe extern", "unsafe impl"];
    none(named(&["core", "filter", "broker", "tests"], &unsafe_code, host));
    for root in ["core/src/lib.rs", "broker/src/lib.rs", "broker/src/main.rs"] {
        assert!(read(&at(root)).contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

/// Domain modules know nothing of HTTP; sources know nothing of who asks.
#[test]
fn the_brokers_modules_keep_their_order() {
    let outside = |path: &Path| {
        let path = path.to_string_lossy();
        ["broker/src/api", "broker/src/cli", "broker/src/lib.rs"].iter().any(|top| path.starts_with(top))
    };
    none(named(&["broker/src"], &["crate::api"], outside));
    let never = |dirs: &[&str], modules: &[&str]| {
        let modules: Vec<_> = modules.iter().map(|module| format!("crate::{module}")).collect();
        none(named(dirs, &modules.iter().map(String::as_str).collect::<Vec<_>>(), |_| false));
    };
    never(&["broker/src/sources"], &["leases", "sessions", "grants", "audit", "cli"]);
    never(&["broker/src/leases", "broker/src/audit"], &["sessions", "grants", "cli"]);
    never(&["broker/src/sessions"], &["leases", "grants", "audit", "cli"]);
    never(&["broker/src/config"], &["leases", "sessions", "grants", "audit", "sources"]);
}

/// Cargo-deny says who may stand on what; this says on what core and the filter may stand at all.
#[test]
fn core_and_filter_stand_on_little() {
    for (manifest, allowed) in [("core/Cargo.toml", &CORE[..]), ("filter/Cargo.toml", &FILTER[..])] {
        let text = read(&at(manifest));
        let section = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
        let names = section.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split(['.', ' ']).next());
        let unknown: Vec<_> = names.filter(|name| !name.is_empty() && !allowed.contains(name)).collect();
        assert!(unknown.is_empty(), "{manifest} names {unknown:?}: is it pure, small and needed? Then list it here");
    }
}

#[test]
fn no_file_is_too_long() {
    let long = sources(&[""]).into_iter().map(|(path, text)| (path, text.lines().count()));
    none(long.filter(|(_, n)| *n > LONGEST).map(|(path, n)| format!("{}: {n} lines", path.display())).collect());
}

/// The product speaks of itself alone: of no registry's host and no machine's paths.
#[test]
fn no_file_names_what_is_not_the_products_business() {
    // In two parts, so that this file does not hold them.
    let banned = [
        ("crates", ".io"),
        ("npmjs", ".org"),
        ("npmjs", ".com"),
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("docker", "hub"),
        ("\"/wo", "rk/"),
        (" /wo", "rk/"),
        ("`/wo", "rk/"),
        ("/tmp/", "target"),
    ];
    let banned: Vec<_> = banned.iter().map(|(one, two)| format!("{one}{two}")).collect();
    let mut complaints = Vec::new();
    // Cargo's own files name the registry on every third line.
    for path in files().into_iter().filter(|path| !path.ends_with("Cargo.lock")) {
        for (index, line) in read(&at(&path.to_string_lossy())).lines().enumerate() {
            let line = line.to_lowercase();
            let found = banned.iter().filter(|banned| line.contains(banned.as_str()));
            complaints.extend(found.map(|banned| format!("{}:{}: {banned}", path.display(), index + 1)));
        }
    }
    none(complaints);
}

/// Where code (comments left out) holds one of these, outside the files that may.
fn named(dirs: &[&str], banned: &[&str], may: impl Fn(&Path) -> bool) -> Vec<String> {
    let found = sources(dirs);
    assert!(!found.is_empty(), "{dirs:?} holds no sources");
    let mut complaints = Vec::new();
    for (path, text) in found.iter().filter(|(path, _)| !may(path)) {
        complaints.extend(in_code(path, text, banned));
    }
    complaints
}

fn in_code(path: &Path, text: &str, banned: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = if line.trim_start().starts_with("//") { "" } else { line };
        let found = banned.iter().filter(|banned| code.contains(**banned) && !is_listed(line));
        complaints.extend(found.map(|banned| format!("{}:{}: {banned}", path.display(), index + 1)));
    }
    complaints
}

/// Lists of banned words, such as those above, are no use of them.
fn is_listed(line: &str) -> bool {
    line.trim_start().starts_with('"') || line.contains("let unsafe_code = [") || line.contains("none(named(")
}

#[test]
fn a_breach_is_found() {
    let path = Path::new("core/src/x.rs");
    let text = "//! std::fs is never used.\nuse std::fs::read;\n";
    assert_eq!(in_code(path, text, &["std::fs"]), ["core/src/x.rs:2: std::fs"]);
}
