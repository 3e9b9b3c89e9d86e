//! A hook in place of a command. The server is a stand-in that keeps to the contract in docs/rotation.md.

use std::sync::{Arc, Mutex};

use attache_tests::{Reply, Upstream};
use serde_json::{Value, json};

use crate::service::{FIRST, Service, World, secret};

const TOKEN: &str = "the-token-of-the-rotator";

/// What it was asked, each with whom it took us for.
type Asked = Arc<Mutex<Vec<(Value, Option<String>)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_makes_the_new_secret_and_retires_the_old_one_and_one_rotation_has_one_id() {
    let asked: Asked = Arc::default();
    let seen = asked.clone();
    // The first answer is lost: the id says that it is the same rotation.
    let handler = move |question: &attache_tests::upstream::Asked| {
        let body: Value = serde_json::from_slice(&question.body).expect("JSON");
        let token = question.fields.text("authorization");
        let mut seen = seen.lock().expect("not poisoned");
        seen.push((body.clone(), token));
        match (body["action"].as_str(), seen.len()) {
            (Some("rotate"), 1) => Reply::reset(),
            (Some("rotate"), 2) => Reply::new(503).body(secret(9)),
            (Some("rotate"), _) => Reply::new(200).body(json!({"secret": secret(1)}).to_string()),
            _ => Reply::new(204),
        }
    };
    let server = Upstream::plain().handler(handler).start().await;
    let rotation = format!("overlap: 1h, hook: {{url: 'http://{}/rotate', token: {{env: ROTATOR}}}}", server.addr());
    let world = World::with(Service::new(), &rotation, &[("ROTATOR", TOKEN)]).await;
    let (code, said) = world.rotate(&[]);
    assert!(code == Some(1) && said.contains("the hook gives no answer"), "{said}");
    let (code, said) = world.rotate(&[]);
    assert!(
        code == Some(1) && said.contains("the hook answers with status 503") && !said.contains("rot-secret"),
        "{said}"
    );
    let (code, said) = world.rotate(&[]);
    assert_eq!((code, world.kept()), (Some(0), secret(1)), "{said}");
    assert_eq!(world.rotate(&["--retire-now"]).0, Some(0));
    let asked = asked.lock().expect("not poisoned");
    let id = &asked[0].0["id"];
    let expected = |action| json!({"version": 1, "action": action, "credential": "rot", "id": id, "secret": FIRST});
    let bodies: Vec<_> = asked.iter().map(|(body, _)| body.clone()).collect();
    assert_eq!(bodies, [expected("rotate"), expected("rotate"), expected("rotate"), expected("retire")]);
    assert!(asked.iter().all(|(_, token)| token.as_deref() == Some(&format!("Bearer {TOKEN}"))));
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_does_not_keep_to_the_contract_changes_nothing() {
    for (answer, why) in [
        (Reply::new(200).body("rot-secret-of-nobody"), "not of the form"),
        (Reply::new(200).body("{\"secret\": \"\"}"), "without a secret"),
        (Reply::new(200).body("{\"secret\": \"a\\nb\"}"), "more than one line"),
        (Reply::new(204), "status 204"),
        (Reply::new(302).field("location", "http://127.0.0.1:1/"), "status 302"),
        (Reply::hang(), "has not answered within 1s"),
    ] {
        let server = Upstream::plain().handler(move |_| answer.clone()).start().await;
        let rotation = format!("timeout: 1s, hook: {{url: 'http://{}'}}", server.addr());
        let world = World::with(Service::new(), &rotation, &[]).await;
        let (code, said) = world.rotate(&[]);
        assert!(code == Some(1) && said.contains(why), "{why}: {said}");
        assert_eq!((world.kept(), world.sides()), (FIRST.to_owned(), vec![]), "{why}");
        world.nothing_leaked();
    }
}
