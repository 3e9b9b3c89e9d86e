//! `attache doctor` against the admin of a real Envoy that runs a broken fixture.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use super::envoy::{Bench, Running, binary};
use super::fixture::{Case, Expected, all_cases, good};

/// Envoys at a time.
const TOGETHER: usize = 3;

#[test]
fn each_unsafe_setting_is_found_in_a_running_envoy() {
    let Some(binary) = binary() else {
        eprintln!("skipped: no Envoy ($ATTACHE_ENVOY, .venv, PATH); doctor was not run against one");
        return;
    };
    let bench = Bench::new(binary);
    assert_eq!(verdict(&bench.start(good()).unwrap()), (0, vec![]), "good.yaml");

    let (cases, wrong) = (Mutex::new(VecDeque::from(all_cases())), Mutex::new(Vec::new()));
    let next = || cases.lock().unwrap().pop_front();
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                while let Some((check, case)) = next() {
                    if let Some(why) = failing(&bench, check, &case) {
                        wrong.lock().unwrap().push(format!("{check}, {}: {why}", case.case));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Why a case does not hold on a running Envoy, if it does not.
fn failing(bench: &Bench, check: &str, case: &Case) -> Option<String> {
    // That Envoy refuses it is what `envoy_reads_every_fixture_as_doctor_does` holds.
    if case.envoy.is_some() || case.running.is_some() {
        return None;
    }
    let running = match bench.start(case.applied()) {
        Ok(running) => running,
        Err(log) => return Some(format!("does not run, and neither `envoy` nor `running` says why:\n{log}")),
    };
    // A file says what it does not show; a dump shows all there is.
    let mut expected = if case.only.is_some() { Vec::new() } else { case.expected(check) };
    expected.iter_mut().for_each(|(_, _, place)| *place = below(place));
    expected.sort();
    let (code, found) = verdict(&running);
    let must = i32::from(expected.iter().any(|(_, severity, _)| severity == "fail"));
    ((code, &found) != (must, &expected)).then(|| format!("exit {code}\n  found    {found:?}\n  expected {expected:?}"))
}

/// Doctor's exit code, and what it found.
fn verdict(envoy: &Running) -> (i32, Vec<Expected>) {
    let home = tempfile::tempdir().unwrap();
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_attache"));
    doctor.args(["doctor", "--json", "--envoy-admin", &envoy.admin()]).env_clear().env("HOME", home.path());
    let output = doctor.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |finding: &Value, member: &str| finding[member].as_str().unwrap().to_owned();
    let mut found: Vec<_> = said["report"]["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (text(one, "check"), text(one, "severity"), below(&text(one, "path"))))
        .collect();
    found.sort();
    (output.status.code().unwrap(), found)
}

/// A place without the way to its resource: `listeners[1].filter_chains[0]…` in a file and in a dump.
fn below(place: &str) -> String {
    for (from, to) in [("static_listeners", "listeners"), ("static_clusters", "clusters")] {
        if let Some((_, rest)) = place.split_once(&format!(".{from}["))
            && let Some((index, rest)) = rest.split_once(']')
        {
            let rest = rest.strip_prefix(".listener").or_else(|| rest.strip_prefix(".cluster")).unwrap_or(rest);
            return format!("{to}[{index}]{rest}");
        }
    }
    let place = place.split_once(".bootstrap.").map_or(place, |(_, rest)| rest);
    place.strip_prefix("static_resources.").unwrap_or(place).to_owned()
}
