//! What is not minted: the client gets a TLS alert, and soon.

use std::time::{Duration, Instant};

use crate::scene::{Answer, HOST, Scene, client};

/// Far more than a denial takes, and less than a handshake may wait (5 s).
const FAST: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn only_hosts_of_destinations_have_certificates() {
    let scene = Scene::start().await;
    scene.shake(HOST, &scene.export()).await.expect("a handshake");
    for spelled in [
        "evil.test",
        "github.com",
        "x.api.github.com",
        "api.github.com.evil.test",
        "*.github.com",
        "*",
        "plain.test",
        "127.0.0.1",
        "localhost",
        "x.localhost",
        "co.uk",
        "unifi",
        "api.github.com.",
        ".api.github.com",
        "api%2egithub.com",
        "no-name.invalid",
    ] {
        is_denied(&scene, Some(spelled.as_bytes())).await;
    }
    is_denied(&scene, Some(b"\xff\xfe.github.com")).await;
    is_denied(&scene, Some("\u{fc}.github.com".as_bytes())).await;
    is_denied(&scene, None).await;
    // One that Envoy has to ask for: the stream is none the worse.
    assert_eq!(scene.hello(Some(b"api.other.test")).await, Answer::Offers, "honest clients go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_be_spelled_in_any_case() {
    let scene = Scene::start().await;
    for spelled in ["API.GITHUB.COM", "Api.GitHub.com", "api.github.com"] {
        assert_eq!(scene.hello(Some(spelled.as_bytes())).await, Answer::Offers, "{spelled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_name_is_asked_for_anew_when_the_policy_names_it() {
    let scene = Scene::with("# no other host").await;
    let other = Some(&b"api.other.test"[..]);
    is_denied(&scene, other).await;
    scene.rewrite("");
    scene.broker.restart().await;
    scene.answers(other, Answer::Offers).await;
    scene.rewrite("# no other host");
    scene.broker.restart().await;
    // What Envoy had is taken away as soon as it has found the broker again.
    scene.denies(other).await;
    assert_eq!(scene.hello(Some(HOST.as_bytes())).await, Answer::Offers);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_have_certificates_where_they_are_decrypted() {
    let scene = Scene::with("unmatched: pass\nintercept_unmatched: true").await;
    let ours = scene.export();
    for host in [HOST, "www.elsewhere.test"] {
        scene.shake(host, &ours).await.expect("a handshake");
    }
    for spelled in ["*.elsewhere.test", "com", "co.uk", "localhost", "127.0.0.1", "www.elsewhere.test."] {
        is_denied(&scene, Some(spelled.as_bytes())).await;
    }
    is_denied(&scene, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_outlives_the_name_that_it_is_for() {
    let scene = Scene::start().await;
    let other = "api.other.test";
    let tls = client(&scene.export());
    for _ in 0..2 {
        scene.shake_with(other, tls.clone()).await.expect("a handshake");
    }
    scene.rewrite("# no other host");
    scene.broker.restart().await;
    scene.denies(Some(other.as_bytes())).await;
    scene.shake_with(other, tls.clone()).await.expect_err("nor does whoever was let in before get in");
    scene.shake_with(HOST, tls).await.expect("a handshake");
}

async fn is_denied(scene: &Scene, spelled: Option<&[u8]>) {
    let begun = Instant::now();
    let answer = scene.hello(spelled).await;
    let (took, name) = (begun.elapsed(), spelled.map(String::from_utf8_lossy));
    assert!(matches!(answer, Answer::Alert(_)), "{name:?}: {answer:?}");
    assert!(took < FAST, "{name:?} took {took:?}");
}
