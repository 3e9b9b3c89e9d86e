//! What GitHub answers, and what is made of it: no secret is needed to see that.

use std::path::Path;

use attache_tests::Attache;
use serde_json::Value;

use crate::github::{APP_ID, CLIENT_ID, GitHub, INSTALLATION};
use crate::keys::{Key, openssl};
use crate::world::{World, says, standing, until, until_says};

const SOURCE: &str = "{github_app: {repositories: [one, two], permissions: {contents: write}}}";
const FILE: &str = "{file: github_app.pem}";

/// Waits until nothing is wrong.
async fn until_well(broker: &Attache) -> Value {
    until(broker, |now| now["error"].is_null() && now["trouble"].is_null()).await
}

/// Asks anew, whatever is remembered; how it stands then.
fn test(broker: &Attache) -> Value {
    broker.cli(&["credential", "test", "it"]);
    standing(broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn key_and_installation_are_proven_and_no_token_is_made_for_that() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    for (place, variable, text) in [
        (FILE, None, key.pem.clone()),
        (FILE, None, key.pkcs8()),
        ("{env: APP_KEY}", Some("APP_KEY"), key.pkcs8()),
        ("{env: APP_KEY}", Some("APP_KEY"), key.pem.clone()),
    ] {
        let world = World::new(&github.source(place, ""), SOURCE);
        world.deliver("github_app.pem", &text);
        let env: Vec<_> = variable.map(|name| (name, text.as_str())).into_iter().collect();
        let broker = world.serve(&env).await;
        let now = until_well(&broker).await;
        assert_eq!(now["source"], format!("github_app installation {INSTALLATION}").as_str());
        assert_eq!((&now["sessions"], &now["fingerprint"], &now["rung"]), (&0.into(), &Value::Null, &"dynamic".into()));
        let tested = broker.cli(&["credential", "test", "it"]);
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
        let everything = world.everything(&broker);
        let body = text.lines().nth(3).expect("a line of the key");
        assert!(!everything.contains(body), "the key shows");
        assert!(everything.contains("0 sessions"), "{everything}");
    }
    let by_number = github.source(FILE, "").replace(&format!("client_id: {CLIENT_ID}"), &format!("app_id: {APP_ID}"));
    let world = World::new(&by_number, SOURCE);
    world.deliver("github_app.pem", &key.pem);
    until_well(&world.serve(&[]).await).await;
    assert!(github.state.get().looked >= 5 && github.state.tokens().is_empty());
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_told_with_its_place_and_another_is_picked_up() {
    let (Some(key), Some(other)) = (Key::new(), Key::new()) else { return };
    let github = GitHub::start(&key).await;
    let world = World::new(&github.source(FILE, ""), SOURCE);
    let broker = world.serve(&[]).await;
    let now = until_says(&broker, "there is no private key: file ").await;
    assert!(says(&now).contains("github_app.pem is empty or not there") && says(&now).contains("0600"), "{now:#}");
    let ec = String::from_utf8(openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], "").expect("openssl"));
    let ec = ec.expect("PEM is text");
    let small = Key::of("1024").expect("openssl was here");
    let public = String::from_utf8(openssl(&["rsa", "-pubout"], &key.pem).expect("openssl")).expect("PEM is text");
    let half = key.pem.lines().take(6).collect::<Vec<_>>().join("\n");
    for (text, words) in [
        ("what-is-no-key", "is no PEM"),
        (&half, "is no PEM"),
        (&ec, "is PEM of something else"),
        (&public, "is PEM of something else"),
        (&key.encrypted(), "is encrypted"),
        (&small.pem, "is no RSA key of 2048 bits or more"),
        (&small.pkcs8(), "is no RSA key of 2048 bits or more"),
        (&other.pem, "it knows no App by this name and key (file "),
    ] {
        world.deliver("github_app.pem", text);
        let now = test(&broker);
        assert!(says(&now).contains(words) && says(&now).contains("github_app.pem"), "{words}: {now:#}");
    }
    world.deliver("github_app.pem", &key.pem);
    assert!(test(&broker)["error"].is_null());
    // A key that others read is none of ours.
    let path = world.path("state/default/secrets/github_app.pem");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("readable");
    assert!(says(&test(&broker)).contains("chmod 600"));
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_an_app_that_is_suspended_and_who_may_less_are_told() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let world = World::new(&github.source(FILE, ""), SOURCE);
    world.deliver("github_app.pem", &key.pem);
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    for (ahead, words) in [(-50, ""), (100, ""), (-3600, "its clock and this machine's are apart"), (3600, "are apart")]
    {
        github.state.get().ahead = ahead;
        let now = test(&broker);
        assert_eq!(says(&now).contains(words) && !words.is_empty(), !now["error"].is_null(), "{ahead}: {now:#}");
        assert!(words.is_empty() || says(&now).contains("clock by NTP"), "{now:#}");
    }
    github.state.get().ahead = 0;
    github.state.get().suspended = true;
    let now = test(&broker);
    assert!(says(&now).contains("the App's installation is suspended; unsuspend"), "{now:#}");
    github.state.get().suspended = false;
    github.state.get().permissions.insert("contents".into(), "read".into());
    let now = test(&broker);
    assert!(says(&now).contains("not all the permissions that are asked for: contents: write"), "{now:#}");
    github.state.get().permissions.insert("contents".into(), "write".into());
    assert!(test(&broker)["error"].is_null());
    for (change, words) in [
        ((format!("installation_id: {INSTALLATION}"), "installation_id: 1".to_owned()), "no such installation"),
        ((format!("client_id: {CLIENT_ID}"), "client_id: Iv1.other".to_owned()), "it knows no App by this name"),
    ] {
        let world = World::new(&github.source(FILE, "").replace(&change.0, &change.1), SOURCE);
        world.deliver("github_app.pem", &key.pem);
        until_says(&world.serve(&[]).await, words).await;
    }
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_as_github_does_is_told_in_words_of_ours() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let world = World::new(&github.source(FILE, ""), SOURCE);
    world.deliver("github_app.pem", &key.pem);
    let broker = world.serve(&[]).await;
    for (status, body, words) in [
        (200, "<html>a-page-with-s3cret-words</html>".to_owned(), "does not answer as GitHub's API does"),
        (404, "<html>s3cret-words</html>".to_owned(), "does not answer as GitHub's API does"),
        (404, "{\"message\":\"Not Found s3cret-words\"}".to_owned(), "no such installation"),
        (302, "s3cret-words".to_owned(), "sends on to another address"),
        (403, "{\"message\":\"s3cret-words\"}".to_owned(), "denies the question"),
        (500, "s3cret-words".to_owned(), "it fails (HTTP 500)"),
        (200, format!("\"{}\"", "s3cret-words".repeat(1 << 20)), "longer than one can be"),
    ] {
        github.state.get().instead = Some((status, body));
        let now = test(&broker);
        assert!(
            says(&now).contains(words) && now["fix"].as_str().is_some_and(|fix| fix.len() > 10),
            "{words}: {now:#}"
        );
    }
    github.state.get().instead = None;
    assert!(test(&broker)["error"].is_null());
    let everything = world.everything(&broker);
    assert!(!everything.contains("s3cret"), "an answer shows");
    drop(github);
    let now = test(&broker);
    assert!(says(&now).contains("it cannot be reached") && says(&now).contains("sources.github_app.api"), "{now:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_too_many_requests_is_left_alone_whoever_wants_to_know() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    for status in [403, 429] {
        let world = World::new(&github.source(FILE, ""), SOURCE);
        world.deliver("github_app.pem", &key.pem);
        let broker = world.serve(&[]).await;
        until_well(&broker).await;
        github.state.get().instead = Some((status, "{\"message\":\"s3cret-words rate limit exceeded\"}".to_owned()));
        let asked = || {
            let state = github.state.get();
            (state.off, state.looked)
        };
        let before = asked();
        let now = test(&broker);
        assert!(says(&now).contains("too many requests; wait; a longer sources.github_app.refresh"), "{now:#}");
        assert_eq!(asked(), (before.0 + 1, before.1));
        github.state.get().instead = None;
        assert!(says(&test(&broker)).contains("too many requests"));
        assert_eq!(asked(), (before.0 + 1, before.1), "nobody asks");
        assert!(!world.everything(&broker).contains("s3cret"), "an answer shows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_doctor_ask_nobody_and_say_what_is_missing() {
    let Some(key) = Key::new() else { return };
    let github = GitHub::start(&key).await;
    let world = World::new(&github.source(FILE, ""), SOURCE);
    let run = |config: &Path, args: &[&str]| {
        let output = attache_tests::attache::run(config, args);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let checked = run(&world.config(), &["check"]);
    assert!(checked.contains(&format!("from    github_app installation {INSTALLATION}")), "{checked}");
    assert!(checked.contains("a token of its own: one, two (contents: write), at most"), "{checked}");
    let examined = run(&world.config(), &["doctor"]);
    assert!(examined.contains("nothing to log in with for github_app installation"), "{examined}");
    world.deliver("github_app.pem", &key.pem);
    let examined = run(&world.config(), &["doctor"]);
    assert!(!examined.contains("nothing to log in with"), "{examined}");
    assert_eq!(github.state.get().looked, 0);
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    assert!(!run(&world.config(), &["doctor"]).contains("has no secret"));
    github.state.get().suspended = true;
    test(&broker);
    let examined = run(&world.config(), &["doctor"]);
    assert!(examined.contains("has no secret: ") && examined.contains("is suspended"), "{examined}");
    assert!(github.state.tokens().is_empty());
}
