//! Doctor finds each unsafe setting, exactly where it stands, and nothing in a good configuration.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "doctor/dump.rs"]
mod dump;
#[path = "doctor/envoy.rs"]
mod envoy;
#[path = "doctor/fixture.rs"]
mod fixture;
#[path = "doctor/running.rs"]
mod running;

use std::collections::BTreeSet;

use attache_broker::doctor::{self, CHECKS, EnvoyConfig, Finding, Severity, examine, examine_logging, vet};
use dump::{Dump, Form};
use fixture::{Base, all_cases, told};
use serde_json::{Value, json};

fn found_in(value: &Value) -> Vec<Finding> {
    examine(&EnvoyConfig::from_value(value))
}

#[test]
fn what_is_good_is_clean_however_it_is_read() {
    for base in Base::ALL {
        let bootstrap = base.good();
        assert_eq!(found_in(&bootstrap), [], "{base:?}");
        for form in [Form::Static, Form::Discovered] {
            assert_eq!(found_in(&Dump::of(&bootstrap, form).value), [], "{base:?}, {form:?}");
        }
    }
}

#[test]
fn each_unsafe_setting_is_found_where_it_stands() {
    let wrong: Vec<_> = all_cases()
        .into_iter()
        .filter_map(|(check, case)| {
            let (found, expected) = (told(&found_in(&case.applied())), case.expected(check));
            (found != expected)
                .then(|| format!("{check}, {}:\n  found    {found:?}\n  expected {expected:?}", case.case))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_unsafe_setting_is_found_in_a_dump() {
    let mut wrong = Vec::new();
    for (check, case) in all_cases().iter().filter(|(_, case)| case.only.is_none()) {
        for form in [Form::Static, Form::Discovered] {
            let dump = Dump::of(&case.applied(), form);
            let found = told(&found_in(&dump.value));
            let mut expected = case.expected(check);
            expected.iter_mut().for_each(|(_, _, place)| *place = dump.place(place));
            expected.sort();
            if found != expected {
                wrong
                    .push(format!("{check}, {} ({form:?}):\n  found    {found:?}\n  expected {expected:?}", case.case));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_about_to_run_is_vetted() {
    for (check, case) in all_cases() {
        let (config, mut warned) = (case.applied(), Vec::new());
        let verdict = vet(&EnvoyConfig::from_value(&config), |warning| warned.push(warning.clone()));
        let failures = verdict.err().map(|unsafe_one| unsafe_one.0).unwrap_or_default();
        assert!(failures.iter().all(|finding| finding.severity == Severity::Fail), "{check}, {}", case.case);
        assert!(warned.iter().all(|finding| finding.severity == Severity::Warn), "{check}, {}", case.case);
        assert_eq!(told(&[failures, warned].concat()), case.expected(check), "{check}, {}", case.case);
    }
}

#[test]
fn every_check_is_broken_by_a_case_and_every_case_belongs_to_a_check() {
    for check in CHECKS {
        let breaks = |(id, case): &(&str, fixture::Case)| {
            *id == check.id && case.expected(id).iter().any(|(found, _, _)| found == check.id)
        };
        assert!(all_cases().iter().any(breaks), "no case breaks {}", check.id);
    }
    let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id.to_owned()).collect();
    assert_eq!(ids.len(), CHECKS.len(), "ids are unique");
    for file in std::fs::read_dir(fixture::directory().join("broken")).unwrap() {
        let stem = file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(ids.contains(&stem), "{stem}.yaml belongs to no check");
    }
}

#[test]
fn the_table_tells_every_reader_what_why_and_how() {
    for check in CHECKS.iter().chain([&doctor::LOG_LEVEL]) {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(check.id.chars().all(kebab), "{}", check.id);
        for text in [check.purpose, check.attack, check.fix] {
            assert!(!text.is_empty() && !text.contains('\n') && !text.contains("  "), "{}: {text:?}", check.id);
        }
        assert!(check.purpose.len() <= 100, "{}: the purpose is one line", check.id);
    }
}

#[test]
fn a_setting_spelled_in_camel_case_is_found_as_well() {
    // Renamed, the two spellings of that check's case would fall together.
    for (check, case) in all_cases().into_iter().filter(|(check, _)| *check != "one-spelling") {
        let mut renamed = case.applied();
        camel(&mut renamed);
        assert_eq!(brief(&renamed), brief(&case.applied()), "{check}, {}", case.case);
    }
}

#[test]
fn a_typed_struct_hides_nothing() {
    for (check, case) in all_cases() {
        let mut wrapped = case.applied();
        wrap(&mut wrapped);
        assert_eq!(brief(&wrapped), brief(&case.applied()), "{check}, {}", case.case);
    }
}

/// What is found, without where.
fn brief(value: &Value) -> Vec<(&'static str, Severity)> {
    found_in(value).into_iter().map(|finding| (finding.check, finding.severity)).collect()
}

/// Writes every typed message as a mesh's control plane does.
fn wrap(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(wrap),
        Value::Object(fields) => {
            fields.values_mut().for_each(wrap);
            if fields.get("@type").and_then(Value::as_str).is_some_and(|kind| kind.contains("/envoy.")) {
                let kind = fields.remove("@type");
                *value = json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": kind, "value": value.take()});
            }
        }
        _ => {}
    }
}

/// Renames proto fields as proto JSON does; maps with keys of our own keep them.
fn camel(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(camel),
        Value::Object(fields) => {
            for (key, mut child) in std::mem::take(fields) {
                if !matches!(key.as_str(), "filter_metadata" | "key_values" | "static_layer" | "json_format") {
                    camel(&mut child);
                }
                let mut words = key.split('_');
                let first = words.next().unwrap_or_default().to_owned();
                let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
                let renamed = if key.contains(['.', '@']) {
                    key.clone()
                } else {
                    first + &words.map(capital).collect::<String>()
                };
                fields.insert(renamed, child);
            }
        }
        _ => {}
    }
}

#[test]
fn no_finding_prints_a_secret() {
    let cases: Vec<_> =
        all_cases().into_iter().filter(|(_, case)| case.applied().to_string().contains("HUSH")).collect();
    assert!(cases.len() > 5, "cases hold secrets");
    for (check, case) in cases {
        for finding in found_in(&case.applied()) {
            let printed = format!("{finding} {}", serde_json::to_string(&finding).unwrap());
            assert!(!printed.contains("HUSH"), "{check}, {}: {printed}", case.case);
        }
    }
}

#[test]
fn odd_shapes_are_no_reason_to_panic_or_to_pass() {
    for text in [
        "null",
        "[]",
        "3",
        r#"{"configs": [1, {"@type": 4}]}"#,
        r#"{"static_resources": {"listeners": [[], {"filter_chains": 7}]}}"#,
    ] {
        let found = found_in(&serde_json::from_str(text).unwrap());
        assert!(
            found.iter().any(|finding| finding.check == "filter-present" && finding.severity == Severity::Fail),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_does_not_parse_is_named_with_its_line() {
    let error = doctor::parse("envoy.yaml", "a: 1\nb: [ghp_HUSH\nc: }").unwrap_err().to_string();
    assert!(
        error.starts_with("envoy.yaml:") && !error.starts_with("envoy.yaml:0") && !error.contains("HUSH"),
        "{error}"
    );
    let error = doctor::parse("dump.json", "{\n\"a\": }").unwrap_err().to_string();
    assert!(error.starts_with("dump.json:2:6: "), "{error}");
    let error = doctor::parse("envoy.conf", "").unwrap_err().to_string();
    assert!(error.contains(".yaml"), "{error}");
    let error = doctor::read(&fixture::directory().join("absent.yaml")).unwrap_err().to_string();
    assert!(error.contains("absent.yaml"), "{error}");
}

#[test]
fn a_debug_log_is_a_leak() {
    let quiet = "active loggers:\n  admin: debug\n  http: info\n  router: warning\n  wasm: error\n";
    assert_eq!(examine_logging(quiet), []);
    let loud = examine_logging("active loggers:\n  http: debug\n  router: info\n  connection: trace\n");
    assert_eq!(loud.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["/logging http", "/logging connection"]);
    assert_eq!(examine_logging("Not Found").len(), 1);
}

#[tokio::test]
async fn a_running_envoy_gets_the_same_verdict() {
    let bench = envoy::Bench::new(envoy::binary());
    let mut config = Base::Gateway.good();
    config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["merge_slashes"] =
        false.into();
    let running = bench.start(config).unwrap();

    let dump: Value = serde_json::from_str(&running.ask("GET", "/config_dump?include_eds").await).unwrap();
    let found = found_in(&dump);
    assert_eq!(found.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["merge-slashes"], "{found:?}");
    assert!(found[0].path.starts_with("configs["), "{found:?}");

    assert_eq!(examine_logging(&running.ask("POST", "/logging").await), []);
    let loud = examine_logging(&running.ask("POST", "/logging?http=debug").await);
    assert_eq!(loud.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["/logging http"]);
}
