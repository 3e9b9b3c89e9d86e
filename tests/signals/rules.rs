//! The alert rules are rules, each fires when it should, and says where the steps are.

use std::collections::BTreeSet;
use std::process::Command;

use attache_tests::util::workspace_root;

use crate::prometheus::program;
use crate::queries::{alerts, dashboards, panels};

/// The sections of docs/operations.md that runbooks lead to.
const SECTIONS: [&str; 6] = [
    "Broker down",
    "Audit backlog",
    "A source fails",
    "Envoy without a filter",
    "A rotation failed",
    "Credential about to expire",
];

fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_leads_to_a_section_and_every_section_is_led_to() {
    let told =
        |alert: &crate::queries::Alert, what: &str| alert.annotations[what].as_str().unwrap_or_default().to_owned();
    let runbooks: BTreeSet<_> = alerts().iter().map(|alert| told(alert, "runbook")).collect();
    let sections = SECTIONS.map(|section| format!("docs/operations.md#{}", anchor(section)));
    assert_eq!(runbooks, sections.into());
    for alert in alerts() {
        assert!(!told(&alert, "summary").is_empty() && !told(&alert, "description").is_empty(), "{}", alert.name);
    }
    let page = std::fs::read_to_string(workspace_root().join("docs/operations.md")).expect("the document");
    let headings: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### "))).collect();
    for section in SECTIONS {
        assert!(headings.contains(section), "docs/operations.md has no section {section}");
    }
}

/// The scrape config that the document shows is one, and names the jobs that rules and dashboard ask for.
#[test]
fn the_document_shows_how_both_are_scraped() {
    let document = std::fs::read_to_string(workspace_root().join("docs/metrics.md")).expect("the document");
    let (_, shown) = document.split_once("```yml scrape\n").expect("it is shown");
    let shown = shown.split("```").next().unwrap_or_default();
    let jobs: BTreeSet<_> =
        shown.lines().filter_map(|line| line.split_once("job_name: ")).map(|(_, job)| job).collect();
    let asked =
        crate::queries::all().iter().flat_map(|query| crate::exposition::selectors(&query.expr)).collect::<Vec<_>>();
    let asked = asked.iter().flat_map(|selector| &selector.matchers).filter(|(label, _)| label == "job");
    asked.for_each(|(_, job)| assert!(jobs.contains(job.as_str()), "{job} is none of {jobs:?}"));
    let Some(promtool) = program("promtool") else { return };
    let dir = attache_tests::util::temp_dir();
    let file = dir.path().join("prometheus.yaml");
    std::fs::write(&file, shown).expect("a config");
    let checked = Command::new(promtool).args(["check", "config"]).arg(&file).output().expect("promtool runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn every_panel_says_what_it_shows() {
    for panel in panels() {
        for field in ["title", "description"] {
            assert!(panel[field].as_str().is_some_and(|text| !text.is_empty()), "{panel}");
        }
    }
}

#[test]
fn each_rule_fires_when_it_should_and_not_before() {
    // Which are tested is text, whoever runs the tests.
    let tests = std::fs::read_to_string(dashboards().join("alerts.test.yaml")).expect("the rules' tests");
    for alert in alerts() {
        let [silent, fires] =
            [format!("alertname: {}, exp_alerts: []", alert.name), format!("alertname: {}\n", alert.name)];
        assert!(tests.contains(&silent) && tests.contains(&fires), "{} is tested both ways", alert.name);
    }
    let Some(promtool) = program("promtool") else { return };
    for (what, file) in [("check", "alerts.yaml"), ("test", "alerts.test.yaml")] {
        let output = Command::new(&promtool).args([what, "rules", file]).current_dir(dashboards()).output();
        let output = output.expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {what} rules {file}:\n{}", String::from_utf8_lossy(&said));
    }
}
