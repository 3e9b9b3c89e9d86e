//! Envoy's native injector with one fixed credential from an SDS file. It
//! decides nothing: the least that an injection can cost.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::{Claim, Part, Workbench};

/// The injector, and the file its credential comes from.
pub fn part(bench: &Workbench) -> Result<Part> {
    let secret = bench.dir.join("credential.json");
    let authorization = bench.rules.authorization();
    let resources = json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "credential",
        "generic_secret": {"secret": {"inline_string": authorization}},
    }]});
    fs::write(&secret, resources.to_string())?;
    let filter = json!({
        "name": "envoy.filters.http.credential_injector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": true,
            "credential": {
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
                    "credential": {
                        "name": "credential",
                        "sds_config": {"path_config_source": {"path": secret}, "resource_api_version": "V3"},
                    },
                },
            },
        },
    });
    Ok(Part::filters(bench, vec![filter], Claim::Injects { authorization }))
}
