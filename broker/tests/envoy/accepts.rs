//! Envoy's own loader accepts what we generate.

use crate::{CONFIG, Place, errors};
use attache_broker::envoy::find;
use std::path::Path;
use std::process::Command;

pub fn validate(bootstrap: &Path) {
    let envoy = find::envoy().unwrap();
    let mut command = Command::new(envoy);
    command.args(["--mode", "validate", "-l", "warning", "-c"]).arg(bootstrap);
    let output = command.output().unwrap();
    let said = errors(&output);
    assert!(output.status.success(), "{said}");
    assert!(!said.to_lowercase().contains("deprecated"), "{said}");
}

#[test]
fn every_kind_of_destination_in_both_languages() {
    for data_plane in ["'127.0.0.1:3031'", "'unix:data.sock'"] {
        let place =
            Place::new(&CONFIG.replace("'127.0.0.1:0'}", &format!("'127.0.0.1:0', data_plane: {data_plane}}}")));
        // Envoy reads the token's file at once; the broker writes it before Envoy starts.
        std::fs::create_dir_all(place.path("state/default")).unwrap();
        let token = r#"{"resources": [{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "attache_data_plane", "generic_secret": {"secret": {"inline_string": "Bearer x"}}}]}"#;
        std::fs::write(place.path("state/default/data-plane-token.sds.json"), token).unwrap();
        for (format, file) in [("yaml", "envoy.yaml"), ("json", "envoy.json")] {
            let output = place.run(&["envoy-config", "--format", format]);
            assert!(output.status.success(), "{}", errors(&output));
            std::fs::write(place.path(file), output.stdout).unwrap();
            validate(&place.path(file));
        }
    }
}
