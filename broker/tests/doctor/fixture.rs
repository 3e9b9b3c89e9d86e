//! The fixtures: two good bootstraps, and for each check the changes that break one of them.
//!
//! A case names places from the root (`static_resources.clusters[0]`) or from an anchor (`ROUTE`).
//! `[+]` appends to a list, `[^]` puts in front.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attache_broker::doctor::{self, CHECKS, Finding};
use serde::Deserialize;
use serde_json::Value;

const CONFIG: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";

/// Short names for the places that cases change, longest first where one begins another.
const ANCHORS: [(&str, &str); 9] = [
    ("HCM", ""),
    ("HOST", ".route_config.virtual_hosts[0]"),
    ("ROUTE", ".route_config.virtual_hosts[0].routes[1]"),
    ("GATE", ".http_filters[1].typed_config.config"),
    ("JUDGE", ".http_filters[0].typed_config.config"),
    ("LOG", ".access_log[0].typed_config"),
    ("CLUSTER", "static_resources.clusters[0]"),
    ("TLS", "static_resources.clusters[0].transport_socket.typed_config"),
    (
        "HTTP",
        "static_resources.clusters[0].typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub case: String,
    /// What is changed; a gateway unless told otherwise.
    #[serde(default)]
    base: Base,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    remove: Vec<String>,
    finds: Vec<String>,
    /// `bootstrap`: what this case breaks, a dump cannot show.
    #[serde(default)]
    pub only: Option<String>,
    /// Why Envoy itself refuses this one.
    #[serde(default)]
    pub envoy: Option<String>,
    /// Why Envoy, though it accepts this one, does not run here, or cannot be asked.
    #[serde(default)]
    pub running: Option<String>,
}

/// A good bootstrap.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    #[default]
    Gateway,
    ForwardProxy,
}

impl Base {
    pub const ALL: [Self; 2] = [Self::Gateway, Self::ForwardProxy];

    pub fn good(self) -> Value {
        let file = match self {
            Self::Gateway => "good.yaml",
            Self::ForwardProxy => "forward-proxy.yaml",
        };
        doctor::read(&directory().join(file)).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// What a finding must say: check, severity, place.
pub type Expected = (String, String, String);

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor")
}

/// The cases of every check, with the check's id.
pub fn all_cases() -> Vec<(&'static str, Case)> {
    let cases = |id| {
        let file = directory().join("broken").join(format!("{id}.yaml"));
        let value = doctor::read(&file).unwrap_or_else(|error| panic!("check {id} has no cases: {error}"));
        let cases: Vec<Case> = serde_json::from_value(value).unwrap_or_else(|error| panic!("{id}.yaml: {error}"));
        cases.into_iter().map(move |case| (id, case))
    };
    CHECKS.iter().flat_map(|check| cases(check.id)).collect()
}

impl Case {
    /// The good bootstrap with this case's changes.
    pub fn applied(&self) -> Value {
        let mut config = self.base.good();
        for place in &self.remove {
            remove(&mut config, &steps(&anchored(place)));
        }
        for (place, value) in &self.set {
            set(&mut config, &steps(&anchored(place)), value.clone());
        }
        config
    }

    /// What must be found, sorted. A line is `SEVERITY PLACE`, or `SEVERITY PLACE (CHECK)` where
    /// another check speaks.
    pub fn expected(&self, check: &str) -> Vec<Expected> {
        let parse = |line: &String| {
            let (severity, place) = line.split_once(' ').expect("SEVERITY PLACE");
            let (place, check) = match place.strip_suffix(')').and_then(|place| place.split_once(" (")) {
                Some((place, other)) => (place, other),
                None => (place, check),
            };
            (check.to_owned(), severity.to_owned(), anchored(place))
        };
        let mut expected: Vec<_> = self.finds.iter().map(parse).collect();
        expected.sort();
        expected
    }
}

/// Findings in the form cases state them.
pub fn told(findings: &[Finding]) -> Vec<Expected> {
    let mut told: Vec<_> = findings
        .iter()
        .map(|finding| (finding.check.to_owned(), finding.severity.to_string().to_lowercase(), finding.path.clone()))
        .collect();
    told.sort();
    told
}

fn anchored(place: &str) -> String {
    let end = place.find(['.', '[']).unwrap_or(place.len());
    let (first, rest) = place.split_at(end);
    match ANCHORS.iter().find(|(name, _)| *name == first) {
        Some((_, inside)) if inside.is_empty() || inside.starts_with('.') => format!("{CONFIG}{inside}{rest}"),
        Some((_, from_root)) => format!("{from_root}{rest}"),
        None => place.to_owned(),
    }
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(usize),
    Append,
    Front,
}

fn steps(place: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = place;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (name, after) = quoted.split_once("\"]").expect("a closed quote");
            steps.push(Step::Field(name.to_owned()));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']').expect("a closed bracket");
            steps.push(match index {
                "+" => Step::Append,
                "^" => Step::Front,
                number => Step::Index(number.parse().expect("an index")),
            });
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Field(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    steps
}

fn set(config: &mut Value, steps: &[Step], value: Value) {
    let [step, rest @ ..] = steps else {
        *config = value;
        return;
    };
    match step {
        Step::Field(name) => {
            if config.is_null() {
                *config = Value::Object(serde_json::Map::new());
            }
            let fields = config.as_object_mut().unwrap_or_else(|| panic!("{name} is set in a map"));
            set(fields.entry(name.clone()).or_insert(Value::Null), rest, value);
        }
        Step::Index(index) => {
            let entry = config.get_mut(*index).unwrap_or_else(|| panic!("there is an entry {index}"));
            set(entry, rest, value);
        }
        Step::Append => config.as_array_mut().expect("a list").push(value),
        Step::Front => config.as_array_mut().expect("a list").insert(0, value),
    }
}

fn remove(config: &mut Value, steps: &[Step]) {
    match steps {
        [Step::Field(name)] => {
            let gone = config.as_object_mut().and_then(|fields| fields.remove(name));
            assert!(gone.is_some(), "{name} was not there to be removed");
        }
        [Step::Field(name), rest @ ..] => remove(&mut config[name.as_str()], rest),
        [Step::Index(index), rest @ ..] => remove(&mut config[*index], rest),
        other => panic!("not removable: {other:?}"),
    }
}
