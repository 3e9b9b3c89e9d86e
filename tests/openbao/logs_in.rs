//! Who the broker is to OpenBao: tokens, AppRole, wrapped SecretIDs, JWTs, and what is said when it is nobody.

use std::time::{Duration, Instant};

use attache_tests::util;
use serde_json::{Value, json};

use crate::jwt::{Key, Review};
use crate::server::{Bao, Setup};
use crate::world::{SOON, World, says, standing, until, until_says, until_well};

const SECRET: &str = "the-secret-of-the-vault-0123456789";
const READ: &str = "path \"secret/data/*\" { capabilities = [\"read\"] }";
const APP: &str = "{openbao: {path: secret/data/app, field: token}}";
const CREATION: &str = "auth/approle/role/attache/secret-id";

/// One with a secret, and a policy that reads it.
async fn filled() -> Option<Bao> {
    let bao = Bao::start().await?;
    fill(&bao).await;
    Some(bao)
}

async fn fill(bao: &Bao) {
    bao.kv().await;
    bao.put("app", "token", SECRET).await;
    bao.policy("reader", READ).await;
}

fn wrapped(role: &str, how: &str) -> String {
    format!("{{approle: {{role_id: '{role}', wrapped_secret_id: {how}, creation_path: {CREATION}}}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_ahead_of_its_end_and_a_new_one_is_taken_from_its_file() {
    let Some(bao) = filled().await else { return };
    let token = bao.token(json!({"policies": ["reader"], "ttl": "3s", "period": "3s"})).await;
    let world = World::new(&bao.source("{token: {file: bao_token}}", ""), APP);
    world.deliver("bao_token", &token);
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    // Three times as long as it would live by itself.
    let end = Instant::now() + Duration::from_secs(9);
    while Instant::now() < end {
        let now = standing(&broker);
        assert!(now["error"].is_null() && now["trouble"].is_null(), "{now:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bao.done("POST", "auth/token/revoke", json!({"token": token})).await;
    let now = until_says(&broker, "it does not accept our token").await;
    assert!(says(&now).contains("give the broker a new token"), "{now:#}");
    let next = bao.token(json!({"policies": ["reader"], "ttl": "1h"})).await;
    world.deliver("bao_token", &next);
    until_well(&broker).await;
    let everything = world.everything(&broker);
    for secret in [&token, &next, &SECRET.to_owned()] {
        assert!(!everything.contains(secret.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_few_uses_is_understood() {
    let Some(bao) = filled().await else { return };
    // One to look at itself, two to read.
    let token = bao.token(json!({"policies": ["reader"], "ttl": "1h", "num_uses": 3})).await;
    let world = World::new(&bao.source("{token: {env: BAO_TOKEN}}", ""), APP);
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    assert!(standing(&broker)["fingerprint"].is_string());
    until_says(&broker, "all uses of our token are made").await;
    let role = bao.approle(json!({"token_policies": ["reader"], "token_num_uses": 2})).await;
    let world =
        World::new(&bao.source(&format!("{{approle: {{role_id: '{role}', secret_id: {{file: sid}}}}}}"), ""), APP);
    world.deliver("sid", &bao.secret_id(json!({})).await);
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    let tested = |_| {
        let tested = broker.json(&["credential", "test", "it"]);
        assert!(tested["fingerprint"].is_string() && tested["error"].is_null(), "{tested:#}");
    };
    (0..6).for_each(tested);
}

#[tokio::test(flavor = "multi_thread")]
async fn approle_logs_in_anew_when_its_token_is_over_and_gives_it_back_at_the_end() {
    let Some(bao) = filled().await else { return };
    let role = bao.approle(json!({"token_policies": ["reader"], "token_ttl": "2s", "token_max_ttl": "4s"})).await;
    let auth = format!("{{approle: {{role_id: '{role}', secret_id: {{file: sid}}, mount: approle}}}}");
    let world = World::new(&bao.source(&auth, ""), APP);
    let secret_id = bao.secret_id(json!({})).await;
    world.deliver("sid", &secret_id);
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let now = standing(&broker);
        assert!(now["error"].is_null() && now["trouble"].is_null(), "{now:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(!world.everything(&broker).contains(&secret_id));
    broker.signal("TERM");
    util::eventually(SOON, || !broker.alive()).await;
    let end = Instant::now() + SOON;
    // Those of the test itself stay: root's.
    while accessors(&bao).await > 1 {
        assert!(Instant::now() < end, "a token is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn accessors(bao: &Bao) -> usize {
    let said = bao.call("LIST", "auth/token/accessors", &bao.root, None).await;
    said.body["data"]["keys"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_secret_id_is_unwrapped_once_and_its_file_erased() {
    let Some(bao) = filled().await else { return };
    let role = bao.approle(json!({"token_policies": ["reader"], "token_ttl": "1h"})).await;
    let world = World::new(&bao.source(&wrapped(&role, "{file: wrapped}"), ""), APP);
    let broker = world.serve(&[]).await;
    until_says(&broker, "no wrapped SecretID is there").await;
    let token = bao.wrapped(CREATION, json!({})).await;
    world.deliver("wrapped", &token);
    until_well(&broker).await;
    assert!(!world.has("wrapped"), "its file is erased");
    assert!(!world.everything(&broker).contains(&token));
    assert!(world.records("alarm").is_empty());
    // What was unwrapped once lives in memory only.
    broker.restart().await;
    until_says(&broker, "no wrapped SecretID is there").await;
    world.deliver("wrapped", &bao.wrapped(CREATION, json!({})).await);
    until_well(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_secret_id_comes_by_a_variable_or_a_line_too() {
    let Some(bao) = filled().await else { return };
    let role = bao.approle(json!({"token_policies": ["reader"]})).await;
    let world = World::new(&bao.source(&wrapped(&role, "{env: WRAPPED}"), ""), APP);
    let token = bao.wrapped(CREATION, json!({})).await;
    until_well(&world.serve(&[("WRAPPED", &token)]).await).await;
    let world = World::new(&bao.source(&wrapped(&role, "stdin"), ""), APP);
    let token = bao.wrapped(CREATION, json!({})).await;
    let script = format!("exec \"$0\" \"$@\" <<'END'\n{token}\nEND");
    let under = ["bash", "-c", &script].map(str::to_owned);
    let broker = attache_tests::Attache::serve_under(&under, &world.config(), &[]).await;
    until_well(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_secret_id_that_somebody_else_had_is_refused_and_raises_an_alarm_once() {
    let Some(bao) = filled().await else { return };
    let role = bao.approle(json!({"token_policies": ["reader"]})).await;
    let world = World::new(&bao.source(&wrapped(&role, "{file: wrapped}"), ""), APP);
    // Somebody was quicker.
    let token = bao.wrapped(CREATION, json!({})).await;
    assert_eq!(bao.call("POST", "sys/wrapping/unwrap", &token, None).await.status, 200);
    world.deliver("wrapped", &token);
    let broker = world.serve(&[]).await;
    let now = until_says(&broker, "ALARM: the wrapping token").await;
    assert!(says(&now).contains("is used already") && says(&now).contains("find out who had it"), "{now:#}");
    assert!(world.has("wrapped"), "it stays, to be looked at");
    let ready = world.ready().await;
    assert!(ready.contains("credential it") && ready.contains("ALARM") && ready.contains("find out who"), "{ready}");
    util::eventually(SOON, || world.records("alarm").len() == 1).await;
    // Somebody has put one of his own in its place.
    let forged = bao.wrapped("sys/wrapping/wrap", json!({"secret_id": "his-own-secret-id"})).await;
    world.deliver("wrapped", &forged);
    let now = until_says(&broker, "was not made by the configured creation_path").await;
    assert!(now["fingerprint"].is_null(), "{now:#}");
    // It was not unwrapped.
    let looked = bao.call("POST", "sys/wrapping/lookup", "", Some(json!({"token": forged}))).await;
    assert_eq!(looked.status, 200, "{looked:?}");
    util::eventually(SOON, || world.records("alarm").len() == 2).await;
    broker.cli(&["credential", "test", "it"]);
    assert_eq!(world.records("alarm").len(), 2, "each once");
    let ready = broker.cli(&["credential", "test", "it"]);
    assert_eq!(ready.status.code(), Some(1));
    world.deliver("wrapped", &bao.wrapped(CREATION, json!({})).await);
    until_well(&broker).await;
    let everything = world.everything(&broker);
    assert!(![token, forged].iter().any(|token| everything.contains(token.as_str())));
    let log = std::fs::read_to_string(broker.log_path()).expect("its log");
    assert!(log.contains("ERROR") && log.contains("ALARM"), "an error in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_brokers_that_get_the_same_wrapping_one_wins_and_the_other_raises_an_alarm() {
    let Some(bao) = filled().await else { return };
    let role = bao.approle(json!({"token_policies": ["reader"]})).await;
    let source = bao.source(&wrapped(&role, "{file: wrapped}"), "");
    let worlds = [World::new(&source, APP), World::new(&source, APP)];
    let token = bao.wrapped(CREATION, json!({})).await;
    worlds.iter().for_each(|world| world.deliver("wrapped", &token));
    let [one, two] = &worlds;
    let (one_broker, two_broker) = tokio::join!(one.serve(&[]), two.serve(&[]));
    let end = Instant::now() + SOON;
    loop {
        let stand = [&one_broker, &two_broker].map(standing);
        let won = stand.iter().filter(|one| one["fingerprint"].is_string()).count();
        let alarms: usize = worlds.iter().map(|world| world.records("alarm").len()).sum();
        if (won, alarms) == (1, 1) {
            break;
        }
        assert!(won < 2 && alarms < 2 && Instant::now() < end, "{won} won, {alarms} alarms: {stand:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_of_an_identity_provider_logs_in_and_each_login_reads_it_anew() {
    let Some(bao) = filled().await else { return };
    let key = Key::new();
    bao.done("POST", "sys/auth/jwt", json!({"type": "jwt"})).await;
    bao.done("POST", "auth/jwt/config", json!({"jwt_validation_pubkeys": [key.public_pem()]})).await;
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["bao"], "bound_subject": "attache",
                      "token_policies": ["reader"], "token_ttl": "2s", "token_max_ttl": "3s"});
    bao.done("POST", "auth/jwt/role/attache", role).await;
    let sign = |subject: &str| {
        key.sign(&json!({"sub": subject, "aud": "bao", "iat": util::wall_ms() / 1000 - 5, "exp": util::wall_ms() / 1000 + 300}))
    };
    let world = World::new(&bao.source("{jwt: {role: attache, jwt: {file: id.jwt}}}", ""), APP);
    let good = sign("attache");
    std::fs::write(world.path("id.jwt"), &good).expect("a JWT");
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    std::fs::write(world.path("id.jwt"), sign("somebody else")).expect("a JWT");
    until_says(&broker, "it does not let us log in at auth/jwt").await;
    std::fs::write(world.path("id.jwt"), &good).expect("a JWT");
    until_well(&broker).await;
    assert!(!world.everything(&broker).contains(&good));
}

/// Without a cluster: its API server is a stand-in that keeps the documented contract of TokenReview
/// (authentication.k8s.io/v1), and OpenBao's own method asks it.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_of_kubernetes_logs_in() {
    let Some(bao) = filled().await else { return };
    let key = Key::new();
    let jwt = key.sign_as(
        "RS256",
        &json!({
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:agents:attache", "aud": ["bao"],
            "iat": util::wall_ms() / 1000 - 5, "exp": util::wall_ms() / 1000 + 300,
            "kubernetes.io": {"namespace": "agents", "serviceaccount": {"name": "attache", "uid": "u-1"}},
        }),
    );
    let review = Review::start(&jwt).await;
    bao.done("POST", "sys/auth/kubernetes", json!({"type": "kubernetes"})).await;
    let config = json!({"kubernetes_host": format!("http://{}", review.addr), "token_reviewer_jwt": jwt,
                        "kubernetes_ca_cert": bao.ca.pem(), "disable_local_ca_jwt": true, "disable_iss_validation": true});
    bao.done("POST", "auth/kubernetes/config", config).await;
    let role = json!({"bound_service_account_names": ["attache"], "bound_service_account_namespaces": ["agents"],
                      "token_policies": ["reader"]});
    bao.done("POST", "auth/kubernetes/role/attache", role).await;
    let auth = "{kubernetes: {role: attache, jwt_file: sa-token}}";
    let world = World::new(&bao.source(auth, ""), APP);
    std::fs::write(world.path("sa-token"), &jwt).expect("a token");
    let broker = world.serve(&[]).await;
    until_well(&broker).await;
    assert!(review.asked() > 0);
    assert!(!world.everything(&broker).contains(&jwt));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_where_everything_is_asked() {
    let Some(bao) = Bao::start().await else { return };
    bao.done("POST", "sys/namespaces/team-a", json!({})).await;
    let ns = async |method: &str, path: &str, body: Value| {
        let said = bao.call_in("team-a", method, path, &bao.root, Some(body), None).await;
        assert!(said.status < 300, "{path}: {said:?}");
        said.body
    };
    ns("POST", "sys/mounts/kv", json!({"type": "kv"})).await;
    ns("POST", "kv/app", json!({"token": SECRET})).await;
    let token = ns("POST", "auth/token/create", json!({"policies": ["default"], "ttl": "1h"})).await;
    let token = token["auth"]["client_token"].as_str().expect("a token").to_owned();
    ns("PUT", "sys/policies/acl/default", json!({"policy": "path \"kv/*\" { capabilities = [\"read\"] }"})).await;
    let source = "{openbao: {path: kv/app, field: token}}";
    let world = World::new(&bao.source("{token: {env: BAO_TOKEN}}", ", namespace: team-a"), source);
    until_well(&world.serve(&[("BAO_TOKEN", &token)]).await).await;
    let world = World::new(&bao.source("{token: {env: BAO_TOKEN}}", ", namespace: team-b"), source);
    let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
    until_says(&broker, "it has no such namespace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_other_addresses_is_explained() {
    let Some(bao) = filled().await else { return };
    let elsewhere = json!(["192.0.2.0/24"]);
    let role = bao.approle(json!({"token_policies": ["reader"], "secret_id_bound_cidrs": elsewhere})).await;
    let auth = format!("{{approle: {{role_id: '{role}', secret_id: {{file: sid}}}}}}");
    let world = World::new(&bao.source(&auth, ""), APP);
    world.deliver("sid", &bao.secret_id(json!({})).await);
    let broker = world.serve(&[]).await;
    let now = until_says(&broker, "it does not let us log in from this machine's address").await;
    assert!(says(&now).contains("secret_id_bound_cidrs"), "{now:#}");
    // A token that is good from elsewhere alone cannot be told from one that is over: both are named.
    bao.done("POST", "auth/token/roles/bound", json!({"token_bound_cidrs": elsewhere, "allowed_policies": ["reader"]}))
        .await;
    let made = bao.done("POST", "auth/token/create/bound", json!({"policies": ["reader"]})).await;
    let token = made["auth"]["client_token"].as_str().expect("a token").to_owned();
    let world = World::new(&bao.source("{token: {env: BAO_TOKEN}}", ""), APP);
    let broker = world.serve(&[("BAO_TOKEN", &token)]).await;
    let now = until_says(&broker, "is bound to other addresses").await;
    assert!(says(&now).contains("bound_cidrs"), "{now:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_and_a_token_for_this_machines_address_work() {
    let Some(bao) = filled().await else { return };
    let here = json!(["127.0.0.0/8"]);
    let role = bao
        .approle(json!({"token_policies": ["reader"], "secret_id_bound_cidrs": here, "token_bound_cidrs": here}))
        .await;
    let auth = format!("{{approle: {{role_id: '{role}', secret_id: {{file: sid}}}}}}");
    let world = World::new(&bao.source(&auth, ""), APP);
    world.deliver("sid", &bao.secret_id(json!({})).await);
    until_well(&world.serve(&[]).await).await;
    bao.done("POST", "auth/token/roles/bound", json!({"token_bound_cidrs": here, "allowed_policies": ["reader"]}))
        .await;
    let made = bao.done("POST", "auth/token/create/bound", json!({"policies": ["reader"]})).await;
    let token = made["auth"]["client_token"].as_str().expect("a token").to_owned();
    let bound = bao.done("POST", "auth/token/lookup", json!({"token": token})).await;
    assert_eq!(bound["data"]["bound_cidrs"], here, "{bound:#}");
    let world = World::new(&bao.source("{token: {env: BAO_TOKEN}}", ""), APP);
    until_well(&world.serve(&[("BAO_TOKEN", &token)]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_both_sides_are_demanded_and_a_wrong_one_is_explained() {
    let Some(bao) = Bao::of(Setup { mutual: true, ..Setup::default() }).await else { return };
    fill(&bao).await;
    let token = bao.token(json!({"policies": ["reader"], "ttl": "1h"})).await;
    let env = [("BAO_TOKEN", token.as_str())];
    let files = ", client_certificate_file: client.pem, client_key_file: client.key";
    let auth = "{token: {env: BAO_TOKEN}}";
    let shown = async |ca: &attache_tests::Ca, words: Option<&'static str>| {
        let world = World::new(&bao.source(auth, files), APP);
        let leaf = ca.issue_client("spiffe://example.org/attache");
        let (certificate, key) = leaf.pems();
        std::fs::write(world.path("client.pem"), certificate).expect("a certificate");
        std::fs::write(world.path("client.key"), key).expect("a key");
        let broker = world.serve(&env).await;
        match words {
            None => until_well(&broker).await,
            Some(words) => until_says(&broker, words).await,
        };
    };
    let stranger = attache_tests::Ca::new();
    shown(&bao.ca, None).await;
    shown(&stranger, Some("it does not accept our certificate")).await;
    let world = World::new(&bao.source(auth, ""), APP);
    until_says(&world.serve(&env).await, "it does not accept our certificate, or there is none to show").await;
    let world = World::new(&bao.source_at(&stranger.pem_path(), auth, ""), APP);
    let now =
        until_says(&world.serve(&env).await, "its certificate is not signed by an authority that is trusted here")
            .await;
    assert!(says(&now).contains("sources.openbao.ca_file"), "{now:#}");
    let world = World::new(&bao.source_at(std::path::Path::new("nowhere.pem"), auth, ""), APP);
    until_says(&world.serve(&env).await, "there is no such file").await;
    let other = bao.source(auth, files).replace("https://127.0.0.1", "https://[::1]");
    let world = World::new(&other, APP);
    until(&world.serve(&env).await, |now| now["error"].is_string()).await;
}
