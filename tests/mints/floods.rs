//! Ten thousand names: Envoy and the broker stay small, and honest names go on working.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use attache_tests::util;

use crate::scene::{Answer, HOST, Scene, hello};

const NAMES: usize = 10_000;
/// At once.
const CLIENTS: usize = 16;
/// Most that Envoy may grow by, in bytes: what a full house of certificates takes (4,096 of 24 kB).
const FULL_HOUSE: u64 = 96 << 20;
/// The same where nobody gets one: what connections leave behind.
const NOTHING: u64 = 8 << 20;
/// Most that the broker may grow by, in bytes.
const BROKER: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_denied_leave_nothing_behind() {
    let scene = Scene::start().await;
    let offered = flood(&scene, NOTHING, |at| format!("host{at}.flood.test")).await;
    assert_eq!(offered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_may_be_minted_are_few_and_slow() {
    let scene = Scene::with("unmatched: pass\nintercept_unmatched: true").await;
    let offered = flood(&scene, FULL_HOUSE, |at| format!("host{at}.flood.test")).await;
    assert!((1..NAMES / 2).contains(&offered), "{offered} of {NAMES}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_one_name_are_few_and_slow() {
    let scene = Scene::start().await;
    let offered = flood(&scene, FULL_HOUSE, |at| {
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
    assert!((1..NAMES / 2).contains(&offered), "{offered} of {NAMES}");
}

/// Asks for ten thousand names, and an honest one in between, while Envoy grows by less than this; how many of them were offered a certificate.
async fn flood(scene: &Scene, most: u64, name: impl Fn(usize) -> String + Send + Sync + Copy + 'static) -> usize {
    let addr = scene.addr().await;
    let ours = scene.export();
    scene.shake(HOST, &ours).await.expect("a handshake");
    let before = [scene.envoy.pid(), scene.broker.pid()].map(util::resident);
    let (next, offered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask(addr, next.clone(), offered.clone(), name))).collect();
    while clients.iter().any(|client| !client.is_finished()) {
        scene.shake(HOST, &ours).await.expect("an honest handshake amid the flood");
        // Not as fast as can be: it is the flood that is measured.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for client in clients {
        client.await.expect("no client fails");
    }
    scene.shake("api.other.test", &ours).await.expect("an honest name that is new");
    let after = [scene.envoy.pid(), scene.broker.pid()].map(util::resident);
    let (envoy, broker) = (after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1]));
    eprintln!("Envoy grew by {} kB, the broker by {} kB, {offered:?} offered", envoy >> 10, broker >> 10);
    assert!(envoy < most && broker < BROKER, "Envoy grew by {envoy}, the broker by {broker}");
    offered.load(Ordering::Relaxed)
}

async fn ask(addr: SocketAddr, next: Arc<AtomicUsize>, offered: Arc<AtomicUsize>, name: impl Fn(usize) -> String) {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= NAMES {
            return;
        }
        match hello(addr, Some(name(at).as_bytes())).await {
            Answer::Offers => drop(offered.fetch_add(1, Ordering::Relaxed)),
            Answer::Alert(_) => {}
            Answer::Closes => panic!("{} got no answer", name(at)),
        }
    }
}
