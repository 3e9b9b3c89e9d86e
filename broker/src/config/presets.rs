//! Presets: what is known of a service, as data. A preset is a credential as a config writes it,
//! so anyone can copy one from `presets/` into a config and change it. One that names no destination
//! is of a service that everybody has elsewhere: the config names the host.

use super::reader;
use super::spec::CredentialSpec;
use super::tree;
use std::sync::LazyLock;

/// The names of all presets, in order.
pub const NAMES: [&str; 16] = [
    "anthropic",
    "anthropic-oauth",
    "codex",
    "docker",
    "gemini",
    "github",
    "gitlab",
    "gitlab-git",
    "grafana",
    "infisical",
    "kubernetes",
    "litellm",
    "npm",
    "openai",
    "pagerduty",
    "sentry",
];

/// Their files, in the same order.
const FILES: [&str; NAMES.len()] = [
    include_str!("../../presets/anthropic.yaml"),
    include_str!("../../presets/anthropic-oauth.yaml"),
    include_str!("../../presets/codex.yaml"),
    include_str!("../../presets/docker.yaml"),
    include_str!("../../presets/gemini.yaml"),
    include_str!("../../presets/github.yaml"),
    include_str!("../../presets/gitlab.yaml"),
    include_str!("../../presets/gitlab-git.yaml"),
    include_str!("../../presets/grafana.yaml"),
    include_str!("../../presets/infisical.yaml"),
    include_str!("../../presets/kubernetes.yaml"),
    include_str!("../../presets/litellm.yaml"),
    include_str!("../../presets/npm.yaml"),
    include_str!("../../presets/openai.yaml"),
    include_str!("../../presets/pagerduty.yaml"),
    include_str!("../../presets/sentry.yaml"),
];

/// Services that wait for something which is not there yet, and what that is.
const NOT_YET: [(&str, &str); 1] = [(
    "talos",
    "Talos' API knows whom it talks to by a client certificate alone (mTLS; gRPC on port 50000), and no header could \
     take its place. Attache presents none yet: until it does, Talos stays out of its reach",
)];

static PRESETS: LazyLock<Vec<(&'static str, CredentialSpec)>> = LazyLock::new(|| {
    // The files are part of the program: the tests below prove that each is read whole.
    let parse = |text| tree::parse(text).ok().and_then(|root| reader::read(&root).value);
    NAMES.iter().zip(FILES).filter_map(|(name, text)| parse(text).map(|spec| (*name, spec))).collect()
});

/// The preset with this name.
pub fn find(name: &str) -> Option<&'static CredentialSpec> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec)
}

/// Why there is no preset of this name, though the service is known.
pub fn not_yet(name: &str) -> Option<&'static str> {
    NOT_YET.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_read_whole() {
        for (name, text) in NAMES.iter().zip(FILES) {
            let reading = reader::read::<CredentialSpec>(&tree::parse(text).unwrap());
            assert!(reading.faults.is_empty(), "{name}: {:?}", reading.faults);
            let spec = find(name).unwrap();
            assert!(spec.preset.is_none(), "{name}");
            let source = spec.source.as_ref().unwrap();
            assert!(source.env.is_some() && source.file.is_some(), "{name} is found in environment and file");
            for destination in &spec.destinations {
                let inject = destination.inject.as_ref().or(spec.inject.as_ref());
                assert!(inject.is_some(), "{name}: of each destination it is said how to inject");
                assert!(!destination.plaintext && destination.upstream.is_none(), "{name}");
            }
            let shape = spec.placeholder.as_ref().unwrap();
            assert_eq!(shape.check(), Ok(()), "{name}");
            assert_eq!(not_yet(name), None, "{name}");
        }
        assert!(NAMES.is_sorted() && find("talos").is_none() && not_yet("talos").is_some());
    }

    /// Where a package registry is, is a matter of each installation; it stands in configs alone.
    #[test]
    fn services_that_everybody_has_elsewhere_name_no_host() {
        let without: Vec<_> = NAMES.into_iter().filter(|name| find(name).unwrap().destinations.is_empty()).collect();
        assert_eq!(without, ["docker", "gitlab", "gitlab-git", "grafana", "kubernetes", "litellm", "npm"]);
    }
}
