//! By what the state directory is sealed, as it is written.

use super::{SealedBy, load, places};
use std::path::Path;

const OPENBAO: &str = "sources:\n  openbao: {address: 'https://bao.lan', auth: {token: {env: BAO_TOKEN}}}\n";

#[test]
fn a_seal_is_a_file_a_variable_or_a_key_of_the_openbao_that_sources_name() {
    let seal = |text: &str| load(&format!("state: {{seal: {text}}}\n{OPENBAO}")).unwrap().seal.unwrap();
    assert_eq!(seal("{file: ~/keys/seal}").file(), Some(Path::new("/home/op/keys/seal")));
    assert!(seal("{file: seal}").file().unwrap().is_absolute());
    assert_eq!(seal("{env: SEAL_KEY}").variable(), Some("SEAL_KEY"));
    assert_eq!(seal("{transit: {key: attache}}").place(), "transit transit/attache");
    let SealedBy::Transit { server, mount, key } = seal("{transit: {mount: team/transit, key: attache}}") else {
        panic!("a transit");
    };
    assert_eq!((server.address.as_str(), mount.as_str(), key.as_str()), ("https://bao.lan", "team/transit", "attache"));
    assert!(load("state_dir: s\n").unwrap().seal.is_none());
}

#[test]
fn each_mistake_of_a_seal_has_its_place() {
    for (text, place) in [
        ("state: {seal: {transit: {key: attache}}}\n".to_owned(), "state.seal.transit"),
        (format!("state: {{seal: {{transit: {{key: a/b}}}}}}\n{OPENBAO}"), "state.seal.transit.key"),
        ("state: {seal: {env: 1X}}\n".to_owned(), "state.seal.env"),
        ("state: {seal: {key: x}}\n".to_owned(), "state.seal.key"),
        ("state: {seals: {file: x}}\n".to_owned(), "state.seals"),
    ] {
        let found: Vec<_> = places(&text).iter().filter_map(|at| Some(at.split_once(' ')?.1.to_owned())).collect();
        assert_eq!(found, [place], "{text}");
    }
    assert!(load("state: {seal: {file: a, env: B}}\n").is_err(), "one of them");
}

#[test]
fn agents_are_kept_from_the_key() {
    let kept = |seal: &str| load(&format!("state: {{seal: {seal}}}\n{OPENBAO}")).unwrap().out_of_reach();
    assert!(kept("{file: /etc/attache/keys/seal}").directories.contains(&"/etc/attache/keys".into()));
    assert!(kept("{env: SEAL_KEY}").variables.contains(&"SEAL_KEY".to_owned()));
    assert!(kept("{transit: {key: attache}}").variables.contains(&"BAO_TOKEN".to_owned()));
}
