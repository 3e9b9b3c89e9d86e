//! The authority and its successor: both are trusted, one signs.

use attache_tests::{Attache, util};

use crate::scene::{HOST, SOON, Scene, printed, records};

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_go_on_until_the_overlap_is_over_and_those_with_the_bundle_all_along() {
    let scene = Scene::start().await;
    let old = scene.export();
    scene.shake(HOST, &old).await.expect("a handshake");
    let next = scene.broker.json(&["ca", "rotate", "--overlap", "6s"]);
    assert_eq!((next[0]["state"].as_str(), next[1]["state"].as_str()), (Some("signs"), Some("next")), "{next}");
    let both = scene.export();
    assert!(both.starts_with(&old) && both.len() > old.len() + 300, "{both}");
    assert_eq!(std::fs::read_to_string(scene.file("ca.pem")).expect("ca.pem"), both);
    let new = both.strip_prefix(&old).expect("the old one first").to_owned();
    scene.shake(HOST, &old).await.expect("the old one signs");
    scene.shake("api.other.test", &old).await.expect("and signs new leaves");
    scene.shake(HOST, &new).await.expect_err("the new one waits");

    let (signed_by_old, signed_by_new) = (crate::scene::client(&old), crate::scene::client(&new));
    let deadline = std::time::Instant::now() + SOON;
    // Another client after the other, the whole time: none that trusts both is ever refused.
    while scene.shake_with(HOST, signed_by_new.clone()).await.is_err() {
        scene.shake(HOST, &both).await.expect("whoever trusts both");
        assert!(std::time::Instant::now() < deadline, "the new one signs");
    }
    scene.shake_with(HOST, signed_by_old).await.expect_err("the old one's time is over");
    scene.shake(HOST, &both).await.expect("whoever trusts both");
    assert_eq!(scene.export(), both, "what the old one has signed may be in use yet");
    let shown = scene.broker.json(&["ca", "show"]);
    assert_eq!((shown[0]["state"].as_str(), shown[1]["state"].as_str()), (Some("retired"), Some("signs")), "{shown}");
    let kept = std::fs::read_to_string(scene.file("ca.key")).expect("ca.key");
    assert_eq!(kept.matches("BEGIN PRIVATE KEY").count(), 1, "the old key is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_outlives_the_broker_and_is_on_record() {
    let scene = Scene::start().await;
    let old = scene.export();
    scene.broker.json(&["ca", "rotate"]);
    let both = scene.export();
    scene.broker.restart().await;
    assert_eq!(scene.export(), both);
    scene.shake(HOST, &old).await.expect("the old one signs for a day yet");
    let again = scene.broker.cli(&["ca", "rotate"]);
    assert!(!again.status.success());
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("a rotation is under way") && said.contains("--overlap 0s"), "{said}");
    let now = scene.broker.json(&["ca", "rotate", "--overlap", "0s"]);
    assert_eq!(now.as_array().map(Vec::len), Some(2), "the one that waited makes way: {now}");
    scene.answers_to(HOST, &scene.export().replace(&old, "")).await;
    let made: Vec<_> = records(&scene.config, "ca").iter().map(|r| r["decision"].as_str().map(str::to_owned)).collect();
    assert_eq!(made, ["create", "rotate", "rotate"].map(|word| Some(word.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constrained_authority_asks_to_be_rotated_for_another_host() {
    let scene = Scene::with("ca: {constrained: true}\n# no other host").await;
    let old = scene.export();
    scene.shake(HOST, &old).await.expect("a handshake");
    scene.broker.kill();
    scene.rewrite("ca: {constrained: true}");
    let path = scene.config_path();
    let refused = attache_tests::attache::run(&path, &["serve"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("api.other.test") && said.contains("attache ca rotate"),
        "{said}"
    );

    // No broker runs: the command makes the next authority by itself. It is recorded when one does.
    let done = attache_tests::attache::run(&path, &["ca", "rotate"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let broker = Attache::serve(&path, &[]).await;
    let both = printed(&broker, &["ca", "export"]);
    let new = both.strip_prefix(&old).expect("the old one first").to_owned();
    assert_eq!(records(&scene.config, "ca").len(), 2);
    // Each signs what it may: the old one all that it can, the new one what only it can.
    scene.answers_to("api.other.test", &new).await;
    scene.shake(HOST, &old).await.expect("the old one signs");
    util::eventually(SOON, || broker.alive()).await;
}
