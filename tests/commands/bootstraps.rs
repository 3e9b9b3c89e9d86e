//! Bootstraps: generated, read by the real Envoy, and looked at by doctor.

use std::path::Path;
use std::process::Command;

use attache_broker::envoy::{TESTED_VERSION, Version};
use attache_tests::stack::Plan;
use attache_tests::{envoy, util};
use serde_json::Value;

use crate::{GOOD, config, run};

#[test]
fn envoy_accepts_what_is_generated() {
    let (dir, path) = config(GOOD);
    let (shipped, filter) = (util::workspace_root().join("envoy/attache.yaml"), util::filter_wasm());
    let filter = filter.to_str().expect("a path");
    for source in [&path, &shipped] {
        for (format, file) in [("yaml", "envoy.yaml"), ("json", "envoy.json")] {
            let state = dir.path().join("state").display().to_string();
            let args = ["envoy-config", "--format", format, "--filter", filter, "--state-dir", &state];
            let said = run(source, &args);
            // Whoever builds the filter may replace it: that is told, with a remedy, and nothing else.
            let notice = format!("attache: filter   whoever may replace {filter} decides what Envoy runs, and doctor");
            assert!(said.code == 0 && said.err.starts_with(&notice) && said.err.lines().count() == 1, "{}", said.err);
            if format == "json" {
                assert_eq!(run(source, &[&args[..], &["--json"]].concat()).json(), said.json());
            }
            // Envoy reads the token's file as it starts.
            std::fs::create_dir_all(dir.path().join("state/default")).expect("ours");
            std::fs::write(dir.path().join("state/default/data-plane-token.sds.json"), "{}").expect("ours");
            let bootstrap = dir.path().join(file);
            std::fs::write(&bootstrap, &said.out).expect("ours");
            assert_eq!(refusal(&envoy::binary(), &bootstrap), None, "{} as {format}", source.display());
        }
    }
}

/// Why an Envoy would not start with this bootstrap.
fn refusal(envoy: &Path, bootstrap: &Path) -> Option<String> {
    let mut validate = Command::new(envoy);
    validate.args(["--mode", "validate", "--log-level", "error", "--config-path"]).arg(bootstrap);
    let judged = validate.output().expect("Envoy runs");
    let text = String::from_utf8_lossy(&[judged.stdout, judged.stderr].concat()).into_owned();
    (!judged.status.success()).then_some(text)
}

/// Each Envoy takes what is generated for it; for an older one what it lacks is said, and the oldest are
/// refused. What goes through them is tested in `proxies`.
#[test]
fn each_envoy_accepts_what_is_generated_for_it() {
    let (filter, state) = (util::filter_wasm(), util::temp_dir());
    let (filter, state) = (filter.to_str().expect("a path"), state.path());
    let more = "hosts: [{host: pinned.test, tls: passthrough}]\nunmatched: pass\nintercept_unmatched: true\n";
    let (_dir, everything) = config(&format!("{more}{GOOD}"));
    let shipped = util::workspace_root().join("envoy/attache.yaml");
    std::fs::create_dir_all(state.join("default")).expect("ours");
    std::fs::write(state.join("default/data-plane-token.sds.json"), "{}").expect("ours");
    for version in envoy::served() {
        let version = version.as_str();
        let named = if version == TESTED_VERSION { Some(envoy::binary()) } else { envoy::released(version) };
        let Some(binary) = named else { continue };
        for (source, shape) in [(&everything, "gateway"), (&everything, "forward-proxy"), (&shipped, "forward-proxy")] {
            if shape == "forward-proxy" && version.parse::<Version>().expect("a version") < Version::MINTS {
                continue;
            }
            let place = state.to_str().expect("a path");
            let args = ["envoy-config", "--shape", shape, "--envoy-version", version, "--filter", filter];
            let said = run(source, &[&args[..], &["--state-dir", place, "--format", "json"]].concat());
            let lacks = version == "1.37.0" && shape == "forward-proxy";
            assert_eq!((said.code, said.err.contains("takes HTTP/1.1")), (0, lacks), "{version}: {}", said.err);
            let bootstrap = state.join("envoy.json");
            std::fs::write(&bootstrap, &said.out).expect("ours");
            assert_eq!(refusal(&binary, &bootstrap), None, "{shape} of {} on {version}", source.display());
        }
    }
    for (shape, version, oldest) in [("gateway", "1.35.9", "1.36"), ("forward-proxy", "1.36.4", "1.37")] {
        let said = run(&everything, &["envoy-config", "--shape", shape, "--envoy-version", version]);
        assert_eq!((said.code, said.out.as_str()), (2, ""));
        assert!(said.err.contains(&format!(" is too old: {oldest} is the oldest")), "{}", said.err);
    }
}

/// What only its own version can read is not written for another: an Envoy refuses it.
#[test]
fn an_older_envoy_refuses_what_is_generated_for_a_newer_one() {
    let Some(old) = envoy::released("1.37.0") else { return };
    let (dir, path) = config(GOOD);
    let filter = util::filter_wasm();
    let args = ["envoy-config", "--shape", "forward-proxy", "--format", "json", "--filter"];
    let said = run(&path, &[&args[..], &[filter.to_str().expect("a path")]].concat());
    std::fs::create_dir_all(dir.path().join("state/default")).expect("ours");
    std::fs::write(dir.path().join("state/default/data-plane-token.sds.json"), "{}").expect("ours");
    let bootstrap = dir.path().join("envoy.json");
    std::fs::write(&bootstrap, &said.out).expect("ours");
    let why = refusal(&old, &bootstrap).expect("a refusal");
    assert!(why.contains("does not have an object factory"), "{why}");
}

#[test]
fn the_checked_in_bootstraps_are_what_the_command_prints() {
    for (shape, more) in [("gateway", &[][..]), ("forward-proxy", &[]), ("sidecar", &["--session", "helper"])] {
        is_what_the_command_prints(shape, more);
    }
}

fn is_what_the_command_prints(shape: &str, more: &[&str]) {
    let envoy = util::workspace_root().join("envoy");
    let written = std::fs::read_to_string(envoy.join(format!("{shape}.yaml"))).expect("it is checked in");
    let digest = written.lines().find_map(|line| line.trim().strip_prefix("ATTACHE_FILTER_SHA256: "));
    let filter =
        written.lines().find_map(|line| line.trim().strip_prefix("filename: ").filter(|f| f.ends_with(".wasm")));
    let mut args = vec!["envoy-config", "--shape", shape, "--system-roots", "/etc/ssl/certs/ca-certificates.crt"];
    args.extend(more);
    args.extend(["--filter", filter.expect("it names the filter")]);
    if let Some(digest) = digest {
        args.extend(["--filter-sha256", digest]);
    }
    let said = run(&envoy.join("attache.yaml"), &args);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(
        said.out == written,
        "write it anew: attache {} --config envoy/attache.yaml > envoy/{shape}.yaml",
        args.join(" ")
    );
}

#[test]
fn doctor_passes_what_is_generated_and_fails_what_is_broken() {
    let (dir, path) = config(GOOD);
    let bootstrap = run(&path, &["envoy-config", "--json"]).json();
    let file = dir.path().join("bootstrap.json");
    let file_text = file.to_str().expect("a path");
    let examined = |bootstrap: &Value| {
        std::fs::write(&file, bootstrap.to_string()).expect("ours");
        let text = run(&path, &["doctor", "--bootstrap", file_text]);
        let json = run(&path, &["doctor", "--json", "--bootstrap", file_text]);
        assert_eq!((text.code, text.err.as_str()), (json.code, ""), "{}", text.out);
        assert_eq!(json.json()["ok"], json.code == 0);
        (text.code, text.out, json.json())
    };
    let (code, text, _) = examined(&bootstrap);
    assert_eq!(code, 0, "{text}");

    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    for (place, value, check) in [
        (format!("{manager}/normalize_path"), Value::Bool(false), "normalize-path"),
        (format!("{manager}/path_with_escaped_slashes_action"), "KEEP_UNCHANGED".into(), "escaped-slashes"),
        (format!("{manager}/http_filters/0/typed_config/config/failure_policy"), "FAIL_OPEN".into(), "failure-policy"),
        (
            "/static_resources/clusters/1/transport_socket/typed_config/common_tls_context/validation_context".into(),
            serde_json::json!({}),
            "upstream-ca",
        ),
    ] {
        let mut broken = bootstrap.clone();
        *broken.pointer_mut(&place).unwrap_or_else(|| panic!("{place} stands there")) = value;
        let (code, text, json) = examined(&broken);
        assert_eq!(code, 1, "{place}: {text}");
        let findings = json["report"]["settings"].as_array().expect("a list");
        let found =
            findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {text}"));
        for member in ["path", "found", "attack", "fix"] {
            assert!(found[member].as_str().is_some_and(|words| !words.is_empty()), "{found}");
        }
        assert!(text.contains(found["path"].as_str().expect("a path")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_examines_a_running_envoy_and_the_files() {
    let stack = Plan::default().start().await;
    let admin = format!("http://{}", stack.envoy.admin());
    let sound = stack.broker.cli(&["doctor", "--envoy-admin", &admin]);
    let text = String::from_utf8_lossy(&sound.stdout).into_owned();
    assert_eq!(sound.status.code(), Some(0), "{text}");
    assert!(text.contains("the running broker") && text.contains(&admin), "{text}");

    stack.envoy.admin_post("/logging?http=debug").await;
    let talkative = stack.broker.cli(&["doctor", "--envoy-admin", &admin]);
    let text = String::from_utf8_lossy(&talkative.stdout).into_owned();
    assert_eq!(talkative.status.code(), Some(1), "{text}");
    assert!(text.contains("log-level"), "{text}");
    stack.envoy.admin_post("/logging?http=warning").await;

    let token = stack.dir().join("state/default/secrets/github_token");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&token, everybody).expect("ours");
    let exposed = stack.broker.cli(&["doctor", "--envoy-admin", &admin, "--json"]);
    assert_eq!(exposed.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&exposed.stdout).expect("JSON");
    let files = json["report"]["files"].as_array().expect("a list");
    let fix = format!("chmod 600 {}", token.display());
    assert!(files.iter().any(|one| one["found"].as_str().is_some_and(|found| found.contains(&fix))), "{json:#}");

    // The proxy itself is no admin.
    let elsewhere = stack.broker.cli(&["doctor", "--envoy-admin", &format!("http://{}", stack.proxy)]);
    assert_eq!(elsewhere.status.code(), Some(1));
    stack.site.keep("github_token", attache_tests::stack::GITHUB);
    stack.reconcile().await;
}
