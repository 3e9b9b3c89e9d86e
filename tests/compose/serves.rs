//! What a deployment is for: reads with the real credential, writes refused, and a record of each.

use serde_json::Value;

use crate::scene::Scene;

pub async fn reads_and_no_writes(scene: &Scene) {
    let answer = scene.ask("GET", "/user").await;
    assert_eq!(answer.status, "200", "{answer:?}\n{}", scene.logs().await);
    scene.has_arrived("GET", "/user").await;
    // The upstream echoes what it was sent: it is masked on its way back.
    assert!(answer.body.contains("authorization") && answer.body.contains("Bearer "), "{answer:?}");
    // The example's own entry has put the environment on, too.
    scene.has_arrived("GET", "/from-its-command").await;

    let answer = scene.ask("POST", "/user/repos").await;
    assert_eq!(answer.status, "403", "{answer:?}");
    assert!(answer.body.contains("\"read_only\""), "{answer:?}");
    let writes: Vec<_> = scene.arrived().await.into_iter().filter(|seen| seen["method"] != "GET").collect();
    assert!(writes.is_empty(), "{writes:?}");
}

/// What was done and refused is in the audit log, which nobody has changed.
pub async fn on_record(scene: &Scene) {
    let records = scene.attache(&["audit", "query", "--json"]).await;
    let records: Vec<Value> = records.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let has = |kind: &str, method: &str, path: &str| {
        let is = |one: &&Value| one["kind"] == kind && one["method"] == method && one["path"] == path;
        records.iter().any(|one| is(&one) && one["session"] == "agent")
    };
    assert!(has("use", "GET", "/user") && has("deny", "POST", "/user/repos"), "{records:?}");
    let verified = scene.attache(&["audit", "verify"]).await;
    assert!(verified.contains("unbroken"), "{verified}");
    // Not the upstream's: it was sent the credential.
    let logs = scene.must(&["logs", "--no-color", "broker", scene.profile, "agent"]).await;
    assert!(logs.contains("serving") && logs.contains("/from-its-command"), "{logs}");
    let told = format!("{records:?}{logs}");
    assert!(!told.contains(&scene.secret), "the credential is in a record or a log");
}
