//! The chart renders, passes Helm's strict lint and the schemas of what it makes; and says what it refuses.

use crate::tools::{Helm, check};
use crate::values;

#[test]
fn every_object_is_valid_by_its_schema() {
    let Some(helm) = Helm::here() else { return };
    for (name, values) in values::all() {
        let rendered = helm.render(&values).unwrap_or_else(|why| panic!("{name}: {why}"));
        let wrong = helm.wrong(&rendered.objects);
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

/// The schemas bite: each of these is one letter away from a good one.
#[test]
fn an_object_with_an_unknown_field_is_not_valid() {
    let Some(helm) = Helm::here() else { return };
    let rendered = helm.render(values::FULL).expect("it renders");
    for (kind, path) in [
        ("Deployment", "/spec/template/spec/containers/0"),
        ("NetworkPolicy", "/spec"),
        ("Certificate", "/spec/privateKey"),
        ("ServiceMonitor", "/spec/endpoints/0"),
        ("PrometheusRule", "/spec/groups/0/rules/0"),
    ] {
        let mut object = rendered.the(kind).clone();
        let place = object.pointer_mut(path).expect("it is there").as_object_mut().expect("an object");
        place.insert("imagePullPolice".to_owned(), "Always".into());
        assert!(!helm.wrong(&[object]).is_empty(), "{kind}{path}");
    }
}

#[test]
fn every_config_that_is_rendered_passes_attache_check() {
    let Some(helm) = Helm::here() else { return };
    for (name, values) in values::all().into_iter().filter(|(name, _)| *name != "existing") {
        let rendered = helm.render(&values).expect("it renders");
        let said = check(rendered.config());
        assert!(said.is_ok(), "{name}: {}\n{}", rendered.config(), said.unwrap_err());
    }
}

#[test]
fn values_that_cannot_hold_are_refused_with_what_to_write_instead() {
    let Some(helm) = Helm::here() else { return };
    for (values, told) in [
        ("replicas: 2", "one broker holds the SQLite database"),
        ("replicaCount: 1", "replicaCount"),
        ("dataPlane: {tls: {secret: x}}", "secret"),
        ("networkPolicy: {gateways: [{}]}", "gateways"),
        ("networkPolicy: {egress: [{ports: [{port: 443}]}]}", "egress"),
        ("networkPolicy: {egress: [{to: [], ports: [{port: 443}]}]}", "egress"),
        ("networkPolicy: {upstreams: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}", "ports"),
        ("networkPolicy: {agents: [{namespace: agents}]}", "namespace"),
        ("image: {tag: latest}", "/image/tag"),
        ("envoy: {image: {tag: latest}}", "/envoy/image/tag"),
        ("image: {repository: \"attache-broker:0.1.0\"}", "/image/repository"),
        ("shape: sidecar", "/shape"),
        ("service: {type: LoadBalancer}", "service"),
        ("config: {listen: {health: \"0.0.0.0:80\"}}", "config.listen: the chart writes it"),
        ("config: {state_dir: /tmp}", "config.state_dir: the chart writes it"),
        ("existingConfig: {secret: a, configMap: b}", "not both"),
        ("{existingConfig: {secret: a}, config: {unmatched: deny}}", "one attache.yaml"),
        ("sources: {kubernetes: {secrets: [openai]}}", "networkPolicy.apiServer.cidrs"),
        ("sources: {env: [{name: KEY, value: hunter2}]}", "value"),
        ("dataPlane: {peers: [{id: \"https://example.org\"}]}", "/dataPlane/peers/0/id"),
        ("dataPlane: {peers: []}", "dataPlane.peers: who may ask?"),
        ("podDisruptionBudget: {maxUnavailable: 2}", "of one broker 1 can be away"),
    ] {
        let refused = helm.render(values).err().unwrap_or_else(|| panic!("{values} is taken"));
        assert!(refused.contains(told), "{values}: {refused}");
    }
}

/// Somebody who installs it is told who can reach it, and whom it waits for.
#[test]
fn the_notes_say_what_is_missing() {
    let Some(helm) = Helm::here() else { return };
    let notes = |values: &str| helm.render(values).expect("it renders").notes.clone();
    let default = notes(values::DEFAULT);
    for told in [
        "attache ready",
        "spiffe://cluster.local/ns/attache-egress/sa/attache-egress",
        "waits for the Secret attache-broker-tls",
    ] {
        assert!(default.contains(told), "{told}: {default}");
    }
    let bare = notes(values::BARE);
    for told in ["networkPolicy.agents is empty", "State dies with the pod", "--shape gateway"] {
        assert!(bare.contains(told), "{told}: {bare}");
    }
    assert!(notes(values::EXISTING).contains("No NetworkPolicy was made"));
    assert!(!notes(values::FULL).contains("NOBODY"));
}
