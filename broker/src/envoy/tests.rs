//! Promises of the generated bootstrap that its own text can show.

use super::*;
use crate::config::Overrides;
use crate::doctor::{EnvoyConfig, Severity, examine};
use std::path::Path;

const CONFIG: &str = "
state_dir: /s
credentials:
  github: {preset: github}
  unifi:
    source: {file: unifi_key}
    inject: {query: key}
    destinations: [{host: unifi.lan, port: 8443, spki_sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=}]
  lab:
    source: {file: lab}
    inject: bearer
    destinations:
      - {host: lab.lan, plaintext: true}
      - {host: ca.lan, upstream: {address: 127.0.0.1:9443, ca_file: /ca.pem}}
";

fn config(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap()
}

fn machine() -> Machine {
    Machine {
        filter: format!("/f/attache_filter.{}.wasm", "0".repeat(64)).into(),
        filter_sha256: Some("0".repeat(64)),
        system_roots: "/etc/ssl/certs/ca-certificates.crt".into(),
        token: "/s/default/data-plane-token.sds.json".into(),
        admin: Admin::Unix("/s/default/envoy-admin.sock".into()),
        envoy: TESTED_VERSION.parse().unwrap(),
        listener: None,
    }
}

fn generated(text: &str) -> Value {
    let config = config(text);
    bootstrap(Shape::Gateway, &config, &config.policy(), &machine())
}

fn cluster<'a>(bootstrap: &'a Value, name: &str) -> &'a Value {
    let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
    clusters.iter().find(|cluster| cluster["name"] == name).unwrap()
}

fn hosts(bootstrap: &Value) -> &Vec<Value> {
    let listener = &bootstrap["static_resources"]["listeners"][0];
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["virtual_hosts"].as_array().unwrap()
}

/// Every list of routes: those of hosts, and those that a tree of prefixes finds.
fn route_lists(bootstrap: &Value) -> Vec<&Vec<Value>> {
    fn below<'a>(value: &'a Value, found: &mut Vec<&'a Vec<Value>>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, member)| match name.as_str() {
                "routes" => found.extend(member.as_array()),
                _ => below(member, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| below(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    hosts(bootstrap).iter().for_each(|host| below(host, &mut found));
    found
}

/// What a worker remembers has no instance in its key: it is kept apart by the VM.
#[test]
fn two_instances_share_no_vm() {
    let [one, other] = ["one", "other"].map(|name| generated(&format!("instance: {name}\n{CONFIG}")));
    let filters = |bootstrap: &Value| {
        let manager = &bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
        manager["typed_config"]["http_filters"].as_array().unwrap().clone()
    };
    let ids = |bootstrap: &Value| -> Vec<String> {
        let plugins = filters(bootstrap).into_iter().map(|filter| filter["typed_config"]["config"].clone());
        plugins.filter_map(|plugin| Some(plugin["vm_config"]["vm_id"].as_str()?.to_owned())).collect()
    };
    assert_eq!((ids(&one).len(), ids(&other).len()), (2, 2), "judge and gate");
    assert!(ids(&one).iter().all(|id| !ids(&other).contains(id)), "{:?} {:?}", ids(&one), ids(&other));

    // Both in one Envoy are sound; with one id they are not.
    let mut both = one.clone();
    let mut listener = other["static_resources"]["listeners"][0].clone();
    both["static_resources"]["listeners"].as_array_mut().unwrap().push(listener.clone());
    let found = |bootstrap: &Value| -> Vec<&'static str> {
        examine(&EnvoyConfig::from_bootstrap(bootstrap)).into_iter().map(|finding| finding.check).collect()
    };
    assert_eq!(found(&both), Vec::<&str>::new());
    let shared = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].as_array_mut().unwrap();
    for filter in shared.iter_mut().take(2) {
        filter["typed_config"]["config"]["vm_config"]["vm_id"] = ids(&one)[0].clone().into();
    }
    both["static_resources"]["listeners"][1] = listener;
    assert_eq!(found(&both), ["vm-id", "vm-id"]);
}

#[test]
fn doctor_finds_nothing_in_what_we_generate() {
    let bootstrap = generated(CONFIG);
    let findings = examine(&EnvoyConfig::from_bootstrap(&bootstrap));
    let failures: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Fail).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(findings.is_empty(), "{findings:#?}");
}

/// With every kind of destination, and with all that a forward proxy may be told.
#[test]
fn doctor_finds_nothing_in_a_forward_proxy_that_we_generate() {
    let pinned = "hosts: [{host: pinned.example.com, tls: passthrough}]\n";
    for more in ["", pinned, "unmatched: pass\n", "unmatched: pass\nintercept_unmatched: true\n"] {
        let config = config(&format!("{more}{CONFIG}"));
        let generated = |version: &str| {
            let machine = Machine { envoy: version.parse().unwrap(), ..machine() };
            bootstrap(Shape::ForwardProxy, &config, &config.policy(), &machine)
        };
        for version in ["1.39.3", TESTED_VERSION] {
            let findings = examine(&EnvoyConfig::from_bootstrap(&generated(version)));
            assert!(findings.is_empty(), "{version}, {more:?}: {findings:#?}");
        }
        // What 1.37 lacks is said, and no more than that.
        let old = generated("1.37.0");
        let findings = examine(&EnvoyConfig::from_bootstrap(&old));
        let told: Vec<_> = findings.iter().map(|finding| (finding.check, finding.severity)).collect();
        assert_eq!(told, [("tunnel-identity", Severity::Warn); 2], "{more:?}: {findings:#?}");
    }
}

#[test]
fn each_open_route_stands_over_a_closed_one() {
    let bootstrap = generated(CONFIG);
    let mut open = 0;
    for routes in route_lists(&bootstrap) {
        assert!(routes.last().unwrap().get("direct_response").is_some(), "nothing stands below a list: {routes:#?}");
        for (index, route) in routes.iter().enumerate().filter(|(_, route)| route.get("route").is_some()) {
            let cluster = route["route"]["cluster"].as_str().unwrap();
            let guard = &route["match"]["filter_state"][0];
            assert_eq!(guard["key"], "wasm.attache");
            assert_eq!(guard["string_match"]["prefix"], format!("{{\"cluster\":\"{cluster}\""));
            let closed = &routes[index + 1];
            assert_eq!(closed["name"], format!("undecided:{}", route["name"].as_str().unwrap()));
            assert_eq!(closed["match"]["prefix"], route["match"]["prefix"]);
            assert_eq!(closed["match"].get("headers"), route["match"].get("headers"));
            assert_eq!(closed["direct_response"]["status"], 421);
            let judge = |route: &Value| route["typed_per_filter_config"].get("attache.judge").cloned();
            assert_eq!(judge(closed), judge(route));
            let rule = &route["typed_per_filter_config"]["attache.assertion"]["rbac"]["rules"]["policies"]["decided"];
            assert_eq!(rule["principals"][0]["filter_state"], *guard);
            open += 1;
        }
    }
    // Six destinations, each by its host and by its prefix, two of them with a judged path too.
    assert_eq!(open, 16);
}

#[test]
fn the_judge_runs_only_where_a_body_decides() {
    let bootstrap = generated(CONFIG);
    let mut paths = Vec::new();
    for route in route_lists(&bootstrap).into_iter().flatten() {
        let judged = route["typed_per_filter_config"].get("attache.judge").is_some();
        let path = route["match"]["headers"][0]["string_match"]["safe_regex"]["regex"].as_str();
        assert_eq!(judged, path.is_some(), "{route:#}");
        paths.extend(path);
    }
    let batch = "/[^/?]+/[^/?]+/info/lfs/objects/batch(\\?.*)?$";
    let graphql = "/graphql(\\?.*)?$";
    let own = [graphql, batch].map(|path| format!("^{path}"));
    let below = [format!("^/api\\.github\\.com{graphql}"), format!("^/github\\.com{batch}")];
    // Each open and closed.
    assert_eq!(paths, own.iter().chain(&below).flat_map(|path| [path, path]).collect::<Vec<_>>());
    let ends = generated(
        "state_dir: /s\ncredentials: {a: {source: {env: A}, inject: bearer, destinations: [{host: h, access: {reads: \
         [{method: POST, path: '/m/*:do', body: {json: {member: a, any_of: [b]}}}]}}]}}\n",
    );
    assert!(ends.to_string().contains(r"^/m/[^/?]+\\:do(\\?.*)?$"), "{ends:#}");
    let plain = generated("state_dir: /s\ncredentials: {openai: {preset: openai}}\n");
    assert!(!plain.to_string().contains("attache.judge"));
}

#[test]
fn a_credential_leaves_over_verified_tls_unless_the_config_says_otherwise() {
    let bootstrap = generated(CONFIG);
    let options = |cluster: &Value| {
        cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
            ["upstream_http_protocol_options"]
            .clone()
    };
    let validation = |cluster: &Value| {
        cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"].clone()
    };
    let github = cluster(&bootstrap, "attache_dst_github.com_443");
    assert_eq!(validation(github), json!({"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}));
    assert_eq!(options(github), json!({"auto_sni": true, "auto_san_validation": true}));
    let own_ca = cluster(&bootstrap, "attache_dst_ca.lan_443");
    assert_eq!(validation(own_ca), json!({"trusted_ca": {"filename": "/ca.pem"}}));
    let endpoint = &own_ca["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(endpoint["address"]["socket_address"], json!({"address": "127.0.0.1", "port_value": 9443}));
    let pinned = cluster(&bootstrap, "attache_dst_unifi.lan_8443");
    assert_eq!(
        validation(pinned),
        json!({"verify_certificate_spki": ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]})
    );
    let plain = cluster(&bootstrap, "attache_dst_lab.lan_80");
    assert!(plain.get("transport_socket").is_none());
    assert_eq!(plain["metadata"]["filter_metadata"]["attache"]["plaintext"], true);
}

#[test]
fn clusters_and_routes_are_those_of_the_policy() {
    let config = config(CONFIG);
    let policy = config.policy();
    let bootstrap = bootstrap(Shape::Gateway, &config, &policy, &machine());
    for destination in &policy.destinations {
        cluster(&bootstrap, &destination.cluster);
        let host = hosts(&bootstrap).iter().find(|host| host["name"] == destination.id).unwrap();
        assert_eq!(host["domains"], json!(destination.named().collect::<Vec<_>>()));
    }
    assert_eq!(hosts(&bootstrap).len(), policy.destinations.len() + 1);
}

#[test]
fn the_example_bootstrap_is_what_the_example_config_generates() {
    let envoy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    let config = Config::load(Some(&envoy.join("attache.yaml")), &Overrides::default(), &|_| None).unwrap();
    let pinned = std::fs::read_to_string(envoy.join("filter.sha256")).unwrap();
    let machine = Machine {
        filter: format!("/usr/lib/attache/attache_filter.{}.wasm", pinned.trim()).into(),
        filter_sha256: Some(pinned.trim().into()),
        system_roots: "/etc/ssl/certs/ca-certificates.crt".into(),
        token: config.state_dir.join(TOKEN_FILE),
        admin: Admin::Unix(config.state_dir.join(ADMIN_SOCKET)),
        envoy: TESTED_VERSION.parse().unwrap(),
        listener: None,
    };
    let expected = bootstrap(Shape::Gateway, &config, &config.policy(), &machine);
    let written: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(envoy.join("gateway.yaml")).unwrap_or_default()).unwrap();
    assert_eq!(written, expected, "write it anew: tests/commands/bootstraps.rs says how");
}

/// Istio makes a cluster of its own of every port of a service that a proxy knows, with endpoints that come by themselves.
#[test]
fn doctor_knows_the_broker_by_the_names_that_istio_gives_it() {
    let host = "attache-broker.attache.svc.cluster.local";
    let found = |led: &str| {
        let mut bootstrap = generated(CONFIG);
        for cluster in bootstrap["static_resources"]["clusters"].as_array_mut().unwrap() {
            if cluster["name"] == BROKER_CLUSTER {
                let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
                *cluster.pointer_mut(address).unwrap() =
                    json!({"socket_address": {"address": host, "port_value": 3031}});
            }
        }
        let listener = json!({"name": "0.0.0.0_3031", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 3031}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": type_url("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "tcp", "cluster": led,
        }}]}]});
        bootstrap["static_resources"]["listeners"].as_array_mut().unwrap().push(listener);
        let findings = examine(&EnvoyConfig::from_bootstrap(&bootstrap));
        findings.iter().any(|finding| finding.check == "broker-reachable")
    };
    for broker in ["outbound|3031||", "outbound|3031|v1|", "outbound_.3031_._."] {
        assert!(found(&format!("{broker}{host}")), "{broker}");
    }
    for another in
        [format!("outbound|3033||{host}"), "outbound|3031||another.attache.svc.cluster.local".into(), "x".into()]
    {
        assert!(!found(&another), "{another}");
    }
}
