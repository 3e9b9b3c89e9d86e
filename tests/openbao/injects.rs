//! From OpenBao to the upstream, through a real Envoy.

use std::time::Instant;

use attache_tests::stack::Plan;
use serde_json::json;

use crate::server::Bao;
use crate::world::SOON;

const FIRST: &str = "the-first-secret-of-kv-0123456789";
const SECOND: &str = "the-second-secret-of-kv-9876543210";
const KEPT: &str = "the-secret-whose-version-is-named-1";
const PINNED: &str = "{source: {openbao: {path: secret/data/pin, field: token, version: 1}}, inject: bearer, \
                      destinations: [{host: pinned.extra.test, upstream: DIAL}], agent_env: {PINNED: placeholder}}";
const LATEST: &str = "{source: {openbao: {path: secret/data/app, field: token}}, inject: bearer, \
                      destinations: [{host: latest.extra.test, upstream: DIAL}], agent_env: {LATEST: placeholder}}";

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_kv_is_injected_and_a_new_version_takes_its_place_unless_one_is_named() {
    let Some(bao) = Bao::start().await else { return };
    bao.kv().await;
    assert_eq!(bao.put("app", "token", FIRST).await, 1);
    assert_eq!(bao.put("pin", "token", KEPT).await, 1);
    let token = bao.token(json!({"policies": ["root"], "ttl": "1h"})).await;
    let stack = Plan::default()
        .credential("pinned", KEPT, PINNED)
        .credential("latest", FIRST, LATEST)
        .session("{name: app, credentials: [pinned, latest]}")
        .extra(&bao.source("{token: {env: BAO_TOKEN}}", ""))
        .env("BAO_TOKEN", &token)
        .start()
        .await;
    stack.site.secrets.add("latest", SECOND);
    let (pinned, latest) = (stack.broker.exported("app", "PINNED"), stack.broker.exported("app", "LATEST"));
    let hit = async |host: &str, placeholder: &str| {
        let answer = stack.get(host, "/", placeholder).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        stack.upstream().requests().last().and_then(|hit| hit.header("authorization")).expect("a hit")
    };
    assert_eq!(hit("pinned.extra.test", &pinned).await, format!("Bearer {KEPT}"));
    assert_eq!(hit("latest.extra.test", &latest).await, format!("Bearer {FIRST}"));
    assert_eq!(bao.put("app", "token", SECOND).await, 2);
    assert_eq!(bao.put("pin", "token", "another-that-nobody-has-named-0").await, 2);
    let end = Instant::now() + SOON;
    while hit("latest.extra.test", &latest).await != format!("Bearer {SECOND}") {
        assert!(Instant::now() < end, "never picked up");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(hit("pinned.extra.test", &pinned).await, format!("Bearer {KEPT}"));
    let listed = stack.broker.json(&["credential", "list"]);
    let places: Vec<_> = listed.as_array().expect("a list").iter().filter_map(|one| one["source"].as_str()).collect();
    assert!(places.contains(&"openbao secret/data/app#token"), "{places:?}");
    assert!(places.contains(&"openbao secret/data/pin#token (version 1)"), "{places:?}");
    stack.reconcile().await;
}
