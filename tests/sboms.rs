//! What ships says what it is made of: an SBOM for each image, that CycloneDX's own schema takes, and that is true.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use attache_core::digest::Digest;
use attache_tests::util;
use serde_json::Value;

/// Name and version of each component.
fn components(bom: &Value) -> BTreeSet<(String, String)> {
    let all = bom["components"].as_array().expect("components");
    let text = |one: &Value, member: &str| one[member].as_str().expect("text").to_owned();
    all.iter().map(|one| (text(one, "name"), text(one, "version"))).collect()
}

/// What Cargo links into a package for a target.
fn linked(package: &str, target: &str) -> BTreeSet<(String, String)> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--package", package, "--edges", "normal", "--target", target, "--prefix", "none"]);
    let said = tree.current_dir(util::workspace_root()).output().expect("cargo runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).expect("text");
    let words = text.lines().filter_map(|line| line.split_once(' '));
    let pairs = words.map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default()));
    let pairs = pairs.map(|(name, version)| (name, version.trim_start_matches('v').to_owned()));
    pairs.filter(|(name, _)| name != package).collect()
}

#[test]
fn each_sbom_is_one_and_is_true() {
    let (dir, root) = (util::temp_dir(), util::workspace_root());
    let [broker, filter] = [util::broker_bin(), util::filter_wasm()];
    let written = Command::new(root.join("scripts/sbom")).arg(dir.path()).args([&broker, &filter]).output();
    let written = written.expect("the script runs");
    let said = String::from_utf8_lossy(&[written.stdout, written.stderr].concat()).into_owned();
    if written.status.code() == Some(77) {
        return util::skipped(format_args!("{}", said.trim()));
    }
    assert!(written.status.success(), "{said}");

    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    for (name, binary, target) in [("broker", &broker, host.as_str()), ("filter", &filter, "wasm32-wasip1")] {
        let bom = read(&dir.path().join(format!("attache-{name}.cdx.json")));
        let digest = &bom["metadata"]["component"]["hashes"][0]["content"];
        assert_eq!(*digest, Digest::of(&std::fs::read(binary).expect("a binary")).to_hex(), "{name}");
        let (listed, linked) = (components(&bom), linked(&format!("attache-{name}"), target));
        let missing: Vec<_> = linked.difference(&listed).collect();
        assert!(linked.len() > 20 && missing.is_empty(), "{name}: not listed: {missing:?}");
        assert!(
            !bom.to_string().contains(&*dir.path().parent().expect("a parent").to_string_lossy()),
            "a machine's path"
        );
    }
}

/// With a stand-in for Docker: `docker build` leaves what it was given where the test finds it. Which instructions of the
/// Dockerfile put files where is Docker's contract; that the image runs is shown by `tests/compose.rs`.
#[test]
fn the_brokers_image_holds_both_sboms() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, root) = (util::temp_dir(), util::workspace_root());
    let sboms = dir.path().join("sboms");
    std::fs::create_dir(&sboms).expect("a directory");
    for name in ["broker", "filter"] {
        std::fs::write(sboms.join(format!("attache-{name}.cdx.json")), format!("{{\"of\": \"{name}\"}}"))
            .expect("an SBOM");
    }
    let docker = dir.path().join("docker");
    // The context is its last argument; the Dockerfile stands behind --file.
    let script = "#!/bin/sh\nfor last; do :; done\nwhile [ $# -gt 1 ]; do [ \"$1\" != --file ] || file=$2; shift; done\n\
                  name=$(basename \"$file\" .Dockerfile)\ncp -R \"$last\" \"$BUILT/$name\"\n";
    std::fs::write(&docker, script).expect("a stand-in");
    std::fs::set_permissions(&docker, PermissionsExt::from_mode(0o755)).expect("it runs");
    let path = std::env::join_paths(
        [dir.path().to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let built = Command::new(root.join("scripts/images"))
        .args([&util::broker_bin(), &util::filter_wasm(), &sboms])
        .env("PATH", path.expect("a path"))
        .env("BUILT", dir.path())
        .output()
        .expect("the script runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    for name in ["broker", "filter"] {
        let shipped = dir.path().join(format!("broker/sbom/attache-{name}.cdx.json"));
        assert_eq!(read(&shipped)["of"], name);
        let mode = std::fs::metadata(&shipped).expect("an SBOM").permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "the image runs as another user");
    }
    let dockerfile = std::fs::read_to_string(root.join("envoy/images/broker.Dockerfile")).expect("a Dockerfile");
    assert!(dockerfile.lines().any(|line| line == "COPY sbom/ /usr/share/attache/sbom/"), "{dockerfile}");
    // And that is what `make images` gives it.
    let makefile = std::fs::read_to_string(root.join("Makefile")).expect("a Makefile");
    assert!(makefile.contains("scripts/images $(TARGET)/release/attache $(FILTER) $(TARGET)/sbom"));
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("an SBOM")).expect("JSON")
}
