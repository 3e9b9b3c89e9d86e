//! Strangers who hold connections, and bodies that are made to hurt, keep nobody out.

use crate::world::{NONCE, WORKER, World};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How many strangers there are: five thousand, or what the system lets one process open.
fn crowd() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // Ours, the broker's ends of those that it keeps, and room for other tests.
    let room = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap().saturating_sub(2_000));
    assert!(room > 1_500, "more than a door has places for: raise the hard limit of open files");
    room.min(5_000)
}

#[tokio::test]
async fn thousands_of_idle_strangers_keep_neither_filters_nor_operators_out() {
    let world = World::new().await;
    let (tcp, unix) = (world.data_plane(), world.config.listen.control.clone());
    let mut strangers = Vec::new();
    for n in 0..crowd() {
        let mut stranger = TcpStream::connect(tcp).await.unwrap();
        // Every other one has begun a head, and never ends it.
        if n % 2 == 0 {
            let _ = stranger.write_all(b"GET /v1/policy HT").await;
        }
        strangers.push(stranger);
        if n % 1_000 == 0 {
            assert!(world.plain_grant().await["granted"].is_object(), "after {n}");
        }
    }
    let mut silent = Vec::new();
    for _ in 0..1_200 {
        silent.push(UnixStream::connect(&unix).await.unwrap());
    }
    // At once, not when the strangers' time is over.
    let served = timeout(Duration::from_secs(4), async {
        assert!(world.plain_grant().await["granted"].is_object());
        assert_eq!(world.operate("GET", "/v1/sessions", Value::Null).await.status, 200);
        world.poll("", 0, 0).await
    });
    assert!(served.await.is_ok(), "filters and operators are answered");
    let mut nothing = Vec::new();
    let ended = timeout(Duration::from_secs(4), strangers[1].read_to_end(&mut nothing)).await;
    assert!(ended.is_ok() && nothing.is_empty(), "the oldest had to make way");
}

#[tokio::test]
async fn bodies_that_are_made_to_hurt_are_refused_and_the_door_stays_open() {
    let world = World::new().await;
    let deep = "[".repeat(10_000);
    let nested = format!(r#"{{"nonce":"{NONCE}","worker":"{WORKER}","destination":"x","evidence":{deep}"#);
    let twice =
        format!(r#"{{"nonce":"{NONCE}","nonce":"{NONCE}","worker":"{WORKER}","destination":"x","evidence":{{}}}}"#);
    let huge = format!(r#"{{"nonce":"{}"}}"#, "0".repeat(10 << 20));
    for (body, status) in
        [(deep.as_str(), 400), (&nested, 400), (&twice, 400), (&huge[..60_000], 400), (&huge[..100_000], 413)]
    {
        assert_eq!(world.ask("POST", "/v1/grants", body.as_bytes()).await.status, status);
    }
    assert!(world.plain_grant().await["granted"].is_object());
}
