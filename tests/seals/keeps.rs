//! What is sealed stays what it was, and is nowhere to be read.

use std::fs;

use crate::scene::{SECRET, Scene, kept};
use attache_tests::Attache;
use attache_tests::oracle::Audit;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_instance_is_sealed_by_a_file_and_goes_on_and_no_copy_of_it_shows_a_secret() {
    let scene = Scene::new("");
    scene.write_plain();
    let kept = scene.life(&[]).await;
    let secrets = scene.plain_secrets();
    assert!(scene.exposes(&secrets).len() >= 4, "the canary sings where nothing is sealed");

    let id = scene.key("seal.key");
    scene.seal("{file: seal.key}");
    assert_eq!(scene.life(&[]).await, kept, "placeholders, authority and fingerprints are what they were");
    let left = scene.exposes(&secrets);
    assert!(left.len() == 1 && left[0].ends_with("secrets/it"), "an operator's file is an operator's: {left:?}");

    let moved = scene.attache(&["state", "rekey"], &[], "");
    assert!(moved.good && moved.text.contains(&format!("sealed by key {id}")), "{}", moved.text);
    assert_eq!(scene.exposes(&secrets), Vec::<String>::new());
    assert_eq!(scene.life(&[]).await, kept);
    assert_eq!(scene.exposes(&secrets), Vec::<String>::new(), "nor after a life of the broker");

    let (audit, _) = Audit::read(Some(&scene.state("audit.jsonl")));
    let starts: Vec<_> = audit.of_kind("start").map(|record| record.text("reason")).collect();
    assert_eq!(starts.len(), 3);
    assert!(starts[0].is_empty() && starts[1..].iter().all(|start| start.contains(&id)), "{starts:?}");
    let head = scene.attache(&["audit", "head"], &[], "");
    assert!(head.good, "it is signed with a key that is sealed: {}", head.text);
    let ca = scene.attache(&["ca", "export"], &[], "");
    assert!(ca.good && ca.text.trim() == kept.ca.trim(), "and so without a broker: {}", ca.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_variable_seals_from_the_first_start_and_is_looked_for_at_each() {
    let scene = Scene::new("{env: SEAL_KEY}");
    let key = scene.attache(&["state", "new-key"], &[], "").text.trim().to_owned();
    let env = [("SEAL_KEY", key.as_str())];
    let set = scene.attache(&["credential", "set", "it"], &env, &format!("{SECRET}\n"));
    assert!(set.good && set.text.contains("sealed") && !set.text.contains(SECRET), "{}", set.text);
    let kept = scene.life(&env).await;
    assert_eq!(scene.life(&env).await, kept);
    assert_eq!(scene.exposes(&[SECRET.as_bytes().to_vec(), key.clone().into_bytes()]), Vec::<String>::new());
    let shown = scene.show();
    assert!(shown["files"].as_array().expect("files").iter().all(|file| file["is"] == "sealed"), "{shown:#}");
    assert!(!shown.to_string().contains(&key));

    let refused = scene.attache(&["serve"], &[], "");
    assert!(!refused.good && refused.text.contains("env SEAL_KEY"), "{}", refused.text);
    let plain = scene.attache(&["state", "rekey", "--plain"], &env, "");
    assert!(plain.good && plain.text.contains("the config still names a seal: remove state.seal"), "{}", plain.text);
    scene.seal("");
    assert_eq!(scene.life(&[]).await, kept, "and the way back");
    assert!(scene.exposes(&scene.plain_secrets()).len() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_set_while_the_broker_runs_and_is_found_by_it() {
    let scene = Scene::new("{file: seal.key}");
    scene.key("seal.key");
    let broker = Attache::serve(&scene.config(), &[]).await;
    for secret in [SECRET, "another-secret-of-the-operator-4711"] {
        let set = scene.attache(&["credential", "set", "it"], &[], secret);
        assert!(set.good, "{}", set.text);
        let tested = broker.cli(&["credential", "test", "it"]);
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
        assert_eq!(scene.exposes(&[secret.as_bytes().to_vec()]), Vec::<String>::new());
    }
    for (input, words) in [("", "no secret"), ("\n", "no secret"), (&"x".repeat(70_000), "at most 65536 bytes")] {
        let set = scene.attache(&["credential", "set", "it"], &[], input);
        assert!(!set.good && set.text.contains(words) && !set.text.contains("xxx"), "{}", set.text);
    }
    let moved = scene.attache(&["state", "rekey", "--data-key"], &[], "");
    assert!(!moved.good && moved.text.contains("runs: stop it, and run this again"), "{}", moved.text);
    assert!(moved.text.contains("the broker (process ") && !moved.text.contains("--instance-id"), "{}", moved.text);
    let other = scene.attache(&["state", "rekey", "--instance-id", "another"], &[], "");
    assert!(!other.good && other.text.contains("instance another has no state yet"), "{}", other.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_broker_that_has_begun_without_the_seal_nothing_is_sealed_until_it_is_restarted() {
    let scene = Scene::new("");
    scene.write_plain();
    let broker = Attache::serve(&scene.config(), &[]).await;
    let fingerprint = kept(&broker).fingerprint;
    scene.key("seal.key");
    scene.seal("{file: seal.key}");
    let set = scene.attache(&["credential", "set", "it"], &[], "another-secret-of-the-operator-4711");
    assert!(!set.good && set.text.contains("restart the broker first"), "{}", set.text);
    assert!(!scene.state("seal.json").exists(), "the broker would not open what is sealed");
    assert_eq!(kept(&broker).fingerprint, fingerprint, "what is in use stays in use");
    broker.restart().await;
    let set = scene.attache(&["credential", "set", "it"], &[], "another-secret-of-the-operator-4711");
    assert!(set.good && set.text.contains("sealed"), "{}", set.text);
    broker.json(&["credential", "reload", "it"]);
    assert_ne!(kept(&broker).fingerprint, fingerprint);
    // What a broker has said that was killed is no broker.
    broker.kill();
    fs::remove_file(scene.state("seal.json")).expect("a file");
    for name in ["instance.key", "audit.key", "ca.key", "secrets/it"] {
        let _ = fs::remove_file(scene.state(name));
    }
    assert!(scene.state("runtime.json").exists());
    let set = scene.attache(&["credential", "set", "it"], &[], SECRET);
    assert!(set.good && set.text.contains("sealed"), "{}", set.text);
}
