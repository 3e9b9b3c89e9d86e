//! What is true of all kinds.

use super::*;
use crate::config::{Config, KINDS, Overrides, SourceKind};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

#[tokio::test]
async fn where_each_session_has_its_own_there_is_nothing_for_all() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("attache.yaml");
    let yaml = "state_dir: s\nsources: {github_app: {app_id: 1, installation_id: 2, private_key: {file: k}}}\ncredentials:\n  \
                it: {source: {github_app: {permissions: {contents: write}}}, inject: bearer, destinations: [{host: a.test}]}\n";
    std::fs::write(&file, yaml).unwrap();
    let config = Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap();
    let (lookup, environment) = (&config.credentials[0].lookup[0], Environment::default());
    let Err(SourceError::Remote { why, .. }) = open(lookup, &environment).read().await else { panic!("it has read") };
    assert!(!why.passes() && why.to_string().contains("nothing that all sessions could share"), "{why}");
    let (scope, issuer) = issuer(lookup, &environment).unwrap();
    assert_eq!((Some(&scope), issuer.place().place()), (lookup.scope(), lookup.place()));
}

#[test]
fn questions_are_counted_from_zero_for_kinds_that_are_asked_and_for_no_other() {
    let mut registry = Registry::default();
    registry.register("questions", "x", Environment::default().questions().clone());
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for kind in &KINDS {
        let at_hand = matches!(kind.kind, SourceKind::Env | SourceKind::File | SourceKind::Mounted);
        assert_eq!(text.contains(&format!("kind=\"{}\"", kind.word)), !at_hand, "{}", kind.word);
    }
}
