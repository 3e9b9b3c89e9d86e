//! What ends comes back by itself, and goes on where it was.

use std::time::Duration;

use crate::scene::{PATIENCE, Scene};

/// Each service is restarted, by itself.
pub async fn after_restarts(scene: &Scene) {
    for service in ["broker", scene.profile, "agent"] {
        scene.must(&["restart", "--no-deps", "--timeout", "5", service]).await;
        scene.asks_in_the_end(&format!("/after-{service}")).await;
    }
}

/// The broker's process is killed; nobody starts it again but the engine.
pub async fn after_a_kill(scene: &Scene) {
    let before = scene.inspect("broker").await;
    let pid = before["State"]["Pid"].to_string();
    scene.engine.kill(&pid).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = scene.inspect("broker").await;
        if now["RestartCount"].as_u64() > before["RestartCount"].as_u64()
            && now["State"]["Health"]["Status"] == "healthy"
        {
            assert_ne!(now["State"]["Pid"].to_string(), pid);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "it is not back: {}\n{}", now["State"], scene.logs().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.asks_in_the_end("/after-a-kill").await;
    follows(scene).await;
}

/// Envoy's workers follow the broker that is there now: what the operator changes is in force on all of them.
async fn follows(scene: &Scene) {
    let changed = scene.attache(&["session", "set-access-mode", "agent", "read-write"]).await;
    assert!(applied_everywhere(&changed), "{changed}\n{}", scene.logs().await);
    assert_eq!(scene.ask("POST", "/written").await.status, "200");
    scene.has_arrived("POST", "/written").await;
    let changed = scene.attache(&["session", "set-access-mode", "agent", "read-only"]).await;
    assert!(applied_everywhere(&changed), "{changed}");
    assert_eq!(scene.ask("POST", "/no-more").await.status, "403");
}

/// `… applied on 3/3 workers in 5 ms`.
fn applied_everywhere(said: &str) -> bool {
    let numbers = said.split_whitespace().find_map(|word| word.split_once('/'));
    numbers.is_some_and(|(done, all)| done == all && done != "0")
}
