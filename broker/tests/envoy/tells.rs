//! What check, schema, envoy-config and doctor say, and their exit codes.

use crate::{CONFIG, Place, errors};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn check_says_what_a_good_config_means() {
    let place = Place::new(CONFIG);
    let told = place.json(&["check", "--json"]);
    assert_eq!(told["ok"], true);
    let names: Vec<_> = told["credentials"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["anthropic", "github", "lab", "openai", "unifi"]);
    let text = place.run(&["check"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("unifi.lan:8443 /proxy/network/"));
}

#[test]
fn every_command_says_all_errors_at_once_with_code_64() {
    let place = Place::new("instance: NO\nsessions: [{name: s, credentials: [nobody]}]\ntypo: 1\n");
    for command in [["check"].as_slice(), &["envoy-config"], &["up"], &["doctor"]] {
        let output = place.run(command);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(64), "{command:?}: {said}");
        for place in [
            "attache.yaml:1:11: instance:",
            "attache.yaml:2:36: sessions[0].credentials[0]:",
            "attache.yaml:3:1: typo:",
        ] {
            assert!(said.contains(place), "{command:?}: {said}");
        }
    }
    let told = place.json(&["check", "--json"]);
    assert_eq!(told["ok"], false);
    assert_eq!(told["errors"].as_array().unwrap().len(), 3);
}

#[test]
fn envoy_config_names_the_envoys_it_cannot_serve() {
    let place = Place::new(CONFIG);
    let output = place.run(&["envoy-config", "--envoy-version", "1.20.0"]);
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert!(errors(&output).contains("Envoy 1.20 is too old: 1.36 is the oldest that"), "{}", errors(&output));
    for version in ["1.36.4", "1.37.2"] {
        assert!(place.json(&["envoy-config", "--json", "--envoy-version", version])["node"].is_object());
    }
}

#[test]
fn doctor_is_content_with_our_bootstrap_and_not_with_a_changed_one() {
    let place = Place::new(CONFIG);
    let bootstrap = place.run(&["envoy-config", "--format", "json"]).stdout;
    let file = place.path("envoy.json");
    std::fs::write(&file, &bootstrap).unwrap();
    let examine = || place.run(&["doctor", "--bootstrap", file.to_str().unwrap()]);
    let output = examine();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));

    let text = String::from_utf8(bootstrap).unwrap();
    std::fs::write(&file, text.replace("REJECT_REQUEST", "KEEP_UNCHANGED")).unwrap();
    let output = examine();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAIL escaped-slashes"));
}

#[test]
fn doctor_finds_secrets_that_others_can_read() {
    let place = Place::new(CONFIG);
    for dir in ["state", "state/default", "state/default/secrets"] {
        std::fs::create_dir(place.path(dir)).unwrap();
        std::fs::set_permissions(place.path(dir), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let secret = place.path("state/default/secrets/unifi_key");
    std::fs::write(&secret, "s3cret").unwrap();
    let doctor = |mode| {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        place.run(&["doctor"])
    };
    let output = doctor(0o644);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("unifi_key") && !said.contains("s3cret"), "{said}");
    let output = doctor(0o600);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
