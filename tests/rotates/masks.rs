//! The old secret is good while the two overlap: no answer may show it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use attache_core::digest::Digest;
use attache_core::placeholder::Shape;
use attache_tests::stack::SOON;
use attache_tests::util;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::service::{FIRST, World, secret};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_that_could_not_be_read_at_the_start_is_masked_as_soon_as_it_can() {
    let world = World::new("overlap: 10m").await;
    // No variable hands it out: the config names none.
    let key = std::fs::read(world.dir.path().join("state/default/instance.key")).expect("a key");
    let session = world.broker.json(&["session", "show", "rotor"]);
    let id = session["id"].as_str().expect("an id");
    let placeholder = &Shape::new("", 40).mint(&key.try_into().expect("32 bytes"), id, "rot");
    assert_eq!(world.rotate(&[]).0, Some(0));
    assert_eq!(masked(&world, placeholder).await, [secret(1), FIRST.to_owned()]);
    let retiring = world.beside(".retiring");
    std::fs::set_permissions(&retiring, PermissionsExt::from_mode(0o644)).expect("ours");
    world.broker.restart().await;
    assert_eq!(masked(&world, placeholder).await, [secret(1)], "it is not ours alone, and so is not read");
    std::fs::set_permissions(&retiring, PermissionsExt::from_mode(0o600)).expect("ours");
    let end = std::time::Instant::now() + SOON;
    while masked(&world, placeholder).await != [secret(1), FIRST.to_owned()] {
        assert!(std::time::Instant::now() < end, "never masked");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    util::eventually(SOON, || world.rotation()["retire_ms"].is_u64()).await;
}

/// What the filter is told to mask, with a grant that it asks for.
async fn masked(world: &World, placeholder: &str) -> Vec<String> {
    let state = world.dir.path().join("state/default");
    let token = std::fs::read_to_string(state.join("data-plane.token")).expect("a token");
    let body = json!({
        "nonce": "0123456789abcdef0123456789abcdef", "worker": "0000000a", "destination": "rot.test:443",
        "evidence": {"placeholder": Digest::of(placeholder.as_bytes()).to_hex()},
    })
    .to_string();
    let head = format!(
        "POST /v1/grants HTTP/1.1\r\nhost: attache\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&state.join("data-plane.sock"), &head).await;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    serde_json::from_value(answer["granted"]["mask"].clone()).unwrap_or_else(|_| panic!("no grant: {answer}"))
}

async fn exchange(socket: &Path, request: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("the filters' door");
    stream.write_all(request.as_bytes()).await.expect("a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}
