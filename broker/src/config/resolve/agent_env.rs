//! What an agent's environment needs: the placeholder under the names its tools read, and base URLs.

use super::Problems;
use crate::config::error::Problem;
use crate::config::policy::Routes;
use crate::config::presets;
use crate::config::reader::join;
use crate::config::spec::{AgentValueSpec, GatewayUrlSpec, Spec};
use crate::config::{AgentEnv, AgentValue, Credential, Lookup, Mesh};
use attache_core::matching::host::Host;

/// Fills in the environment of every credential; needs all destinations, for those of one host
/// share its shortest route.
pub(super) fn resolve_all(spec: &Spec, credentials: &mut [Credential], problems: &mut Problems) {
    let routes = Routes::of(credentials, spec.mesh);
    for credential in credentials {
        let Some(written) = spec.credentials.get(&credential.name) else { continue };
        let preset = written.preset.as_deref().and_then(presets::find);
        let variables = written.agent_env.as_ref().or_else(|| preset.and_then(|preset| preset.agent_env.as_ref()));
        let Some(variables) = variables else {
            credential.agent_env = vec![AgentEnv { name: default_name(credential), value: AgentValue::Placeholder }];
            continue;
        };
        let path = join("credentials", credential.name.as_str());
        let mut resolved = Vec::new();
        for (name, value) in variables {
            let value = match value {
                AgentValueSpec::Placeholder => Some(AgentValue::Placeholder),
                AgentValueSpec::Gateway(url) => gateway_url(url, credential, &routes, spec.mesh),
                AgentValueSpec::Field(field) => {
                    let bundle = credential.bundle.as_ref();
                    if !bundle.is_some_and(|bundle| bundle.fields.contains_key(&field.0)) {
                        problems.add(join(&join(&path, "agent_env"), &name.0), Problem::NoSuchField);
                    }
                    Some(AgentValue::Field(field.0.clone()))
                }
            };
            match value {
                Some(value) => resolved.push(AgentEnv { name: name.0.clone(), value }),
                // Without any destination, that is what is wrong.
                None if credential.destinations.is_empty() => {}
                None => problems.add(join(&join(&path, "agent_env"), &name.0), Problem::NoSuchDestination),
            }
        }
        credential.agent_env = resolved;
    }
}

fn gateway_url(
    url: &GatewayUrlSpec,
    credential: &Credential,
    routes: &Routes,
    mesh: Option<Mesh>,
) -> Option<AgentValue> {
    let is_meant = |host: &Host| url.host.as_ref().is_none_or(|named| named.0 == *host);
    let destination = credential.destinations.iter().find(|destination| is_meant(&destination.host))?;
    Some(AgentValue::GatewayUrl {
        host: mesh.map(|Mesh::Istio| destination.host.to_string()),
        route_prefix: routes.prefix(destination),
        suffix: url.path.as_ref().map(|path| path.0.clone()).unwrap_or_default(),
    })
}

/// The name the secret has where the broker finds it: tools that read the secret from a variable
/// find the placeholder in the same one.
fn default_name(credential: &Credential) -> String {
    let named = credential.lookup.iter().find_map(Lookup::variable);
    named.map(str::to_owned).unwrap_or_else(|| {
        let name = credential.name.as_str().to_ascii_uppercase().replace('-', "_");
        if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
    })
}
