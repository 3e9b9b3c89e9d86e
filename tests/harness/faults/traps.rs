//! A filter that traps under load, in each of its callbacks.

use std::time::Duration;

use serde_json::Value;

use super::world::stranger;
use crate::agent::PATIENCE;
use crate::stack::SOON;
use crate::upstream::{Asked, magic};
use crate::{FakeBroker, Reply, Spelled, Stack, util};

/// A path on which the judge stands.
const JUDGED: &str = "/o/r/info/lfs/objects/batch";
/// How long a stream may stand still here; the shipped bound is 15 s.
const SOONER: &str = "2s";
/// Strangers that spring traps: none of a load has so high a number.
pub(super) const SPRINGER: u64 = u64::MAX;

/// Lets who is stranded go sooner.
pub(super) fn stranded_sooner(bootstrap: &mut Value) {
    let manager = bootstrap.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    manager.expect("the connection manager")["stream_idle_timeout"] = SOONER.into();
}

/// What springs a trap in an answer gets one with a body and trailers.
pub(super) fn answer(asked: &Asked) -> Reply {
    match asked.path.as_str() {
        "/trap" => Reply::new(200).body("x").trailer("x-end", "1").chunked(),
        _ => magic(asked),
    }
}

/// How often a VM has trapped.
pub(super) fn sprung(log: &str) -> usize {
    log.matches("Uncaught RuntimeError").count()
}

/// Sends what makes this callback trap, and waits until it has.
pub(super) async fn spring(stack: &Stack<FakeBroker>, callback: &str) {
    let before = sprung(&stack.envoy.log());
    let (host, path) = if callback.starts_with("judge") { ("github.com", JUDGED) } else { ("api.github.com", "/trap") };
    let head = Spelled::get(host, path).method("POST").line("authorization", stranger(SPRINGER));
    let head = head.line("te", "trailers").line("x-attache-trap", callback);
    // Over HTTP/2: Envoy drops the trailers of HTTP/1.
    let mut connection = stack.agent().raw_h2(stack.proxy).await;
    let stream = connection.headers(&head.to_h2(), false).await;
    // By then the head has its verdict, if it gets one.
    tokio::time::sleep(Duration::from_millis(60)).await;
    connection.data(stream, b"x", false).await.ok();
    connection.trailers(stream, &[("x-end", "1")]).await.ok();
    let answered = tokio::spawn(async move { connection.response(stream, PATIENCE).await });
    util::eventually(SOON, || sprung(&stack.envoy.log()) > before).await;
    drop(answered);
}
