//! The shipped files, where no engine is.

use std::process::Command;

use attache_tests::util;

fn shipped(name: &str) -> String {
    std::fs::read_to_string(util::workspace_root().join(name)).expect("a file that ships")
}

#[test]
fn the_envoy_that_ships_is_the_one_that_is_tested() {
    let wanted = format!("envoyproxy/envoy:v{}", shipped(".envoy-version").trim());
    let file = shipped("envoy/docker-compose.yaml");
    let named: Vec<_> = file.lines().filter(|line| line.contains("envoyproxy/")).map(str::trim).collect();
    assert_eq!(named, [format!("image: {wanted}")]);
}

#[test]
fn the_config_that_ships_is_good() {
    let config = util::workspace_root().join("envoy/attache.compose.yaml");
    let checked = Command::new(util::broker_bin()).args(["check", "--config"]).arg(config).output().expect("attache");
    assert!(checked.status.success(), "{checked:?}");
}
