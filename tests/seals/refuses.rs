//! Without its key nothing starts, nothing is made anew, and the error says what to do.

use std::fs;

use crate::scene::{SECRET, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_starts_without_the_key_and_each_error_says_what_to_do() {
    let scene = Scene::new("{file: seal.key}");
    let id = scene.key("seal.key");
    scene.write_plain();
    scene.life(&[]).await;
    let keys = ["instance.key", "audit.key", "ca.key", "seal.json"];
    let before = keys.map(|name| fs::read(scene.state(name)).expect("a file"));
    let other = scene.key("other.key");

    for (seal, words) in [
        ("", ["seal.json", id.as_str(), "state: {seal: …}"]),
        ("{file: other.key}", [id.as_str(), other.as_str(), "attache state rekey --old-key-file"]),
        ("{file: none.key}", ["none.key", "is not there", "state.seal"]),
        ("{env: NOT_SET}", ["env NOT_SET", "is not there", "state.seal"]),
    ] {
        scene.seal(seal);
        for args in [&["serve"][..], &["ca", "show"], &["audit", "head"]] {
            let said = scene.attache(args, &[], "");
            assert!(!said.good, "{args:?} with {seal}: {}", said.text);
            for word in words {
                assert!(said.text.contains(word), "{args:?} with {seal}: {word}: {}", said.text);
            }
        }
        let verified = scene.attache(&["audit", "verify"], &[], "");
        assert!(verified.good, "what is public is read without: {}", verified.text);
    }
    let (ring, away) = (scene.state("seal.json"), scene.path("away"));
    fs::rename(&ring, &away).expect("a move");
    for seal in ["", "{file: seal.key}"] {
        scene.seal(seal);
        for args in [&["state", "show"][..], &["state", "rekey", "--plain"]] {
            let said = scene.attache(args, &[], "");
            assert!(said.text.contains("is sealed under data key"), "{args:?}: {}", said.text);
            assert!(said.text.contains("restore it from a") && !said.text.contains("not sealed"), "{}", said.text);
        }
    }
    fs::rename(&away, &ring).expect("a move");
    assert_eq!(before, keys.map(|name| fs::read(scene.state(name)).expect("a file")), "nothing was made anew");
    scene.seal("{file: seal.key}");
    scene.life(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_and_show_say_how_it_stands() {
    let scene = Scene::new("");
    scene.write_plain();
    scene.life(&[]).await;
    let said = scene.attache(&["doctor"], &[], "");
    assert!(said.good && said.text.contains("NOTE the state directory is not sealed"), "{}", said.text);
    assert_eq!(scene.show()["data_key"], serde_json::Value::Null);

    let id = scene.key("seal.key");
    scene.seal("{file: seal.key}");
    scene.life(&[]).await;
    let said = scene.attache(&["doctor"], &[], "");
    assert!(said.good && !said.text.contains("is not sealed"), "{}", said.text);
    assert!(said.text.contains("secrets/it is plain: `attache state rekey` seals it"), "{}", said.text);
    let shown = scene.show();
    assert_eq!(shown["configured_key"], format!("key {id}"));
    assert_eq!(shown["sealed_by"][0], format!("key {id}"));
    let said = scene.attache(&["state", "show"], &[], "");
    assert!(said.good && said.text.contains(&id) && !said.text.contains(SECRET), "{}", said.text);

    let left = scene.state("secrets/.gone.new");
    fs::copy(scene.state("secrets/it"), &left).expect("a copy");
    let said = scene.attache(&["state", "show"], &[], "");
    assert!(said.good && said.text.contains(".gone.new") && said.text.contains("left over"), "{}", said.text);
    fs::remove_file(left).expect("it is gone");

    fs::rename(scene.path("seal.key"), scene.state("seal.key")).expect("a move");
    scene.seal("{file: state/default/seal.key}");
    for args in [&["check"][..], &["doctor"]] {
        let said = scene.attache(args, &[], "");
        assert!(said.good && said.text.contains("keep the key elsewhere"), "{args:?}: {}", said.text);
    }
    let said = scene.attache(&["state", "new-key", &scene.state("seal.key").display().to_string()], &[], "");
    assert!(!said.good && said.text.contains("is there already"), "{}", said.text);
}
