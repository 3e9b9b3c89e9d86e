//! `attache doctor` against the admin of a real Envoy that runs a broken fixture: Envoy takes it as
//! doctor's cases say, and doctor finds in its dump what it finds in the file.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use super::envoy::{Bench, Running, binary};
use super::fixture::{Base, Case, Expected, all_cases};

/// Envoys at a time.
const TOGETHER: usize = 3;

#[test]
fn each_unsafe_setting_is_found_in_a_running_envoy() {
    let bench = Bench::new(binary());
    for base in Base::ALL {
        assert_eq!(verdict(&bench.start(base.good()).unwrap()), (0, vec![]), "{base:?}");
    }

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
    if let Some(reason) = &case.envoy {
        return bench.refusal(&case.applied()).is_none().then(|| format!("Envoy takes it, though {reason}"));
    }
    if case.running.is_some() {
        return bench.refusal(&case.applied()).map(|why| format!("refused: {why}"));
    }
    let running = match bench.start(case.applied()) {
        Ok(running) => running,
        Err(log) => return Some(format!("does not run, and neither `envoy` nor `running` says why:\n{log}")),
    };
    let mut expected = case.expected(check);
    expected.iter_mut().for_each(|(_, _, place)| *place = below(place));
    expected.sort();
    let (code, found) = verdict(&running);
    if case.only.is_some() {
        // A running Envoy shows more than its file, and each field in one spelling: nothing else is wrong.
        expected.retain(|one| found.contains(one));
    }
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

/// A place without the way to its resource, which differs between a file and a dump. Envoy lists
/// clusters in an order of its own: which of them is meant, the synthesised dumps show.
fn below(place: &str) -> String {
    let place = match place.strip_prefix("configs[").and_then(|rest| rest.split_once("].")) {
        Some((_, rest)) => rest.strip_prefix("bootstrap.").unwrap_or(rest),
        None => place,
    };
    let place = place.strip_prefix("static_resources.").or_else(|| place.strip_prefix("static_")).unwrap_or(place);
    for (list, entry) in [("listeners[", ".listener"), ("clusters[", ".cluster")] {
        let Some((index, rest)) = place.strip_prefix(list).and_then(|rest| rest.split_once(']')) else { continue };
        let index = if list == "clusters[" { "" } else { index };
        let inside = rest.strip_prefix(entry).filter(|inside| inside.is_empty() || inside.starts_with('.'));
        return format!("{list}{index}]{}", inside.unwrap_or(rest));
    }
    place.to_owned()
}
