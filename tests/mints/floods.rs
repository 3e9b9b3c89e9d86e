//! Thousands of names: Envoy and the broker stay small, and honest names go on working.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attache_broker::sds::Bounds;
use attache_tests::util;

use crate::scene::{Answer, HOST, Scene, hello};

const NAMES: usize = 10_000;
/// Spellings of one name, each another: its letters have no more than 4,096.
const SPELLINGS: usize = 4_000;
/// At once.
const CLIENTS: usize = 16;
/// Most that Envoy may grow by, in bytes: what a full house of certificates takes (4,096 of 40 kB).
const FULL_HOUSE: u64 = 160 << 20;
/// The same where nobody gets one: what connections leave behind.
const NOTHING: u64 = 8 << 20;
/// Most that the broker may grow by, in bytes.
const BROKER: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_denied_leave_nothing_behind() {
    let scene = Scene::start().await;
    let (offered, _) = flood(&scene, NAMES, NOTHING, |at| format!("host{at}.flood.test")).await;
    assert_eq!(offered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_may_be_minted_are_few_and_slow() {
    let scene = Scene::with("unmatched: pass\nintercept_unmatched: true").await;
    let (offered, took) = flood(&scene, NAMES, FULL_HOUSE, |at| format!("host{at}.flood.test")).await;
    are_few(offered, took);
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_one_name_are_few_and_slow() {
    let scene = Scene::start().await;
    let (offered, took) = flood(&scene, SPELLINGS, FULL_HOUSE, |at| {
        // Each bit of its number is the case of a letter.
        let letters = HOST.bytes().scan(0, |bit, byte| {
            let upper = byte.is_ascii_alphabetic() && {
                *bit += 1;
                (at + 1) >> (*bit - 1) & 1 == 1
            };
            Some(if upper { byte.to_ascii_uppercase() } else { byte })
        });
        String::from_utf8(letters.collect()).expect("ASCII")
    })
    .await;
    are_few(offered, took);
}

/// As many as may be new in the time that the flood took, and no more.
fn are_few(offered: usize, took: Duration) {
    let bounds = Bounds::DEFAULT;
    let new = u64::from(bounds.new_at_once) + u64::from(bounds.new_per_second) * (took.as_secs() + 1);
    assert!(offered > 0 && offered as u64 <= new, "{offered} in {took:?}");
}

/// Asks for so many names, and an honest one in between, while Envoy grows by less than this; how many of them were
/// offered a certificate, and how long it took.
async fn flood(
    scene: &Scene,
    names: usize,
    most: u64,
    name: impl Fn(usize) -> String + Send + Sync + Copy + 'static,
) -> (usize, Duration) {
    let addr = scene.addr().await;
    let ours = scene.export();
    scene.shake(HOST, &ours).await.expect("a handshake");
    let before = [scene.envoy.pid(), scene.broker.pid()].map(util::resident);
    let (next, offered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let one = |_| tokio::spawn(ask(addr, names, next.clone(), offered.clone(), name));
    let clients: Vec<_> = (0..CLIENTS).map(one).collect();
    while clients.iter().any(|client| !client.is_finished()) {
        scene.shake(HOST, &ours).await.expect("an honest handshake amid the flood");
        // Not as fast as can be: it is the flood that is measured.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for client in clients {
        client.await.expect("no client fails");
    }
    let took = begun.elapsed();
    scene.shake("api.other.test", &ours).await.expect("an honest name that is new");
    let after = [scene.envoy.pid(), scene.broker.pid()].map(util::resident);
    let (envoy, broker) = (after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1]));
    eprintln!("Envoy grew by {} kB, the broker by {} kB, {offered:?} offered", envoy >> 10, broker >> 10);
    assert!(envoy < most && broker < BROKER, "Envoy grew by {envoy}, the broker by {broker}");
    (offered.load(Ordering::Relaxed), took)
}

async fn ask(
    addr: SocketAddr,
    names: usize,
    next: Arc<AtomicUsize>,
    offered: Arc<AtomicUsize>,
    name: impl Fn(usize) -> String,
) {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= names {
            return;
        }
        match hello(addr, Some(name(at).as_bytes())).await {
            Answer::Offers => drop(offered.fetch_add(1, Ordering::Relaxed)),
            Answer::Alert(_) => {}
            Answer::Closes => panic!("{} got no answer", name(at)),
        }
    }
}
