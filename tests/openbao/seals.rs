//! Transit opens the state directory: its key never leaves OpenBao, and without OpenBao nothing starts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attache_tests::{Attache, util};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Bao, Setup};
use crate::world::{SOON, World, until_well};

const SECRET: &str = "the-secret-of-a-file-0123456789abcdef";
const FILE: &str = "{file: it}";
const TOKEN: &str = "{token: {env: BAO_TOKEN}}";
const SEAL: &str = "state: {seal: {transit: {key: attache}}}\n";
const SEALER: &str = "path \"transit/encrypt/attache\" { capabilities = [\"update\"] }\npath \"transit/decrypt/attache\" { \
                      capabilities = [\"update\"] }";

/// One with the engine, a key, and a token that may use it and nothing else.
async fn transit(setup: Setup) -> Option<(Bao, String)> {
    let bao = Bao::of(setup).await?;
    bao.mount("transit", json!({"type": "transit"})).await;
    bao.done("POST", "transit/keys/attache", json!({})).await;
    bao.policy("sealer", SEALER).await;
    let token = bao.token(json!({"policies": ["sealer"], "ttl": "1h"})).await;
    Some((bao, token))
}

fn world(bao: &Bao, auth: &str, seal: &str) -> World {
    World::new(&format!("{seal}{}", bao.source(auth, "")), FILE)
}

/// Runs a command with this token; what it said, and whether it was content.
fn attache(world: &World, token: &str, args: &[&str], input: &str) -> (bool, String) {
    use std::io::Write as _;
    let mut command = Command::new(util::broker_bin());
    command.args(args).arg("--config").arg(world.config()).env("BAO_TOKEN", token);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!text.contains(token), "{text}");
    (output.status.success(), text)
}

async fn ended(broker: &Attache) {
    broker.signal("TERM");
    util::eventually(SOON, || !broker.alive()).await;
}

fn fingerprint(now: &Value) -> String {
    now["fingerprint"].as_str().expect("it is found").to_owned()
}

/// A broker that waits for OpenBao, as it says.
async fn waiting(world: &World, token: &str) -> Child {
    let log = world.path("waits.log");
    let stderr = std::fs::File::create(&log).expect("a log");
    let mut command = Command::new(util::broker_bin());
    command.args(["serve", "--config"]).arg(world.config()).env("BAO_TOKEN", token);
    let mut child = command.stdin(Stdio::null()).stderr(stderr).spawn().expect("it starts");
    util::eventually(SOON, || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting for OpenBao"))).await;
    assert!(child.try_wait().expect("a child").is_none(), "it waits");
    assert!(!world.path("state/default/runtime.json").exists(), "and serves nobody");
    child
}

async fn told_to_end_it_ends(mut child: Child) {
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    let status = util::eventually_some(Duration::from_secs(5), || child.try_wait().ok().flatten()).await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_directory_opens_by_transit_again_and_again_and_a_newer_version_of_its_key_is_taken() {
    let Some((bao, token)) = transit(Setup::default()).await else { return };
    let world = world(&bao, TOKEN, SEAL);
    let (good, said) = attache(&world, &token, &["credential", "set", "it"], SECRET);
    assert!(good && said.contains("sealed"), "{said}");
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    let first = fingerprint(&until_well(&broker).await);
    ended(&broker).await;
    assert!(world.records("start")[0].contains("sealed by transit transit/attache"), "{:?}", world.records("start"));
    let ciphertext = || {
        let text = std::fs::read_to_string(world.path("state/default/seal.json")).expect("the data keys");
        let ring: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(ring["keys"].as_array().map(Vec::len), Some(1));
        ring["keys"][0]["wraps"][0]["ciphertext"].as_str().expect("a ciphertext").to_owned()
    };
    assert!(ciphertext().starts_with("vault:v1:"), "{}", ciphertext());

    bao.done("POST", "transit/keys/attache/rotate", json!({})).await;
    for args in [&["state", "rekey"][..], &["state", "rekey", "--data-key"]] {
        let (good, said) = attache(&world, &token, args, "");
        assert!(good && said.contains("sealed by transit transit/attache"), "{said}");
        assert!(ciphertext().starts_with("vault:v2:"), "{}", ciphertext());
    }
    bao.done("POST", "transit/keys/attache/config", json!({"min_decryption_version": 2})).await;
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    assert_eq!(fingerprint(&until_well(&broker).await), first, "the instance key is what it was");
    ended(&broker).await;
    old_and_foreign_wraps(&bao, &world, &token).await;
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    assert_eq!(fingerprint(&until_well(&broker).await), first);
    let everything = world.everything(&broker);
    assert!(!everything.contains(&token) && !everything.contains(SECRET));
}

/// What a former version has wrapped, bound to nothing, opens, and is bound by the next `rekey`; what was bound to another
/// instance does not open here.
async fn old_and_foreign_wraps(bao: &Bao, world: &World, token: &str) {
    let path = world.path("state/default/seal.json");
    let text = std::fs::read_to_string(&path).expect("the data keys");
    let ring: Value = serde_json::from_str(&text).expect("JSON");
    let wrap = &ring["keys"][0]["wraps"][0];
    assert_eq!((&ring["format"], &wrap["version"]), (&json!("attache-seal:v2"), &json!(2)));
    let id = ring["keys"][0]["id"].as_str().expect("an id");
    let bound = |instance: &str| STANDARD.encode(format!("attache-seal\0{instance}\0data-key/{id}"));
    let body = json!({"ciphertext": wrap["ciphertext"], "associated_data": bound("default")});
    let plain = bao.done("POST", "transit/decrypt/attache", body).await["data"]["plaintext"].clone();
    let unbound = json!({"ciphertext": wrap["ciphertext"]});
    assert_eq!(bao.call("POST", "transit/decrypt/attache", token, Some(unbound)).await.status, 400);

    let wrapped = async |body: Value, version: Option<u8>| {
        let answer = bao.done("POST", "transit/encrypt/attache", body).await;
        let mut ring = ring.clone();
        ring["keys"][0]["wraps"][0]["ciphertext"] = answer["data"]["ciphertext"].clone();
        if version.is_none() {
            ring["format"] = json!("attache-seal:v1");
            ring["keys"][0]["wraps"][0].as_object_mut().expect("a wrap").remove("version");
        }
        std::fs::write(&path, ring.to_string()).expect("the data keys");
    };
    wrapped(json!({"plaintext": plain, "associated_data": bound("another")}), Some(2)).await;
    let (good, said) = attache(world, token, &["audit", "head"], "");
    assert!(!good && said.contains("whether seal.json is this instance's own"), "{said}");
    wrapped(json!({"plaintext": plain}), None).await;
    let (good, said) = attache(world, token, &["audit", "head"], "");
    assert!(good, "{said}");
    let (good, said) = attache(world, token, &["state", "rekey"], "");
    assert!(good, "{said}");
    let text = std::fs::read_to_string(&path).expect("the data keys");
    assert!(text.contains("attache-seal:v2") && text.contains("\"version\": 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_takes_no_associated_data_seals_all_the_same() {
    let Some((bao, _)) = transit(Setup::default()).await else { return };
    bao.done("POST", "transit/keys/rsa", json!({"type": "rsa-2048"})).await;
    bao.policy("rsa", &SEALER.replace("/attache", "/rsa")).await;
    let token = bao.token(json!({"policies": ["rsa"], "ttl": "1h"})).await;
    let world = world(&bao, TOKEN, "state: {seal: {transit: {key: rsa}}}\n");
    let (good, said) = attache(&world, &token, &["credential", "set", "it"], SECRET);
    assert!(good && said.contains("sealed"), "{said}");
    let text = std::fs::read_to_string(world.path("state/default/seal.json")).expect("the data keys");
    assert!(text.contains("attache-seal:v1") && !text.contains("version"), "{text}");
    let (good, said) = attache(&world, &token, &["state", "rekey", "--data-key"], "");
    assert!(good, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_key_to_transit_and_back_and_what_logs_in_there_stays_readable() {
    let Some((bao, token)) = transit(Setup::default()).await else { return };
    let auth = "{token: {file: bao_token}}";
    let plain = world(&bao, auth, "state: {seal: {file: seal.key}}\n");
    plain.deliver("bao_token", &token);
    plain.deliver("it", SECRET);
    let key = plain.path("seal.key").display().to_string();
    let run = |args: &[&str]| attache(&plain, "-none-", args, "");
    assert!(run(&["state", "new-key", &key]).0);
    let is_sealed = |name: &str| {
        let bytes = std::fs::read(plain.path("state/default/secrets").join(name)).expect("a file");
        bytes.starts_with(b"attache-sealed:v1:")
    };
    let (good, said) = run(&["state", "rekey"]);
    assert!(good && is_sealed("it") && is_sealed("bao_token"), "{said}");
    let broker = plain.serve(&[]).await;
    let first = fingerprint(&until_well(&broker).await);
    ended(&broker).await;

    let text = std::fs::read_to_string(plain.config()).expect("the config");
    std::fs::write(plain.config(), text.replace("state: {seal: {file: seal.key}}\n", SEAL)).expect("the config");
    let (good, said) = run(&["state", "rekey", "--old-key-file", &key, "--data-key"]);
    assert!(good && said.contains("transit transit/attache"), "{said}");
    assert!(is_sealed("it") && !is_sealed("bao_token"), "what opens the rest does not need the rest to be opened");
    let broker = plain.serve(&[]).await;
    assert_eq!(fingerprint(&until_well(&broker).await), first);
    ended(&broker).await;

    std::fs::write(plain.config(), text).expect("the config");
    let (good, said) = run(&["state", "rekey"]);
    assert!(good && said.contains("sealed by key"), "{said}");
    bao.kill();
    let broker = plain.serve(&[]).await;
    assert_eq!(fingerprint(&until_well(&broker).await), first, "OpenBao is not needed any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openbao_that_is_away_is_waited_for_and_one_that_refuses_ends_the_start_with_words() {
    let Some((bao, token)) = transit(Setup { durable: true, ..Setup::default() }).await else { return };
    let world = world(&bao, TOKEN, SEAL);
    world.deliver("it", SECRET);
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    let first = fingerprint(&until_well(&broker).await);
    ended(&broker).await;

    for (token, words) in [
        ("none", "does not accept our token"),
        (&bao.token(json!({"policies": ["default"], "ttl": "1h"})).await, "`update` on transit/encrypt/attache"),
    ] {
        let (good, said) = attache(&world, token, &["serve"], "");
        assert!(!good && said.contains(words) && said.contains("transit transit/attache"), "{said}");
    }
    bao.seal().await;
    let broker = waiting(&world, &token).await;
    bao.unseal().await;
    util::eventually(SOON, || world.path("state/default/runtime.json").exists()).await;
    told_to_end_it_ends(broker).await;

    bao.kill();
    told_to_end_it_ends(waiting(&world, &token).await).await;
    let began = Instant::now();
    let (good, said) = attache(&world, &token, &["serve"], "");
    assert!(!good && said.contains("waiting for OpenBao") && said.contains("it cannot be reached"), "{said}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(45), "a bounded time: {took:?}");
    bao.restart().await;
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    assert_eq!(fingerprint(&until_well(&broker).await), first);
}
