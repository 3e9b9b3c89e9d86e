//! The broker's wall clock is wrong, or jumps: what is leased lives by how long it was leased for, and no longer.

use std::time::{Duration, Instant};

use attache_tests::clock::Clock;
use attache_tests::util;
use serde_json::json;

use crate::leases::{LEASED, TOKEN, leased};
use crate::server::Setup;
use crate::world::{SOON, World, standing, until_says, until_well};

const HOUR: i64 = 3600;
const CREATION: &str = "auth/approle/role/attache/secret-id";

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_no_reason_to_end_a_lease_or_to_keep_one() {
    let Some(bao) = leased(Setup::default(), "4s", "1h").await else { return };
    for off in [-2 * HOUR, 2 * HOUR] {
        let clock = Clock::right();
        clock.off_by(off);
        let env = clock.env();
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let world = World::new(&bao.source(TOKEN, ""), LEASED);
        let broker = world.serve(&[&env[..], &[("BAO_TOKEN", &bao.root)]].concat()).await;
        let now = until_well(&broker).await;
        let its_time = util::wall_ms().saturating_add_signed(off * 1000);
        assert!(now["expires_ms"].as_u64().is_some_and(|ends| ends <= its_time + 4_000), "{now:#}");
        // Through two leases: each is replaced ahead of its end.
        let end = Instant::now() + Duration::from_secs(9);
        while Instant::now() < end {
            let now = standing(&broker);
            assert!(now["error"].is_null(), "{now:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A jump by an hour either way: what was leased by the clock of before counts as over, or lives no longer
        // than it would have; another comes.
        for jump in [off + HOUR, off - HOUR] {
            clock.off_by(jump);
            until_well(&broker).await;
            let end = Instant::now() + Duration::from_secs(6);
            let mut leases = Vec::new();
            while Instant::now() < end {
                leases.extend(bao.leases("leased/app").await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            leases.sort();
            leases.dedup();
            assert!(leases.len() >= 2, "another was leased within the life of one: {leases:?}");
            until_well(&broker).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapping_that_seems_to_be_of_another_time_is_an_alarm_and_is_not_used() {
    let Some(bao) = leased(Setup::default(), "1h", "2h").await else { return };
    bao.policy("reader", "path \"leased/*\" { capabilities = [\"read\"] }").await;
    let role = bao.approle(json!({"token_policies": ["reader"], "token_ttl": "1h"})).await;
    let auth =
        format!("{{approle: {{role_id: '{role}', wrapped_secret_id: {{file: wrapped}}, creation_path: {CREATION}}}}}");
    let clock = Clock::right();
    clock.off_by(-HOUR);
    let env = clock.env();
    let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let world = World::new(&bao.source(&auth, ""), LEASED);
    world.deliver("wrapped", &bao.wrapped(CREATION, json!({})).await);
    let broker = world.serve(&env).await;
    let now = until_says(&broker, "was made at another time").await;
    assert!(now["fix"].as_str().is_some_and(|fix| fix.contains("clocks")), "{now:#}");
    assert!(world.has("wrapped"), "it is left for whoever looks into it");
    util::eventually(SOON, || !world.records("alarm").is_empty()).await;
    // The clock is mended: what was refused stays refused, and the next is good.
    clock.off_by(0);
    world.deliver("wrapped", &bao.wrapped(CREATION, json!({})).await);
    until_well(&broker).await;
}
