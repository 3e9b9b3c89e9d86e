//! What is leased: renewed while it can be, another ahead of its end, given back at the end, and used to its end when
//! OpenBao is away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use attache_tests::stack::Plan;
use attache_tests::{Attache, util};
use serde_json::json;

use crate::postgres::Postgres;
use crate::server::{Bao, Setup};
use crate::world::{SOON, World, standing, until, until_well};

const SECRET: &str = "the-leased-secret-0123456789abcdef";
pub const TOKEN: &str = "{token: {env: BAO_TOKEN}}";
pub const LEASED: &str = "{openbao: {path: leased/app, field: token}}";

/// KV version 1 that gives leases: what OpenBao has of its own, without another server.
pub async fn leased(setup: Setup, ttl: &str, most: &str) -> Option<Bao> {
    let bao = Bao::of(setup).await?;
    let options = json!({"version": "1", "leased_passthrough": "true"});
    bao.mount("leased", json!({"type": "kv", "options": options, "config": {"max_lease_ttl": most}})).await;
    bao.done("POST", "leased/app", json!({"token": SECRET, "ttl": ttl})).await;
    Some(bao)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_somebody_revokes_is_followed_by_another_which_is_given_back_at_the_end() {
    let Some(bao) = leased(Setup::default(), "1h", "2h").await else { return };
    let world = World::new(&bao.source(TOKEN, ""), LEASED);
    let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
    let now = until_well(&broker).await;
    let left = now["expires_ms"].as_u64().expect("it is leased").saturating_sub(util::wall_ms());
    assert!(left <= 3_600_000, "{now:#}");
    let first = bao.leases("leased/app").await;
    assert_eq!(first.len(), 1);
    bao.done("PUT", "sys/leases/revoke-prefix/leased/app", json!(null)).await;
    let end = Instant::now() + SOON;
    while bao.leases("leased/app").await.iter().all(|lease| first.contains(lease)) {
        assert!(Instant::now() < end, "another is not leased");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gives_back(&bao, &broker, "leased/app").await;
}

/// This OpenBao breaks the connection when a lease of KV is renewed, as any may that is not well.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_renewed_is_leased_anew_ahead_of_its_end() {
    let Some(bao) = leased(Setup::default(), "4s", "1h").await else { return };
    let world = World::new(&bao.source(TOKEN, ""), LEASED);
    let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
    until_well(&broker).await;
    let mut seen = BTreeSet::new();
    let end = Instant::now() + SOON;
    while seen.len() < 3 {
        seen.extend(bao.leases("leased/app").await);
        let now = standing(&broker);
        assert!(now["error"].is_null(), "there is always one that is good: {now:#}");
        assert!(Instant::now() < end, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gives_back(&bao, &broker, "leased/app").await;
}

/// Ends the broker: what it had leased is gone, those too in whose place others had come.
async fn gives_back(bao: &Bao, broker: &Attache, prefix: &str) {
    broker.signal("TERM");
    util::eventually(SOON, || !broker.alive()).await;
    // OpenBao revokes behind our back; by themselves they would live on.
    let end = Instant::now() + Duration::from_secs(3);
    while !bao.leases(prefix).await.is_empty() {
        assert!(Instant::now() < end, "a lease is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_leased_ends_with_its_token_and_another_is_there_in_time() {
    let Some(bao) = leased(Setup::default(), "1h", "2h").await else { return };
    bao.policy("reader", "path \"leased/*\" { capabilities = [\"read\"] }").await;
    let role = bao.approle(json!({"token_policies": ["reader"], "token_ttl": "3s", "token_max_ttl": "6s"})).await;
    let auth = format!("{{approle: {{role_id: '{role}', secret_id: {{file: sid}}}}}}");
    let world = World::new(&bao.source(&auth, ""), LEASED);
    world.deliver("sid", &bao.secret_id(json!({})).await);
    let broker = world.serve(&[]).await;
    let now = until_well(&broker).await;
    assert!(now["expires_ms"].as_u64().is_some_and(|ends| ends <= util::wall_ms() + 3_000), "{now:#}");
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        let now = standing(&broker);
        assert!(now["error"].is_null() && now["trouble"].is_null(), "{now:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Its policies revoke no lease: the token is given back, and the lease with it.
    gives_back(&bao, &broker, "leased/app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_a_database_is_leased_renewed_replaced_and_revoked() {
    let Some(bao) = Bao::start().await else { return };
    let Some(postgres) = Postgres::start().await else { return };
    bao.mount("database", json!({"type": "database"})).await;
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": postgres.user,
        "password": postgres.password,
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{}/postgres?sslmode=disable", postgres.addr),
    });
    bao.done("POST", "database/config/pg", connection).await;
    let create = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';";
    let role =
        |most: &str| json!({"db_name": "pg", "creation_statements": [create], "default_ttl": "4s", "max_ttl": most});
    bao.done("POST", "database/roles/long", role("1h")).await;
    bao.done("POST", "database/roles/short", role("10s")).await;
    let served = async |role: &str| {
        let world = World::new(
            &bao.source(TOKEN, ""),
            &format!("{{openbao: {{path: database/creds/{role}, field: password}}}}"),
        );
        let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
        let first = until_well(&broker).await;
        assert_eq!(first["source"], format!("openbao database/creds/{role}#password"));
        (world, broker, first)
    };
    let (_world, broker, first) = served("long").await;
    let mut seen = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        seen.extend(bao.leases("database/creds/long").await);
        let now = standing(&broker);
        assert!(now["error"].is_null() && now["fingerprint"] == first["fingerprint"], "{now:#}");
        assert!(now["expires_ms"].as_u64().is_some_and(|ends| ends > util::wall_ms()), "{now:#}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(seen.len(), 1, "renewed, and not read anew: {seen:?}");
    gives_back(&bao, &broker, "database/creds/long").await;
    // Near its maximum another takes its place, ahead of its end.
    let (_world, broker, first) = served("short").await;
    let next = until(&broker, |now| {
        assert!(now["error"].is_null(), "{now:#}");
        now["fingerprint"] != first["fingerprint"]
    });
    next.await;
    gives_back(&bao, &broker, "database/creds/short").await;
    let world = World::new(&bao.source(TOKEN, ""), "{openbao: {path: database/creds/none, field: password}}");
    let broker = world.serve(&[("BAO_TOKEN", &bao.root)]).await;
    crate::world::until_says(&broker, "it does not take this question (HTTP 400)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_a_dead_openbao_is_noticed_by_nobody_until_nothing_valid_is_left() {
    let Some(bao) = leased(Setup { durable: true, ..Setup::default() }, "8s", "1h").await else { return };
    let yaml = "{source: {openbao: {path: leased/app, field: token}}, inject: bearer, destinations: [{host: \
                app.extra.test, upstream: DIAL}], agent_env: {APP: placeholder}}";
    let stack = Plan::default()
        .credential("app", SECRET, yaml)
        .session("{name: app, credentials: [app]}")
        .extra(&bao.source(TOKEN, ""))
        .env("BAO_TOKEN", &bao.root)
        .start()
        .await;
    let placeholder = stack.broker.exported("app", "APP");
    // Four at once; what one of them got that was not content.
    let status = async || {
        let one = async || {
            let answer = stack.get("app.extra.test", "/", &placeholder).await;
            (answer.status, answer.header("x-attache-reason"))
        };
        let all: [_; 4] = tokio::join!(one(), one(), one(), one()).into();
        // More than two hundred a second would only keep the oracle busy.
        tokio::time::sleep(Duration::from_millis(20)).await;
        all.into_iter().find(|(status, _)| *status != 200).unwrap_or((200, None))
    };
    let expires = || {
        let listed = stack.broker.json(&["credential", "list"]);
        let app = listed.as_array().and_then(|all| all.iter().find(|one| one["name"] == "app")).cloned();
        app.and_then(|app| app["expires_ms"].as_u64()).expect("it is leased")
    };
    assert_eq!(status().await.0, 200);
    bao.kill();
    // What was on its way is over; the end does not move any longer.
    let mut ends = expires();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        ends = ends.max(expires());
        assert_eq!(status().await.0, 200);
    }
    let end = Instant::now() + SOON;
    let refused = loop {
        let (status, reason) = status().await;
        if status != 200 {
            break (status, reason.unwrap_or_default(), util::wall_ms());
        }
        assert!(Instant::now() < end, "it never ends");
    };
    assert_eq!((refused.0, refused.1.as_str()), (503, "source_unavailable"));
    assert!(refused.2 + 1_000 >= ends, "{} ms before its end", ends - refused.2);
    bao.restart().await;
    let end = Instant::now() + SOON;
    while status().await.0 != 200 {
        assert!(Instant::now() < end, "it does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Sealed for less than what is leased lives: nobody notices.
    let end = Instant::now() + SOON;
    while expires() < util::wall_ms() + 5_000 {
        assert!(Instant::now() < end, "no lease is fresh");
    }
    bao.seal().await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(status().await, (200, None));
    }
    bao.unseal().await;
    assert_eq!(status().await, (200, None));
    stack.reconcile().await;
}
