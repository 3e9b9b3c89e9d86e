//! What ships beside the chart: the Kustomize base is the chart's, its overlay builds, and the examples for Argo CD and
//! External Secrets are valid, and name what there is. `ATTACHE_CHARTS=write` writes the base anew.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::tools::{Helm, check, read};

const BASE: &str = "envoy/kustomize/base";
const HEADER: &str = "# The chart's objects with its default values, without what Helm adds: written by\n\
                      # ATTACHE_CHARTS=write cargo test -p attache-tests --test charts\n";

/// The chart's objects without what is Helm's, and without the config, which a generator makes.
fn base(helm: &Helm) -> (Vec<Value>, String) {
    let rendered = helm.render("").expect("it renders");
    let mut objects = rendered.objects.clone();
    objects.retain(|object| object["kind"] != "ConfigMap");
    for object in &mut objects {
        strip(object);
    }
    (objects, rendered.config().to_owned())
}

/// Takes out what Helm adds, wherever it stands.
fn strip(value: &mut Value) {
    const HELMS: [&str; 4] =
        ["helm.sh/chart", "helm.sh/resource-policy", "app.kubernetes.io/managed-by", "checksum/config"];
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !HELMS.contains(&name.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[test]
fn the_kustomize_base_is_the_charts() {
    let Some(helm) = Helm::here() else { return };
    let (objects, config) = base(&helm);
    let texts: Vec<_> = objects.iter().map(|object| serde_saphyr::to_string(object).expect("YAML")).collect();
    let written = [
        (format!("{BASE}/broker.yaml"), format!("{HEADER}{}", texts.join("---\n"))),
        (format!("{BASE}/attache.yaml"), format!("{HEADER}{config}")),
    ];
    for (path, text) in written {
        if std::env::var_os("ATTACHE_CHARTS").is_some_and(|what| what == "write") {
            std::fs::write(crate::tools::at(&path), &text).expect("a file of the repository");
        }
        assert_eq!(read(&path), text, "{path} has drifted: ATTACHE_CHARTS=write writes it anew");
    }
}

/// What kubectl makes of the base is what Helm makes of the chart.
#[test]
fn kustomize_builds_what_helm_renders() {
    let Some(helm) = Helm::here() else { return };
    let Some(built) = helm.kustomize(BASE) else { return };
    let (mut expected, config) = base(&helm);
    let (maps, mut objects): (Vec<_>, Vec<_>) = built.into_iter().partition(|object| object["kind"] == "ConfigMap");
    objects.retain(|object| object["kind"] != "Namespace");
    let name = maps[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("attache-broker-"), "its name changes with it: {name}");
    let data = maps[0]["data"]["attache.yaml"].as_str().expect("a config");
    assert_eq!(data.trim_start_matches(HEADER), config);
    let deployment = expected.iter_mut().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    let volumes = deployment.pointer_mut("/spec/template/spec/volumes").expect("volumes").as_array_mut();
    let mounted = volumes.into_iter().flatten().find(|volume| volume["name"] == "config").expect("the config");
    mounted["configMap"]["name"] = json!(name);
    let sorted = |objects: &[Value]| objects.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&objects), sorted(&expected));
}

#[test]
fn the_overlay_builds_is_valid_and_its_config_is_good() {
    let Some(helm) = Helm::here() else { return };
    let Some(built) = helm.kustomize("envoy/kustomize/example") else { return };
    assert_eq!(helm.wrong(&built), Vec::<String>::new());
    let the = |kind: &str| built.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let config = the("ConfigMap")["data"]["attache.yaml"].as_str().expect("a config");
    assert!(check(config).is_ok(), "{config}");
    assert!(
        built
            .iter()
            .filter(|object| object["kind"] != "Namespace")
            .all(|one| one["metadata"]["namespace"] == "attache")
    );
    let broker = &the("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(broker["image"], "images.example.com/attache-broker:0.1.0");
    let mounts = broker["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/attache/github"), "{mounts:?}");
    // What was there before is still there: a patch adds.
    assert!(mounts.len() >= 5 && broker["securityContext"]["readOnlyRootFilesystem"] == true);
    assert_eq!(the("NetworkPolicy")["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
}

#[test]
fn the_example_for_argo_cd_is_valid_says_where_to_pin_and_removes_nothing() {
    let Some(helm) = Helm::here() else { return };
    let text = read("envoy/argocd/application.yaml");
    let objects = helm.parse(&text);
    assert_eq!(helm.wrong(&objects), Vec::<String>::new());
    let spec = &objects[0]["spec"];
    // A placeholder that leads somewhere: no tag is named that is not there.
    assert_eq!(spec["source"]["targetRevision"], "HEAD");
    assert_eq!(spec["syncPolicy"]["automated"], json!({"prune": false, "selfHeal": true}));
    assert!(objects[0]["metadata"]["finalizers"].is_null());
    assert!(crate::tools::at(spec["source"]["path"].as_str().expect("a path")).join("Chart.yaml").is_file());
    let values = serde_saphyr::to_string(&spec["source"]["helm"]["valuesObject"]).expect("values");
    let rendered = helm.render(&values).expect("it renders");
    assert_eq!(helm.wrong(&rendered.objects), Vec::<String>::new());
    assert!(check(rendered.config()).is_ok(), "{}", rendered.config());
}

/// Each Secret that the values name is one that an ExternalSecret brings, with the key that is read.
#[test]
fn the_example_for_external_secrets_brings_what_its_values_name() {
    let Some(helm) = Helm::here() else { return };
    let objects = helm.parse(&read("envoy/helm/examples/external-secrets.yaml"));
    assert_eq!(helm.wrong(&objects), Vec::<String>::new());
    let brought = objects.iter().flat_map(|object| {
        let target = object["spec"]["target"]["name"].as_str().expect("a Secret").to_owned();
        let keys = object["spec"]["data"].as_array().expect("keys").clone();
        keys.into_iter().map(move |key| (target.clone(), key["secretKey"].as_str().expect("a key").to_owned()))
    });
    let brought: BTreeSet<_> = brought.collect();
    let rendered = helm.render(&read("envoy/helm/examples/external-secrets.values.yaml")).expect("it renders");
    let config = read("envoy/helm/examples/attache.yaml");
    assert!(check(&config).is_ok());
    let pod = rendered.pod()["spec"].to_string();
    for (secret, key) in &brought {
        assert!(pod.contains(&format!("\"{secret}\"")), "nobody reads {secret}");
        assert!(pod.contains(&format!("\"{key}\"")) || config.contains(key), "nobody reads {key} of {secret}");
    }
    let names: BTreeSet<_> = brought.iter().map(|(secret, _)| secret.as_str()).collect();
    let volumes = rendered.pod()["spec"]["volumes"].as_array().expect("volumes").clone();
    let mounted = volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str());
    let unknown: Vec<_> = mounted.filter(|name| !names.contains(name) && *name != "attache-broker-tls").collect();
    assert!(unknown.is_empty(), "nobody brings {unknown:?}");
}

/// A whole config of somebody's own listens where the chart's ports and probes are.
#[test]
fn the_configs_beside_the_chart_listen_where_it_takes_for_granted() {
    let Some(helm) = Helm::here() else { return };
    let rendered = helm.render("").expect("it renders");
    let chart: Value = serde_saphyr::from_str(rendered.config()).expect("a config");
    for path in ["envoy/helm/examples/attache.yaml", "envoy/kustomize/example/attache.yaml"] {
        let own: Value = serde_saphyr::from_str(&read(path)).expect("a config");
        let (own, chart) = (&own["listen"], &chart["listen"]);
        assert_eq!(own["health"], chart["health"], "{path}");
        for member in ["address", "tls"] {
            assert_eq!(own["data_plane"][member], chart["data_plane"][member], "{path}: {member}");
        }
    }
}

/// One version: the workspace's, the chart's, the image's; one Envoy: the one that is tested.
#[test]
fn versions_are_those_of_the_workspace() {
    let chart: Value = serde_saphyr::from_str(&read("envoy/helm/Chart.yaml")).expect("YAML");
    let values: Value = serde_saphyr::from_str(&read("envoy/helm/values.yaml")).expect("YAML");
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(ours), Some(ours)));
    assert_eq!(chart["kubeVersion"], ">=1.29.0-0", "the oldest whose schemas are asked");
    assert_eq!(values["envoy"]["image"]["tag"], format!("v{}", read(".envoy-version").trim()));
}
