//! The shipped manifests: out of the config beside them, and what the schemas take.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use attache_broker::config::{Config, Overrides};
use attache_broker::envoy::istio::{self, NotForIstio, Part, Topology};
use attache_tests::attache::run;
use attache_tests::util;
use serde_json::{Value, json};

use crate::istiod::of_kind;
use crate::world::{module, shipped};

const PARTS: [(Part, &str); 4] = [
    (Part::Mesh, "mesh"),
    (Part::EnvoyFilter, "envoy-filter"),
    (Part::TrafficExtension, "traffic-extension"),
    (Part::WasmPlugin, "wasm-plugin"),
];
const TOPOLOGIES: [(Topology, &str); 2] = [(Topology::EgressGateway, "egress-gateway"), (Topology::Sidecar, "sidecar")];

/// Each shipped file, with the words that write it.
fn files() -> impl Iterator<Item = (PathBuf, &'static str, &'static str)> {
    let all = TOPOLOGIES.iter().flat_map(|(_, topology)| PARTS.iter().map(move |(_, part)| (*topology, *part)));
    all.map(|(topology, part)| (shipped().with_file_name(format!("{topology}/{part}.yaml")), topology, part))
}

/// For each service that a sidecar knows it listens, and puts the pod's certificate around whatever a process of the
/// pod sends there. So all that a sidecar hears of the broker is a cluster of a patch, which is nobody's service.
#[test]
fn a_sidecar_is_told_of_no_service_of_the_brokers() {
    for (part, name) in PARTS {
        for manifest in made(Topology::Sidecar, part) {
            let (kind, spec) = (manifest["kind"].as_str().expect("a kind"), &manifest["spec"]);
            if kind == "Sidecar" {
                assert_eq!(spec["egress"], json!([{"hosts": ["./*"]}]), "its own namespace's alone");
            }
            let mut rest = manifest.clone();
            if let Some(patches) = rest.pointer_mut("/spec/configPatches").and_then(Value::as_array_mut) {
                patches.retain(|patch| patch["applyTo"] != "CLUSTER" || patch["patch"]["operation"] != "ADD");
            }
            assert!(!rest.to_string().contains(istio::BROKER_HOST), "{name}: {kind} names it");
        }
    }
}

/// Beside an extension in a sidecar stands the way to the broker: the cluster of the whole EnvoyFilter, and nothing
/// else. At a gateway, which has the service's, no EnvoyFilter does.
#[test]
fn an_extension_brings_its_way_to_the_broker_where_the_mesh_has_none() {
    let way = |topology, part| {
        let all = made(topology, part);
        let added = of_kind(&all, "EnvoyFilter").next().map(|filter| filter["spec"]["configPatches"].clone());
        (all.len(), added)
    };
    let whole = way(Topology::Sidecar, Part::EnvoyFilter).1.expect("patches");
    for part in [Part::TrafficExtension, Part::WasmPlugin] {
        assert_eq!(way(Topology::EgressGateway, part), (1, None));
        assert_eq!(way(Topology::Sidecar, part), (2, Some(json!([whole[0]]))));
        let all = made(Topology::Sidecar, part);
        let settings = settings_of(&all[1]);
        assert_eq!(settings["broker_cluster"], whole[0]["patch"]["value"]["name"]);
        // Who takes the other part has neither's patches twice, and the same pods are meant.
        let whole = &made(Topology::Sidecar, Part::EnvoyFilter)[0];
        assert_eq!(all[0]["metadata"], whole["metadata"]);
        assert_eq!(all[0]["spec"]["workloadSelector"]["labels"], all[1]["spec"]["selector"]["matchLabels"]);
    }
}

/// The gate's settings in an extension.
fn settings_of(extension: &Value) -> &Value {
    let spec = &extension["spec"];
    &(if extension["kind"] == "TrafficExtension" { &spec["wasm"] } else { spec })["pluginConfig"]
}

#[test]
fn check_says_who_may_ask_the_broker_and_for_whom() {
    let said = run(&shipped(), &["check"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    for words in [
        "asked at 0.0.0.0:3031 by mutual TLS, by 3 SPIFFE IDs",
        "spiffe://cluster.local/ns/attache-egress/sa/attache-egress  every session",
        "spiffe://cluster.local/ns/agents/sa/reviewer  for reviewer alone",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let said: Value = serde_json::from_slice(&run(&shipped(), &["check", "--json"]).stdout).expect("JSON");
    let peers = &said["peers"];
    assert_eq!((&peers[0]["sessions"], &peers[2]["sessions"]), (&Value::Null, &json!(["builder"])), "{peers}");
}

/// What is written down for another Envoy is not passed over in silence.
#[test]
fn what_has_no_counterpart_in_istio_is_refused() {
    let dir = util::temp_dir();
    let shipped = read(&shipped());
    let bound = shipped.replace("{name: builder, ", "{name: builder, bind: {listener: builder}, ");
    let envoy = "    envoy: {address: 'broker.test:3031', broker_id: 'spiffe://test/broker', files: {certificate: /a, key: /b, ca: /c}}\n    peers:\n";
    let towards = shipped.replacen("    peers:\n", envoy, 1);
    for (text, words) in
        [(bound, "session builder: `bind: {listener: …}`"), (towards, "listen.data_plane.envoy is for bootstraps")]
    {
        let path = dir.path().join("attache.yaml");
        std::fs::write(&path, text).expect("a config");
        for (_, topology) in TOPOLOGIES {
            let said = run(&path, &["istio", topology, "envoy-filter", "--module-sha256", &"0".repeat(64)]);
            let why = String::from_utf8_lossy(&said.stderr);
            assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(2), &b""[..]), "{why}");
            assert!(why.contains(words), "{why}");
        }
    }
}

fn read(file: &PathBuf) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The manifests that the shipped config comes to.
fn made(topology: Topology, part: Part) -> Vec<Value> {
    let config = Config::load(Some(&shipped()), &Overrides::default(), &|_| None).expect("the shipped config");
    istio::manifests(topology, part, &config, &config.policy(), &module()).expect("manifests")
}

#[test]
fn what_is_shipped_is_what_the_command_writes() {
    for (file, topology, part) in files() {
        let text = read(&file);
        // Which module is pinned is held against the module that is built elsewhere.
        let pin = text.lines().find_map(|line| line.trim().strip_prefix("sha256: "));
        let pin = pin.map_or("0".repeat(64), |pin| pin.trim_matches(|c| "'\"".contains(c)).to_owned());
        let written = run(&shipped(), &["istio", topology, part, "--module-sha256", &pin]);
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let command = format!("attache istio {topology} {part} --config envoy/istio/attache.yaml");
        assert!(String::from_utf8_lossy(&written.stdout) == text, "{} is not what `{command}` writes", file.display());
    }
}

#[test]
fn each_manifest_is_what_istios_and_kubernetes_schemas_take() {
    let all: Vec<Value> =
        TOPOLOGIES.iter().flat_map(|(at, _)| PARTS.iter().flat_map(|(part, _)| made(*at, *part))).collect();
    let Some(wrong) = validated(&all) else { return };
    assert_eq!(wrong, "");
}

#[test]
fn the_schemas_refuse_what_they_do_not_know() {
    let mut changed = Vec::new();
    let of = |topology, part, kind: &str| of_kind(&made(topology, part), kind).next().expect(kind).clone();
    for (topology, part, kind, place, value) in [
        (Topology::EgressGateway, Part::EnvoyFilter, "EnvoyFilter", "/spec/configPatches/0/applyTo", json!("NOWHERE")),
        (Topology::EgressGateway, Part::TrafficExtension, "TrafficExtension", "/spec/wasm/failStrategy", json!("OPEN")),
        (Topology::EgressGateway, Part::WasmPlugin, "WasmPlugin", "/spec/selector", json!({"labels": {}})),
        (Topology::EgressGateway, Part::Mesh, "VirtualService", "/spec/http/0/retries", json!({"tries": 0})),
        (
            Topology::EgressGateway,
            Part::Mesh,
            "DestinationRule",
            "/spec/trafficPolicy",
            json!({"tls": {"verify": true}}),
        ),
        (Topology::EgressGateway, Part::Mesh, "ServiceEntry", "/spec/resolution", json!("GUESS")),
        (Topology::Sidecar, Part::WasmPlugin, "EnvoyFilter", "/spec/workloadSelector", json!({"matchLabels": {}})),
        (Topology::Sidecar, Part::Mesh, "Sidecar", "/spec/outboundTrafficPolicy", json!({"mode": "REGISTRY"})),
        (Topology::Sidecar, Part::Mesh, "NetworkPolicy", "/spec/podSelector", json!({"labels": {}})),
    ] {
        let mut manifest = of(topology, part, kind);
        *manifest.pointer_mut(place).unwrap_or_else(|| panic!("{kind} has {place}")) = value;
        changed.push(manifest);
    }
    let Some(wrong) = validated(&changed) else { return };
    for manifest in &changed {
        let kind = manifest["kind"].as_str().expect("a kind");
        assert!(wrong.lines().any(|line| line.starts_with(kind)), "{kind} was taken:\n{wrong}");
    }
}

/// What is wrong with manifests; `None` where there is nothing to tell it by.
fn validated(manifests: &[Value]) -> Option<String> {
    let root = util::workspace_root();
    let python = root.join(".tools/istio/bin/python");
    if !root.join(".tools/istio/models").is_dir() {
        util::skipped("no models of Istio's CRDs here: `scripts/istio-schemas` gets them, and says what is missing");
        return None;
    }
    let mut command = Command::new(python);
    command.arg(root.join("tests/istio/validate.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&serde_json::to_vec(manifests).expect("JSON")).expect("a pipe");
    drop(input);
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "validate.py failed");
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn no_route_is_retried_or_cut_short() {
    for (topology, _) in TOPOLOGIES {
        let all = made(topology, Part::Mesh);
        for service in of_kind(&all, "VirtualService") {
            for route in service["spec"]["http"].as_array().expect("routes") {
                assert_eq!((&route["retries"]["attempts"], &route["timeout"]), (&json!(0), &json!("0s")), "{route}");
            }
        }
    }
}

#[test]
fn each_destination_has_a_cluster_that_verifies_its_name() {
    let config = Config::load(Some(&shipped()), &Overrides::default(), &|_| None).expect("the shipped config");
    for (topology, _) in TOPOLOGIES {
        let all = made(topology, Part::Mesh);
        for destination in config.policy().destinations {
            let host = destination.id.strip_suffix(":443").expect("a host");
            assert_eq!(destination.cluster, format!("outbound|443||{host}"));
            assert!(of_kind(&all, "ServiceEntry").any(|entry| entry["spec"]["hosts"] == json!([host])));
            let rule = of_kind(&all, "DestinationRule").find(|rule| rule["spec"]["host"] == host).expect("a rule");
            let tls = json!({"mode": "SIMPLE", "sni": host, "subjectAltNames": [host]});
            let port = json!({"port": {"number": 443}, "tls": tls});
            assert_eq!(rule["spec"]["trafficPolicy"]["portLevelSettings"], json!([port]));
        }
    }
}

#[test]
fn the_module_is_pinned_and_what_fails_stays_shut() {
    for (topology, _) in TOPOLOGIES {
        let pin = json!(module().sha256);
        for (part, _) in &PARTS[2..] {
            let all = made(topology, *part);
            let placed = &all.last().expect("an extension")["spec"];
            let module = if *part == Part::TrafficExtension { &placed["wasm"] } else { placed };
            assert_eq!((&module["sha256"], &module["failStrategy"]), (&pin, &json!("FAIL_RELOAD")));
            assert_eq!(module["pluginConfig"]["lacks"], json!(["judge"]));
            assert_eq!(module["pluginConfig"]["guarded"], false);
            assert_eq!((&placed["match"], &placed["priority"]), (&json!([{"mode": "CLIENT"}]), &json!(i32::MIN)));
        }
        let filter = &made(topology, Part::EnvoyFilter)[0]["spec"];
        let patches = filter["configPatches"].as_array().expect("patches");
        let modules: Vec<&Value> = patches.iter().filter(|patch| patch["applyTo"] == "EXTENSION_CONFIG").collect();
        assert_eq!(modules.len(), 2, "judge and gate");
        for patch in modules {
            let config = &patch["patch"]["value"]["typed_config"]["config"];
            assert_eq!(config["failure_policy"], "FAIL_RELOAD");
            assert_eq!(config["vm_config"]["code"]["remote"]["sha256"], pin);
        }
    }
}

/// Where tests run it, another cluster stands in its place.
#[test]
fn the_cluster_of_the_broker_is_one_that_envoy_takes() {
    let dir = util::temp_dir();
    for (topology, _) in TOPOLOGIES {
        let filter = &made(topology, Part::EnvoyFilter)[0]["spec"];
        let patches = filter["configPatches"].as_array().expect("patches");
        let added =
            patches.iter().find(|patch| patch["patch"]["value"]["name"] == "attache_broker").expect("a cluster");
        let cluster = added["patch"]["value"].clone();
        let identity = cluster.pointer("/transport_socket/typed_config/common_tls_context/combined_validation_context");
        let identity =
            &identity.expect("whom it believes")["default_validation_context"]["match_typed_subject_alt_names"];
        assert_eq!(identity, &json!([{"san_type": "URI", "matcher": {"exact": istio::BROKER_ID}}]));
        // In every bootstrap of Istio's: the socket of the agent in the pod.
        let agent = json!({"pipe": {"path": "./var/run/secrets/workload-spiffe-uds/socket"}});
        let sds = json!({
            "name": "sds-grpc",
            "type": "STATIC",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": agent}},
            ]}]},
        });
        let node = json!({"id": "simulated", "cluster": "simulated"});
        let bootstrap = json!({"node": node, "static_resources": {"clusters": [sds, cluster]}});
        let file = dir.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string()).expect("a bootstrap");
        let envoy = Command::new(attache_tests::envoy::binary()).args(["--mode", "validate", "-c"]).arg(&file).output();
        let envoy = envoy.expect("Envoy runs");
        assert!(envoy.status.success(), "{}", String::from_utf8_lossy(&envoy.stderr));
    }
}

#[test]
fn nothing_goes_round_the_egress_gateway() {
    let all = made(Topology::EgressGateway, Part::Mesh);
    let policy = |name: &str| of_kind(&all, "NetworkPolicy").find(|one| one["metadata"]["name"] == name).expect(name);
    let agents = &policy("attache-agents")["spec"];
    assert_eq!((&agents["podSelector"], &agents["policyTypes"]), (&json!({}), &json!(["Egress"])));
    for rule in agents["egress"].as_array().expect("rules") {
        // Names, Istio itself, the gateway: no address outside.
        assert!(rule["to"].as_array().expect("peers").iter().all(|peer| peer.get("ipBlock").is_none()), "{rule}");
    }
    let sidecar = of_kind(&all, "Sidecar").next().expect("a Sidecar");
    assert_eq!(sidecar["spec"]["outboundTrafficPolicy"]["mode"], "REGISTRY_ONLY");
}

#[test]
fn a_config_whose_clusters_are_not_istios_is_told_so() {
    let dir = util::temp_dir();
    let load = |text: &str| {
        let file = dir.path().join("attache.yaml");
        std::fs::write(&file, text).expect("a config");
        let config =
            Config::load(Some(&file), &Overrides::default(), &|name| (name == "HOME").then(|| "/h".to_owned()));
        config.expect("a config")
    };
    let tried = |text: &str| {
        let config = load(text);
        istio::manifests(Topology::Sidecar, Part::Mesh, &config, &config.policy(), &module())
    };
    let credential = "credentials: {a: {source: {env: A}, inject: bearer, destinations: [{host: a.test";
    assert_eq!(tried(&format!("{credential}}}]}}}}\n")), Err(NotForIstio::NoMesh));
    let named = format!("mesh: istio\n{credential}, upstream: {{cluster: mine}}}}]}}}}\n");
    assert_eq!(tried(&named), Err(NotForIstio::Cluster("a.test:443".to_owned())));
    let subset = format!("mesh: istio\n{credential}, upstream: {{cluster: 'outbound|443|v1|a.test'}}}}]}}}}\n");
    let all = tried(&subset).expect("manifests");
    let service = of_kind(&all, "VirtualService").next().expect("routes");
    let to = json!({"host": "a.test", "port": {"number": 443}, "subset": "v1"});
    assert_eq!(service["spec"]["http"][0]["route"][0]["destination"], to);
}
