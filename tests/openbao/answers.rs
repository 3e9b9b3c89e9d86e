//! What OpenBao answers, and what is made of it: absent, an error of its own, or one that passes.

use std::time::{Duration, Instant};

use attache_tests::util;
use serde_json::json;

use crate::server::{Bao, Setup};
use crate::world::{SOON, World, says, until, until_says, until_well};

const SECRET: &str = "the-secret-of-the-vault-0123456789";
const TOKEN: &str = "{token: {env: BAO_TOKEN}}";

fn source(path: &str, field: &str) -> String {
    format!("{{openbao: {{path: {path}, field: {field}}}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_falls_through_and_everything_else_is_an_error_with_a_fix() {
    let Some(bao) = Bao::start().await else { return };
    bao.kv().await;
    bao.put("app", "token", SECRET).await;
    bao.done("POST", "secret/data/odd", json!({"data": {"number": 5, "empty": "", "long": "s".repeat(70_000)}})).await;
    bao.put("gone", "token", SECRET).await;
    bao.done("DELETE", "secret/data/gone", json!(null)).await;
    bao.put("burnt", "token", SECRET).await;
    bao.done("PUT", "secret/destroy/burnt", json!({"versions": [1]})).await;
    bao.policy("some", "path \"secret/data/app\" { capabilities = [\"read\"] }").await;
    let little = bao.token(json!({"policies": ["some"], "ttl": "1h"})).await;
    let sources = bao.source(TOKEN, "");
    let pinned = "{openbao: {path: secret/data/app, field: token, version: 7}}".to_owned();
    for (source, token, words, fix) in [
        (source("secret/data/none", "token"), &bao.root, "no source has it: openbao secret/data/none#token", ""),
        (source("secret/data/app", "other"), &bao.root, "the secret has no such field", "name a field"),
        (source("secret/data/odd", "number"), &bao.root, "the field holds no text", "name a field"),
        (source("secret/data/odd", "empty"), &bao.root, "the field is empty", "name a field"),
        (source("secret/data/odd", "long"), &bao.root, "longer than 64 KiB", "name a field"),
        (source("secret/data/gone", "token"), &bao.root, "this version of the secret is deleted", "undelete"),
        (source("secret/data/burnt", "token"), &bao.root, "this version of the secret is destroyed", "anew"),
        (pinned, &bao.root, "it has no such version", "name another version"),
        (source("secret/app", "token"), &bao.root, "KV version 2", "write data/"),
        (source("nothing/app", "token"), &bao.root, "no secrets engine is at this path", "correct the credential"),
        (source("secret/data/other", "token"), &little, "policies do not allow it", "`read` on this path"),
    ] {
        let world = World::new(&sources, &source);
        let broker = world.serve(&[("BAO_TOKEN", token)]).await;
        let now = until(&broker, |now| now["error"].is_string()).await;
        assert!(says(&now).contains(words) && says(&now).contains(fix), "{source}: {now:#}");
        let everything = world.everything(&broker);
        assert!(!everything.contains(SECRET) && !everything.contains(token.as_str()), "{source}");
    }
    // Absent falls through; an error does not.
    for (path, falls) in [("secret/data/none", true), ("secret/data/gone", false)] {
        let source = format!("{{openbao: {{path: {path}, field: token}}, file: fallback}}");
        let world = World::new(&sources, &source);
        world.deliver("fallback", "the-fallback-in-a-file-0123456789");
        let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
        let now = until(&broker, |now| now["error"].is_string() || now["source"].is_string()).await;
        assert_eq!(now["source"].as_str().is_some_and(|place| place.starts_with("file ")), falls, "{now:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_of_an_artifact_is_found_by_its_template() {
    let Some(bao) = Bao::start().await else { return };
    bao.kv().await;
    bao.put("fractalops/default/runtime-providers/cliproxy/secrets", "CODEX_OAUTH_BUNDLE", SECRET).await;
    bao.put("fractalops/default/runtime-providers/cliproxy/prod/secrets", "CODEX_OAUTH_BUNDLE", SECRET).await;
    for environment in ["", ", environment: prod"] {
        let references = format!(
            ", references: {{mount: secret, base: fractalops/default{environment}, templates: {{runtime-providers: \
             '{{base}}/runtime-providers/{{provider}}/{{environment}}/secrets'}}}}"
        );
        let world =
            World::new(&bao.source(TOKEN, &references), "{ref: 'runtime-providers/cliproxy:CODEX_OAUTH_BUNDLE'}");
        let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
        let now = until_well(&broker).await;
        let segment = if environment.is_empty() { "" } else { "/prod" };
        let place = format!(
            "openbao secret/data/fractalops/default/runtime-providers/cliproxy{segment}/secrets#CODEX_OAUTH_BUNDLE"
        );
        assert_eq!(now["source"], place.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_name_the_place_and_say_until_when_and_when_again() {
    let Some(bao) = Bao::start().await else { return };
    bao.kv().await;
    bao.put("app", "token", SECRET).await;
    let world = World::new(&bao.source("{token: {file: bao_token}}", ""), &source("secret/data/app", "token"));
    let run = |args: &[&str]| {
        let output = attache_tests::attache::run(&world.config(), args);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let checked = run(&["check"]);
    assert!(checked.contains("from    openbao secret/data/app#token"), "{checked}");
    let examined = run(&["doctor"]);
    assert!(examined.contains("nothing to log in with for openbao secret/data/app#token"), "{examined}");
    world.deliver("bao_token", &bao.root);
    let examined = run(&["doctor"]);
    assert!(!examined.contains("nothing to log in with"), "{examined}");
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    let listed = run(&["credential", "list"]);
    assert!(listed.contains("EXPIRES") && listed.contains("NEXT") && listed.contains("in 0s"), "{listed}");
    let tested = run(&["credential", "test", "it"]);
    assert!(tested.contains("from openbao secret/data/app#token"), "{tested}");
    let examined = run(&["doctor"]);
    assert!(!examined.contains("has no secret"), "{examined}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_a_death_and_a_late_start_pass_and_what_is_valid_is_used_meanwhile() {
    let Some(bao) = Bao::of(Setup { durable: true, ..Setup::default() }).await else { return };
    bao.kv().await;
    bao.put("app", "token", SECRET).await;
    bao.kill();
    // The broker is there first.
    let world = World::new(&bao.source(TOKEN, ""), &source("secret/data/app", "token"));
    let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
    let now = until_says(&broker, "it cannot be reached").await;
    assert!(now["fingerprint"].is_null() && now["next_ms"].is_u64(), "{now:#}");
    let ready = world.ready().await;
    assert!(ready.contains("it cannot be reached") && ready.contains("tries again by itself"), "{ready}");
    bao.restart().await;
    let fingerprint = until_well(&broker).await["fingerprint"].clone();
    bao.seal().await;
    let now = until_says(&broker, "it is sealed").await;
    assert_eq!(now["fingerprint"], fingerprint, "what was found is good: {now:#}");
    assert!(now["error"].is_null(), "{now:#}");
    bao.unseal().await;
    until_well(&broker).await;
    bao.kill();
    let now = until_says(&broker, "it cannot be reached").await;
    assert_eq!(now["fingerprint"], fingerprint);
    bao.restart().await;
    until_well(&broker).await;
    // What it tells where there is nothing, and it is sealed.
    bao.seal().await;
    let cold = World::new(&bao.source(TOKEN, ""), &source("secret/data/app", "token"));
    let broker = cold.serve(&[("BAO_TOKEN", &bao.root)]).await;
    let now = until_says(&broker, "it is sealed").await;
    assert!(now["error"].is_string() && says(&now).contains("unseal it"), "{now:#}");
    bao.unseal().await;
    until_well(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_or_is_not_openbao_is_told() {
    let silent = std::net::TcpListener::bind(util::any_port()).expect("a port");
    let at = |addr: std::net::SocketAddr| {
        format!("sources:\n  openbao: {{address: 'http://{addr}', auth: {TOKEN}, refresh: 1s}}\n")
    };
    let token = "hvs.a-token-that-nobody-may-see-0123456789";
    let world = World::new(&at(silent.local_addr().expect("an address")), &source("secret/data/app", "token"));
    let began = Instant::now();
    let broker = world.serve(&[("BAO_TOKEN", token)]).await;
    assert!(began.elapsed() < Duration::from_secs(15), "its start waits no longer than one question may take");
    until_says(&broker, "it has not answered within 5 s").await;
    drop(broker);
    let answers = [
        ("200 OK", "<html>a-page-with-s3cret-words</html>", "does not answer as OpenBao does"),
        ("404 Not Found", "<html>a-page-with-s3cret-words</html>", "does not answer as OpenBao does"),
        ("307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/v1/x", "", "sends on to a node"),
        ("429 Too Many Requests", "{\"errors\":[\"s3cret-words\"]}", "too many requests"),
        ("502 Bad Gateway", "s3cret-words", "it fails (HTTP 502)"),
    ];
    for (status, body, words) in answers {
        let addr = stand_in(status, body).await;
        let world = World::new(&at(addr), &source("secret/data/app", "token"));
        let broker = world.serve(&[("BAO_TOKEN", token)]).await;
        let now = until_says(&broker, words).await;
        let everything = world.everything(&broker);
        assert!(!everything.contains("s3cret") && !everything.contains(token), "{now:#}");
    }
    util::eventually(SOON, || true).await;
}

/// A standby's answer is a 307 to the active node. A stand-in gives it, for a second real node takes a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_may_send_on_to_a_node_that_the_config_names_and_to_nobody_else() {
    let Some(bao) = Bao::start().await else { return };
    bao.kv().await;
    bao.put("app", "token", SECRET).await;
    let standby = standby_of(bao.tls).await;
    for named in [true, false] {
        let nodes = if named { format!(", nodes: ['https://{}']", bao.tls) } else { String::new() };
        let sources =
            bao.source(TOKEN, &nodes).replace(&format!("https://{}', ca", bao.tls), &format!("http://{standby}', ca"));
        let world = World::new(&sources, &source("secret/data/app", "token"));
        let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
        if named {
            until_well(&broker).await;
        } else {
            let now = until_says(&broker, "it is a standby").await;
            assert!(says(&now).contains("sources.openbao.nodes"), "{now:#}");
        }
    }
}

async fn standby_of(active: std::net::SocketAddr) -> std::net::SocketAddr {
    answering(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://{active}{path}\r\ncontent-length: 0\r\nconnection: \
             close\r\n\r\n"
        )
    })
    .await
}

/// Answers everything alike.
async fn stand_in(status: &'static str, body: &'static str) -> std::net::SocketAddr {
    let length = body.len();
    answering(move |_| format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"))
        .await
}

async fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(util::any_port()).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let answer = answer(&String::from_utf8_lossy(&head[..read]));
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    addr
}
