//! Presets: what is known of a service, as data. A preset is a credential as a config writes it,
//! so anyone can copy one from `presets/` into a config and change it.

use super::reader;
use super::spec::CredentialSpec;
use super::tree;
use std::sync::LazyLock;

/// The names of all presets, in order.
pub const NAMES: [&str; 3] = ["anthropic", "github", "openai"];

/// Their files, in the same order.
const FILES: [&str; NAMES.len()] = [
    include_str!("../../presets/anthropic.yaml"),
    include_str!("../../presets/github.yaml"),
    include_str!("../../presets/openai.yaml"),
];

static PRESETS: LazyLock<Vec<(&'static str, CredentialSpec)>> = LazyLock::new(|| {
    // The files are part of the program: the tests below prove that each is read whole.
    let parse = |text| tree::parse(text).ok().and_then(|root| reader::read(&root).value);
    NAMES.iter().zip(FILES).filter_map(|(name, text)| parse(text).map(|spec| (*name, spec))).collect()
});

/// The preset with this name.
pub fn find(name: &str) -> Option<&'static CredentialSpec> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec)
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
            assert!(spec.preset.is_none() && spec.inject.is_none(), "{name}");
            let source = spec.source.as_ref().unwrap();
            assert!(source.env.is_some() && source.file.is_some(), "{name} is found in environment and file");
            assert!(!spec.destinations.is_empty(), "{name}");
            for destination in &spec.destinations {
                assert!(destination.inject.is_some(), "{name}: each destination says how to inject");
                assert!(!destination.plaintext && destination.upstream.is_none(), "{name}");
            }
            let shape = spec.placeholder.as_ref().unwrap();
            assert_eq!(shape.check(), Ok(()), "{name}");
        }
    }
}
