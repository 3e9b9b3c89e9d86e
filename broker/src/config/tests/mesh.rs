//! The filters' door over a network, and rules for workloads.

use super::{load, places};
use crate::config::Endpoint;

const TLS: &str = "tls: {certificate: tls/tls.crt, key: tls/tls.key, client_ca: tls/ca.crt}";
const GATEWAY: &str = "{id: 'spiffe://a/ns/x/sa/gateway'}";

fn door(rest: &str) -> String {
    format!("sessions: [{{name: s}}, {{name: t}}]\nlisten: {{data_plane: {{{rest}}}}}\n")
}

fn paths(text: &str) -> Vec<String> {
    places(text).iter().map(|place| place.split(' ').next_back().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_door_over_a_network_says_who_may_come_in() {
    let one = format!("address: '0.0.0.0:3031', {TLS}, peers: [{GATEWAY}, {{id: 'spiffe://a/b', sessions: [s]}}]");
    let config = load(&door(&one)).unwrap();
    let Endpoint::Tls(found) = &config.listen.data_plane else { panic!("{:?}", config.listen) };
    assert!(found.key.is_absolute() && found.key.ends_with("tls/tls.key"), "beside the config: {found:?}");
    assert_eq!(found.peers.len(), 2);
    assert!(found.peers[0].sessions.is_none() && found.peers[1].sessions.as_ref().unwrap().len() == 1);
    assert_eq!(config.listen.data_plane.to_string(), "tls:0.0.0.0:3031");
    assert!(config.out_of_reach().directories.iter().any(|dir| dir.ends_with("tls")), "the key's");
    let told = config.cautions().join("\n");
    assert!(!told.contains("is a TCP port"), "no token goes there: {told}");
    assert!(told.contains("tls.key is not there"), "{told}");
    let stray = door(&one.replace("sessions: [s]", "sessions: [u]"));
    let told = load(&stray).unwrap().cautions().join("\n");
    assert!(told.contains("spiffe://a/b may ask for session u, which the config does not declare"), "{told}");
}

#[test]
fn what_is_missing_of_it_or_said_twice_is_an_error_with_its_place() {
    let peers = |peers: &str| door(&format!("address: '0.0.0.0:3031', {TLS}, peers: [{peers}]"));
    let at = "listen.data_plane";
    for (text, expected) in [
        (door("address: '0.0.0.0:3031'"), at.to_owned()),
        (door(&format!("address: 0.0.0.0, {TLS}, peers: [{GATEWAY}]")), format!("{at}.address")),
        (door(&format!("address: '0.0.0.0:1', {TLS}, peers: [{GATEWAY}], token: x")), format!("{at}.token")),
        (
            door(&format!("address: '0.0.0.0:1', tls: {{certificate: a, key: b}}, peers: [{GATEWAY}]")),
            format!("{at}.tls"),
        ),
        (
            door(&format!("address: '0.0.0.0:1', tls: {{certificate: a, key: /, client_ca: c}}, peers: [{GATEWAY}]")),
            format!("{at}.tls.key"),
        ),
        (peers(""), format!("{at}.peers")),
        (peers("{id: 'spiffe://a/*'}"), format!("{at}.peers[0].id")),
        (peers(&format!("{GATEWAY}, {GATEWAY}")), format!("{at}.peers[1].id")),
        // None is not all of them.
        (peers("{id: 'spiffe://a/b', sessions: []}"), format!("{at}.peers[0].sessions")),
        (peers("{id: 'spiffe://a/b', sessions: }"), format!("{at}.peers[0].sessions")),
        (peers("{id: 'spiffe://a/b', sessions: [s, s]}"), format!("{at}.peers[0].sessions")),
        (peers("{id: 'spiffe://a/b', sessions: s}"), format!("{at}.peers[0].sessions")),
        ("listen: {data_plane: 3031}\n".into(), at.to_owned()),
        ("listen: {data_plane: '0.0.0.0:3031'}\n".into(), at.to_owned()),
    ] {
        assert_eq!(paths(&text), [expected], "{text}");
    }
}

#[test]
fn how_envoy_reaches_it_is_said_in_full_or_not_at_all() {
    let with = |address: &str, envoy: &str| {
        door(&format!(
            "address: '{address}', {TLS}, peers: [{GATEWAY}], envoy: {{broker_id: 'spiffe://a/broker', {envoy}}}"
        ))
    };
    let files = "files: {certificate: /e/tls.crt, key: /e/tls.key, ca: /e/ca.crt}";
    let sds = "sds: {certificate: /e/own.yaml, ca: /e/ca.yaml}";
    for good in [
        with("127.0.0.1:3031", files),
        with("0.0.0.0:3031", &format!("{files}, address: 'attache-broker.attache.svc:3031'")),
        with("10.0.0.1:3031", sds),
    ] {
        load(&good).unwrap_or_else(|errors| panic!("{good}: {errors}"));
    }
    let at = "listen.data_plane.envoy";
    assert_eq!(paths(&with("0.0.0.0:3031", files)), [at], "nobody dials that");
    assert_eq!(paths(&with("127.0.0.1:3031", "address: 'x:1'")), [at]);
    assert_eq!(paths(&with("127.0.0.1:3031", &format!("{files}, {sds}"))), [at]);
}

#[test]
fn a_rule_names_a_session_that_exists_and_contradicts_no_binding() {
    let with = |rules: &str| {
        format!("sessions: [{{name: s, bind: {{peer: 'spiffe://a/ns/x/sa/s'}}}}, {{name: t}}]\npeers: [{rules}]\n")
    };
    let config = load(&with("{id: 'spiffe://a/ns/x/sa/s', session: s}, {id: 'spiffe://a/ns/x/sa/*', session: t}"));
    let config = config.unwrap();
    assert!(config.policy().evidence.peer, "filters look");
    assert_eq!(paths(&with("{id: 'spiffe://a/ns/x/sa/*', session: t}")), ["sessions[0].bind.peer"]);
    assert_eq!(paths(&with("{id: 'spiffe://a/ns/y/sa/*', session: u}")), ["peers[0].session"]);
    assert_eq!(paths(&with("{id: 'spiffe://*/ns', session: t}")), ["peers[0].id"]);
    let inject = "credentials: {a: {source: {env: A}, inject: bearer, missing_placeholder: inject, destinations: [{host: \
                  h}], agent_env: {}}}\nsessions: [{name: s, credentials: [a]}]\n";
    assert!(load(inject).is_err());
    assert!(load(&format!("{inject}peers: [{{id: 'spiffe://a/x', session: s}}]\n")).is_ok(), "it is named by rule");
}
