//! Clusters of other people's Envoys: what they are called, and what cannot be said beside them.

use super::{load, places};

fn credential(destinations: &str) -> String {
    format!("  a: {{source: {{env: A}}, inject: bearer, agent_env: {{}}, destinations: [{destinations}]}}\n")
}

fn mesh(destinations: &str) -> String {
    format!("mesh: istio\ncredentials:\n{}", credential(destinations))
}

#[test]
fn in_istio_a_destination_is_called_over_plain_http_and_led_to_by_istios_cluster() {
    let config = load(&mesh("{host: a.test}, {host: b.test, port: 8443}, {host: c.test, plaintext: true}")).unwrap();
    let spec = config.policy();
    let of = |id: &str| spec.destinations.iter().find(|destination| destination.id == id).unwrap();
    assert_eq!(of("a.test:443").cluster, "outbound|443||a.test");
    assert_eq!(of("a.test:443").authorities, ["a.test", "a.test:80"]);
    assert_eq!(of("b.test:8443").cluster, "outbound|8443||b.test");
    assert_eq!(of("b.test:8443").authorities, ["b.test", "b.test:80"]);
    assert_eq!(of("c.test:80").cluster, "outbound|80||c.test");
    assert_eq!(of("c.test:80").authorities, ["c.test"]);
    // A gateway's paths lead nowhere in a mesh.
    assert!(spec.destinations.iter().all(|destination| destination.route_prefix.is_none()));
}

#[test]
fn a_destination_may_name_its_cluster_with_or_without_a_mesh() {
    let named = "{host: a.test, upstream: {cluster: 'outbound|443|v1|a.test'}}";
    let own = format!("credentials:\n{}", credential(named));
    for text in [own, mesh(named)] {
        let spec = load(&text).unwrap().policy();
        assert_eq!(spec.destinations[0].cluster, "outbound|443|v1|a.test");
    }
}

#[test]
fn what_a_cluster_of_somebody_elses_says_by_itself_is_an_error() {
    let at = |text: &str| {
        let path = |place: String| place.split_once(' ').unwrap().1.to_owned();
        places(text).into_iter().map(path).collect::<Vec<_>>()
    };
    let first = "credentials.a.destinations[0]";
    let named = credential("{host: a.test, upstream: {cluster: c, address: 'b.test:443'}}");
    assert_eq!(at(&format!("credentials:\n{named}")), [format!("{first}.upstream.cluster")]);
    assert_eq!(at(&mesh("{host: a.test, upstream: {address: 'b.test:443'}}")), [first]);
    assert_eq!(at(&mesh("{host: a.test, spki_sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=}")), [first]);
    assert_eq!(at(&mesh("{host: 192.0.2.1}")), [format!("{first}.host")]);
    assert_eq!(at(&mesh("{host: a.test}, {host: a.test, port: 8443}")), ["credentials.a"]);
    assert_eq!(at("mesh: linkerd\n"), ["mesh"]);
}

#[test]
fn no_two_destinations_share_a_cluster() {
    let both = "{host: a.test, upstream: {cluster: c}}, {host: b.test, upstream: {cluster: c}}";
    let errors = load(&format!("credentials:\n{}", credential(both))).unwrap_err();
    assert!(errors.to_string().contains("leads to another destination as well"), "{errors}");
}
