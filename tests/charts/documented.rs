//! What the pages say of the chart is so.

use attache_tests::util;
use serde_json::Value;

use crate::tools::{Helm, at, check, read};

const PAGE: &str = "docs/kubernetes.md";
const BEGIN: &str = "<!-- values: written by ATTACHE_CHARTS=write cargo test -p attache-tests --test charts -->\n";
const END: &str = "<!-- values: end -->";

/// The table of values: each with its default, and what its schema says of it.
#[test]
fn the_table_of_values_is_the_schemas() {
    let page = read(PAGE);
    let (before, rest) = page.split_once(BEGIN).expect("a table");
    let (_, after) = rest.split_once(END).expect("its end");
    let values: Value = serde_saphyr::from_str(&read("envoy/helm/values.yaml")).expect("YAML");
    let schema: Value = serde_json::from_str(&read("envoy/helm/values.schema.json")).expect("JSON");
    let mut rows = vec!["| value | default | |".to_owned(), "|---|---|---|".to_owned()];
    tell("", &values, &schema, &mut rows);
    let written = format!("{before}{BEGIN}{}\n{END}{after}", rows.join("\n"));
    if std::env::var_os("ATTACHE_CHARTS").is_some_and(|what| what == "write") {
        std::fs::write(at(PAGE), &written).expect("a page");
    }
    assert_eq!(read(PAGE), written, "the table has drifted: ATTACHE_CHARTS=write writes it anew");
}

fn tell(path: &str, value: &Value, schema: &Value, rows: &mut Vec<String>) {
    let is_said = schema["description"].as_str();
    if let (None, Some(members)) = (is_said, schema["properties"].as_object()) {
        for (name, below) in value.as_object().expect("values") {
            let below_path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            tell(&below_path, below, members.get(name).unwrap_or_else(|| panic!("{below_path}: no schema")), rows);
        }
        return;
    }
    let said = is_said.unwrap_or_else(|| panic!("{path}: the schema says nothing of it"));
    let default = match value {
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Object(members) if members.is_empty() => String::new(),
        Value::Array(_) | Value::Object(_) if value.to_string().len() > 120 => "see `values.yaml`".to_owned(),
        other => {
            let spaced = other.to_string().replace("\":", ": ").replace(",\"", ", ").replace(",{", ", {");
            format!("`{}`", spaced.replace('"', ""))
        }
    };
    rows.push(format!("| `{path}` | {default} | {said} |"));
}

/// Every value has a default, and every default a schema.
#[test]
fn every_value_of_the_schema_has_a_default() {
    let values: Value = serde_saphyr::from_str(&read("envoy/helm/values.yaml")).expect("YAML");
    let schema: Value = serde_json::from_str(&read("envoy/helm/values.schema.json")).expect("JSON");
    fn missing(path: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
        if schema["description"].is_string() && !value.is_null() {
            return;
        }
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match value.get(name) {
                Some(value) => missing(&path, value, below, found),
                None => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    missing("", &values, &schema, &mut found);
    assert_eq!(found, [".global"], "Helm's own");
}

/// Values in the pages (`yml values`) render, and what they come to is good.
#[test]
fn the_values_that_are_shown_render() {
    let Some(helm) = Helm::here() else { return };
    let mut shown = 0;
    for page in [PAGE, "docs/operations.md"] {
        for block in read(page).split("```yml values\n").skip(1) {
            let values = block.split("```").next().expect("a block");
            let rendered = helm.render(values).unwrap_or_else(|why| panic!("{page}: {why}\n{values}"));
            assert_eq!(helm.wrong(&rendered.objects), Vec::<String>::new(), "{page}");
            if !rendered.all("ConfigMap").is_empty() {
                assert!(check(rendered.config()).is_ok(), "{page}: {}", rendered.config());
            }
            shown += 1;
        }
    }
    assert!(shown > 0, "no values are shown");
}

/// The chart's rules are those beside the dashboard, each stands in the page, and where it sends people there is something.
#[test]
fn every_alert_is_in_the_page_and_leads_to_what_mends_it() {
    let (own, page) = (read("envoy/helm/files/alerts.yaml"), read("docs/operations.md"));
    let rules: Value = serde_saphyr::from_str(&own).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(rules.len() >= 5);
    let headings: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    for rule in rules {
        let alert = rule["alert"].as_str().expect("a name");
        assert!(page.contains(&format!("`{alert}`")), "docs/operations.md says nothing of {alert}");
        let runbook = rule["annotations"]["runbook"].as_str().expect("what to do");
        let anchor = runbook.strip_prefix("docs/operations.md#").unwrap_or_else(|| panic!("{alert}: {runbook}"));
        let known = headings.iter().any(|heading| heading.to_lowercase().replace(' ', "-") == anchor);
        assert!(known, "{alert}: there is no {runbook}");
    }
    let shared = read("envoy/dashboards/alerts.yaml");
    if std::env::var_os("ATTACHE_CHARTS").is_some_and(|what| what == "write") {
        std::fs::write(at("envoy/helm/files/alerts.yaml"), &shared).expect("a file of the repository");
    }
    let own = read("envoy/helm/files/alerts.yaml");
    assert_eq!(own, shared, "the rules have drifted: ATTACHE_CHARTS=write writes them anew");
}

/// The picture is one, and says in words what it shows.
#[test]
fn the_picture_has_a_title_and_a_description() {
    let picture = read("docs/kubernetes.svg");
    for part in ["role=\"img\"", "<title id=\"title\">", "<desc id=\"desc\">"] {
        assert!(picture.contains(part), "{part}");
    }
    assert!(util::workspace_root().join("docs/kubernetes.svg").is_file() && read(PAGE).contains("(kubernetes.svg)"));
}
