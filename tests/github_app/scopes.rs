//! What a session may ask for: on the command line, at the operators' door, in the config.

use attache_tests::Attache;
use serde_json::{Value, json};

use crate::github::GitHub;
use crate::keys::Key;
use crate::world::World;

const SOURCE: &str = "{github_app: {repositories: [one, two], permissions: {contents: write}}}";

fn create(broker: &Attache, name: &str, scopes: &[&str]) -> Result<Value, String> {
    let mut args = vec!["session", "create", name, "--credential", "it", "--json"];
    for scope in scopes {
        args.extend(["--scope", scope]);
    }
    let output = broker.cli(&args);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_narrowed_on_the_command_line_and_never_widened() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let world = World::new(&github.source("{file: github_app.pem}", ""), SOURCE);
    world.deliver("github_app.pem", &key.pem);
    let broker = world.serve(&[]).await;
    let made =
        create(&broker, "narrow", &["it={repositories: [one], permissions: {contents: read}}"]).expect("narrower");
    let scopes = json!({"it": {"repositories": ["one"], "permissions": {"contents": "read"}}});
    assert_eq!(made["scopes"], scopes);
    assert_eq!(create(&broker, "all", &[]).expect("as wide as the credential")["scopes"], json!({}));
    for (name, scope, words) in [
        ("wide", "it={permissions: {contents: admin}}", "contents: admin is more than the credential has (write)"),
        ("other", "it={repositories: [three]}", "repository three is not among the credential's"),
        ("numbers", "it={repository_ids: [101]}", "names its repositories by repositories"),
        ("unused", "other={permissions: {contents: read}}", "which the session may not use"),
        ("none", "it={repositories: []}", "an empty list would mean all there is"),
        ("unknown", "it={repository: [one]}", "expected CREDENTIAL={repositories"),
        ("no-name", "{repositories: [one]}", "expected CREDENTIAL={repositories"),
    ] {
        let said = create(&broker, name, &[scope]).expect_err(name);
        assert!(said.contains(words), "{scope}: {said}");
    }
    let twice = create(&broker, "twice", &["it={repositories: [one]}", "it={repositories: [two]}"]).expect_err("twice");
    assert!(twice.contains("given twice for it"), "{twice}");
    let shown = broker.cli(&["session", "show", "narrow"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("scopes      it: one (contents: read)"), "{shown}");
    broker.restart().await;
    let listed = broker.json(&["session", "list"]);
    let narrow = listed.as_array().expect("a list").iter().find(|session| session["name"] == "narrow");
    assert_eq!(narrow.expect("it is there still")["scopes"], scopes);
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "nothing that was refused is there: {listed:#}");
}
