//! How long Envoy keeps a certificate: while the policy names it, as long as the broker says so again and
//! again; else for a time. The broker's part runs here, with times that a test can wait for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attache_broker::api::server::Socket;
use attache_broker::audit::AuditLog;
use attache_broker::audit::key::AuditKey;
use attache_broker::ca::{Ca, Mintable};
use attache_broker::config::Endpoint;
use attache_broker::sds::{Bounds, Sds};
use attache_broker::state_dir::StateDir;
use attache_tests::{Envoy, util};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::scene::{HOST, LISTENER, bootstrap, client, load, options, shake, write};

const TTL: Duration = Duration::from_secs(3);

struct Lapses {
    envoy: Envoy,
    addr: SocketAddr,
    ours: String,
    _stop: watch::Sender<bool>,
    _dir: TempDir,
}

async fn start() -> Lapses {
    let dir = util::temp_dir();
    write(&dir, "unmatched: pass\nintercept_unmatched: true");
    let (_, config) = load(&dir);
    let state = Arc::new(StateDir::open(&config.state_dir).expect("a state directory"));
    let key = AuditKey::open_or_create(state.safe()).expect("a key");
    let audit = Arc::new(AuditLog::open(&config.audit, &config.instance, key).expect("an audit log"));
    let ca = Arc::new(Ca::open(state, &config, &config.policy(), Some(audit)).expect("an authority"));
    let ours = ca.export().await.expect("an authority");
    let bounds = Bounds { ttl: TTL, tick: Duration::from_millis(100), most_others: 4, ..Bounds::DEFAULT };
    let sds = Arc::new(Sds::new(ca, Mintable::of(&config.policy()), bounds));
    let Endpoint::Unix(path) = &config.listen.data_plane else { panic!("a socket") };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(Socket::unix(path).expect("a socket").serve(sds.router(), stopped, Default::default()));
    let envoy = Envoy::start(&bootstrap(&config), options()).await;
    let addr = envoy.addr(LISTENER).await;
    Lapses { envoy, addr, ours, _stop: stop, _dir: dir }
}

/// The leaves that one client after the other is shown, for three times as long as Envoy may keep one.
async fn shown(lapses: &Lapses, host: &str) -> BTreeSet<Vec<u8>> {
    let (tls, begun, mut leaves) = (client(&lapses.ours), Instant::now(), BTreeSet::new());
    while begun.elapsed() < 3 * TTL {
        leaves.insert(shake(lapses.addr, host, tls.clone()).await.expect("a handshake"));
    }
    leaves
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_names_is_kept() {
    let lapses = start().await;
    assert_eq!(shown(&lapses, HOST).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_does_not_name_lapses_and_is_asked_for_anew_without_a_failure() {
    let lapses = start().await;
    // One client after the other knows of the session before: it ends with its leaf at the latest.
    let leaves = shown(&lapses, "www.elsewhere.test").await.len();
    assert!((2..=4).contains(&leaves), "{leaves}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_too_many_makes_way() {
    let lapses = start().await;
    let tls = client(&lapses.ours);
    shake(lapses.addr, HOST, tls.clone()).await.expect("a handshake");
    for at in 0..12 {
        let host = format!("host{at}.elsewhere.test");
        shake(lapses.addr, &host, tls.clone()).await.unwrap_or_else(|why| panic!("{host}: {why}"));
        let kept = kept(&lapses.envoy).await;
        assert!(kept.contains(HOST) && kept.contains(&host) && kept.len() <= 6, "{kept:?}");
    }
    // And all of them are gone when nobody asks any more, but for the one that stays.
    let end = Instant::now() + 10 * TTL;
    while kept(&lapses.envoy).await.len() > 1 {
        assert!(Instant::now() < end, "{:?}", kept(&lapses.envoy).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(kept(&lapses.envoy).await.contains(HOST));
}

/// The certificates that Envoy has.
async fn kept(envoy: &Envoy) -> BTreeSet<String> {
    let dump: Value = serde_json::from_str(&envoy.config_dump().await).expect("JSON");
    let secrets = dump["configs"].as_array().expect("configs").iter().flat_map(|part| {
        let active = part["dynamic_active_secrets"].as_array().cloned().unwrap_or_default();
        active.into_iter().filter(|secret| secret["secret"]["tls_certificate"].is_object())
    });
    secrets.filter_map(|secret| secret["name"].as_str().map(str::to_owned)).collect()
}
