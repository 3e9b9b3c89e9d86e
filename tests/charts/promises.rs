//! What the chart promises, over every object that it makes of every set of values.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::tools::{Helm, Rendered};
use crate::values;

/// All that the chart makes, by the name of the values.
fn rendered() -> Option<Vec<(&'static str, Arc<Rendered>)>> {
    let helm = Helm::here()?;
    let render =
        |(name, values): (_, String)| (name, helm.render(&values).unwrap_or_else(|why| panic!("{name}: {why}")));
    Some(values::all().into_iter().map(render).collect())
}

/// The containers of the one pod, those that outlive others too.
pub fn containers(rendered: &Rendered) -> Vec<&Value> {
    let pod = &rendered.pod()["spec"];
    let of = |list: &str| pod[list].as_array().into_iter().flatten().collect::<Vec<_>>();
    [of("initContainers"), of("containers")].concat()
}

#[test]
fn nothing_runs_as_root_or_writes_to_its_image_or_has_a_capability() {
    for (name, rendered) in rendered().into_iter().flatten() {
        let pod = &rendered.pod()["spec"]["securityContext"];
        assert_eq!((&pod["runAsNonRoot"], &pod["runAsUser"]), (&json!(true), &json!(101)), "{name}");
        assert_eq!(pod["seccompProfile"], json!({"type": "RuntimeDefault"}), "{name}");
        let containers = containers(&rendered);
        assert!(!containers.is_empty(), "{name}");
        for container in containers {
            let expected = json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "runAsUser": 101, "runAsGroup": 101, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            });
            assert_eq!(container["securityContext"], expected, "{name}: {}", container["name"]);
        }
        let text = rendered.pod().to_string();
        for never in
            ["hostPath", "hostNetwork", "hostPID", "hostIPC", "privileged\"", "shareProcessNamespace", "hostPort"]
        {
            assert!(!text.contains(never), "{name}: {never}");
        }
    }
}

/// A kubelet mounts no token into any container. Where the API server is asked, the broker's container alone has one.
#[test]
fn no_token_of_the_service_account_is_mounted_but_for_a_source_that_needs_it() {
    for (name, rendered) in rendered().into_iter().flatten() {
        assert_eq!(rendered.pod()["spec"]["automountServiceAccountToken"], false, "{name}");
        assert_eq!(rendered.the("ServiceAccount")["automountServiceAccountToken"], false, "{name}");
        let has_it =
            |container: &&Value| container["volumeMounts"].to_string().contains("kubernetes.io/serviceaccount");
        let who: Vec<_> = containers(&rendered).into_iter().filter(has_it).map(|one| one["name"].clone()).collect();
        let expected = if name.starts_with("full") { vec![json!("broker")] } else { Vec::new() };
        assert_eq!(who, expected, "{name}");
    }
}

#[test]
fn the_broker_may_get_the_named_secrets_and_nothing_else() {
    for (name, rendered) in rendered().into_iter().flatten() {
        let (roles, bindings) = (rendered.all("Role"), rendered.all("RoleBinding"));
        if !name.starts_with("full") {
            assert!(roles.is_empty() && bindings.is_empty(), "{name}");
            continue;
        }
        let rules =
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["openai"], "verbs": ["get"]}]);
        assert_eq!(rendered.the("Role")["rules"], rules, "{name}");
        assert_eq!(rendered.the("Role")["metadata"]["namespace"], "agents", "{name}");
        let subjects = json!([{"kind": "ServiceAccount", "name": "attache-broker", "namespace": "attache"}]);
        assert_eq!(rendered.the("RoleBinding")["subjects"], subjects, "{name}");
        assert!(rendered.all("ClusterRole").is_empty() && rendered.all("ClusterRoleBinding").is_empty(), "{name}");
    }
}

/// Secrets are somebody else's objects: the chart makes none, and what it writes names them only.
#[test]
fn no_secret_stands_in_what_is_rendered() {
    let Some(helm) = Helm::here() else { return };
    for (name, rendered) in rendered().into_iter().flatten() {
        assert!(rendered.all("Secret").is_empty(), "{name}");
        for container in containers(&rendered) {
            for variable in container["env"].as_array().into_iter().flatten() {
                let ours = variable["name"].as_str().is_some_and(|name| name.starts_with("ATTACHE_"));
                let plain = variable["value"].is_string();
                assert!(!plain || ours, "{name}: {variable}");
                assert!(plain || variable["valueFrom"]["secretKeyRef"].is_object(), "{name}: {variable}");
            }
        }
    }
    // There is no value that would take one: a secret has to be named.
    for written in ["sources: {mounted: [{name: a, secretName: a, data: x}]}", "sources: {env: [{name: A, value: x}]}"]
    {
        assert!(helm.render(written).is_err(), "{written}");
    }
}

#[test]
fn every_image_has_a_version_and_none_is_called_latest() {
    for (name, rendered) in rendered().into_iter().flatten() {
        for container in containers(&rendered) {
            let image = container["image"].as_str().expect("an image");
            let (before, digest) = image.split_once('@').unwrap_or((image, ""));
            let tag = before.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| !tag.is_empty() && tag != "latest"), "{name}: {image}");
            assert!(digest.is_empty() || digest.starts_with("sha256:"), "{name}: {image}");
        }
    }
}

#[test]
fn nothing_is_reached_from_outside_of_the_cluster() {
    for (name, rendered) in rendered().into_iter().flatten() {
        let services = rendered.all("Service");
        assert!(!services.is_empty(), "{name}");
        for service in services {
            let spec = &service["spec"];
            assert_eq!(spec["type"], "ClusterIP", "{name}");
            for never in ["externalIPs", "loadBalancerIP", "externalName", "externalTrafficPolicy"] {
                assert!(spec[never].is_null(), "{name}: {never}");
            }
            let ports = spec["ports"].as_array().expect("ports");
            assert!(ports.iter().all(|port| port["nodePort"].is_null()), "{name}");
            // One that is not ready stays in: there is no other.
            assert_eq!(spec["publishNotReadyAddresses"], true, "{name}");
        }
        for never in ["Ingress", "HTTPRoute", "Gateway", "TCPRoute"] {
            assert!(rendered.all(never).is_empty(), "{name}: {never}");
        }
    }
}

/// Ports by rule, and whether each rule says who: a rule without peers lets in everybody.
#[test]
fn the_network_policy_refuses_what_it_does_not_name() {
    for (name, rendered) in rendered().into_iter().flatten().filter(|(name, _)| *name != "existing") {
        let policy = &rendered.the("NetworkPolicy")["spec"];
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]), "{name}");
        let labels = &rendered.pod()["metadata"]["labels"];
        let selected = policy["podSelector"]["matchLabels"].as_object().expect("labels");
        assert!(!selected.is_empty() && selected.iter().all(|(key, value)| labels[key] == *value), "{name}");
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in policy[direction].as_array().into_iter().flatten() {
                let named = rule[peers].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(says_who));
                assert!(named, "{name}: {direction} of everybody: {rule}");
                assert!(rule["ports"].as_array().is_some_and(|ports| !ports.is_empty()), "{name}: every port: {rule}");
            }
        }
        let ports = |direction: &str| -> Vec<u64> {
            let rules = policy[direction].as_array().into_iter().flatten();
            let ports = rules.flat_map(|rule| rule["ports"].as_array().into_iter().flatten());
            let mut ports: Vec<_> = ports.filter_map(|port| port["port"].as_u64()).collect();
            ports.dedup();
            ports
        };
        let (ingress, egress): (&[u64], &[u64]) = match name {
            "default" | "mesh" => (&[3031, 3033], &[53]),
            "full" => (&[3031, 3033], &[53, 6443, 8200]),
            "full, with an Envoy" => (&[3033], &[53, 6443, 8200, 443]),
            "bare" => (&[], &[]),
            _ => (&[3030, 3033], &[53, 443]),
        };
        assert_eq!((&ports("ingress")[..], &ports("egress")[..]), (ingress, egress), "{name}");
    }
}

fn says_who(peer: &Value) -> bool {
    peer.as_object().is_some_and(|parts| !parts.is_empty())
}

/// An Envoy beside the broker reaches public addresses: not the cluster's, and not a cloud's metadata.
#[test]
fn the_envoy_in_the_pod_reaches_no_private_address() {
    let Some(helm) = Helm::here() else { return };
    let rendered = helm.render(&format!("shape: gateway\n{}", values::CONFIG)).expect("it renders");
    let rules = rendered.the("NetworkPolicy")["spec"]["egress"].as_array().expect("rules").clone();
    let blocks: Vec<_> = rules.iter().flat_map(|rule| rule["to"].as_array().expect("peers")).collect();
    let v4 = blocks.iter().find(|peer| peer["ipBlock"]["cidr"] == "0.0.0.0/0").expect("the internet");
    let except: Vec<_> = v4["ipBlock"]["except"].as_array().expect("exceptions").iter().collect();
    for private in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10"] {
        assert!(except.contains(&&json!(private)), "{private}");
    }
    assert!(!blocks.iter().any(|peer| peer["ipBlock"]["cidr"] == "::/0"), "all of IPv6");
}

/// Envoy has the one directory that the broker fills for it: no state, no secret, no config.
#[test]
fn the_envoy_in_the_pod_has_nothing_of_the_brokers_but_what_is_handed_over() {
    for (name, rendered) in rendered().into_iter().flatten() {
        for container in containers(&rendered).into_iter().filter(|container| container["name"] == "envoy") {
            let mounts = json!([{"name": "envoy", "mountPath": "/run/attache/envoy"}]);
            assert_eq!((&container["volumeMounts"], &container["env"]), (&mounts, &Value::Null), "{name}");
        }
    }
}

/// Where an Envoy is in the pod, nobody else asks the broker: there is no port for it.
#[test]
fn the_data_plane_has_a_port_only_where_envoys_elsewhere_ask() {
    for (name, rendered) in rendered().into_iter().flatten() {
        let text = serde_json::to_string(&rendered.objects).expect("objects");
        let mesh = matches!(name, "default" | "full" | "mesh");
        assert_eq!(text.contains("3031"), mesh, "{name}");
        if mesh {
            let config: Value = serde_saphyr::from_str(rendered.config()).expect("a config");
            let tls = &config["listen"]["data_plane"]["tls"];
            assert!(["certificate", "key", "client_ca"].iter().all(|file| tls[file].is_string()), "{name}");
        }
    }
}

/// Two brokers never share a state directory, and none of it goes away by itself.
#[test]
fn there_is_one_broker_at_a_time_and_its_state_outlives_it() {
    for (name, rendered) in rendered().into_iter().flatten() {
        let deployment = &rendered.the("Deployment")["spec"];
        assert_eq!(
            (&deployment["strategy"], &deployment["replicas"]),
            (&json!({"type": "Recreate"}), &json!(1)),
            "{name}"
        );
        // `Always` opens files of 0600 to a group, which the broker refuses.
        assert_eq!(rendered.pod()["spec"]["securityContext"]["fsGroupChangePolicy"], "OnRootMismatch", "{name}");
        for claim in rendered.all("PersistentVolumeClaim") {
            let annotations = &claim["metadata"]["annotations"];
            assert_eq!(annotations["helm.sh/resource-policy"], "keep", "{name}");
            assert_eq!(annotations["argocd.argoproj.io/sync-options"], "Prune=false,Delete=false", "{name}");
        }
        for budget in rendered.all("PodDisruptionBudget") {
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "{name}");
        }
    }
}

/// Another config is another pod; the same one is not.
#[test]
fn a_change_of_the_config_restarts_the_broker() {
    let Some(helm) = Helm::here() else { return };
    let sum = |values: &str| {
        let rendered = helm.render(values).expect("it renders");
        rendered.pod()["metadata"]["annotations"]["checksum/config"].as_str().expect("a checksum").to_owned()
    };
    let (one, other) = (format!("shape: mesh\n{}", values::CONFIG), format!("shape: gateway\n{}", values::CONFIG));
    assert_eq!(sum(&one), sum(&format!("{one}\nlog: debug\n")));
    assert_ne!(sum(&one), sum(&other));
    assert_ne!(sum(&one), sum(&one.replace("read-only", "read-write")));
}

/// What is mounted is where the config says that it is.
#[test]
fn every_volume_that_a_config_names_is_mounted() {
    for (name, rendered) in rendered().into_iter().flatten().filter(|(name, _)| *name != "existing") {
        let broker = containers(&rendered)[0];
        let mounts: Vec<_> = broker["volumeMounts"].as_array().expect("mounts").iter().collect();
        let volumes = rendered.pod()["spec"]["volumes"].to_string();
        for mount in &mounts {
            assert!(volumes.contains(&format!("\"name\":{}", mount["name"])), "{name}: {mount}");
        }
        let paths: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().expect("a path")).collect();
        let words = rendered.config().split([' ', '\n', ':']);
        for word in words.filter(|word| word.starts_with('/') && !word.starts_with("//")) {
            assert!(paths.iter().any(|path| word.starts_with(path)), "{name}: {word} is nowhere");
        }
    }
}

/// The certificate that is asked for is one workload's, the broker's, for no longer than a day.
#[test]
fn the_certificate_is_the_brokers_identity_and_short_lived() {
    let Some(helm) = Helm::here() else { return };
    let rendered = helm.render(values::FULL).expect("it renders");
    let spec = &rendered.the("Certificate")["spec"];
    assert_eq!(spec["uris"], json!(["spiffe://example.org/ns/attache/sa/attache-broker"]));
    assert_eq!(spec["secretName"], "attache-broker-tls");
    assert_eq!((&spec["duration"], &spec["privateKey"]["rotationPolicy"]), (&json!("12h"), &json!("Always")));
    let account = rendered.the("ServiceAccount")["metadata"]["name"].as_str().expect("a name");
    assert_eq!(rendered.pod()["spec"]["serviceAccountName"], account);
    assert!(spec["uris"][0].as_str().is_some_and(|uri| uri.ends_with(&format!("/ns/attache/sa/{account}"))));
}
