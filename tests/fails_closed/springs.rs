//! A trap in every callback there is: before the verdict, while a request is held, and where no
//! request is at all. [`crate::traps`] has those after the verdict.

use std::collections::BTreeSet;
use std::sync::mpsc;

use attache_tests::agent::PATIENCE;
use attache_tests::envoy::Options;
use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Envoy, FakeBroker, Spelled, util};
use serde_json::{Value, json};
use wasmparser::{Parser, Payload};

use crate::guard::filters;
use crate::scene::Scene;
use crate::traps::{CALLBACKS, JUDGED, SOONER, stranded_sooner, trapping};

#[test]
fn every_callback_of_the_module_has_a_trap() {
    let module = std::fs::read(util::filter_wasm()).expect("the module");
    let mut called = BTreeSet::new();
    for payload in Parser::new(0).parse_all(&module) {
        let Payload::ExportSection(exports) = payload.expect("a valid module") else { continue };
        called.extend(exports.into_iter().map(|export| export.expect("an export").name.to_owned()));
    }
    // The allocator is the SDK's own, and no code of ours runs in it.
    called.retain(|name| name.starts_with("proxy_on_") && name != "proxy_on_memory_allocate");
    let trapping = CALLBACKS.iter().map(|(_, export)| (*export).to_owned()).collect();
    assert_eq!(called, trapping, "a callback is missing from the tests, or has no trap");
}

/// The gate holds a head, and its body or trailers meet the trap. Only where the flag is set does
/// Envoy deliver them to a gate that holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_while_the_gate_holds_lets_nothing_go() {
    for callback in ["request_body", "request_trailers"] {
        let scene = trapping(Plan::default().edit(|bootstrap| {
            stranded_sooner(bootstrap);
            for filter in filters(bootstrap).iter_mut().filter(|filter| filter["name"] == "attache.gate") {
                filter["typed_config"]["config"]["allow_on_headers_stop_iteration"] = json!(true);
            }
        }))
        .await;
        let head = scene.springing(callback).method("POST");
        traps_while_held(&scene, callback, head, true).await;
    }
}

/// The judge holds a head until it has read the body, which meets the trap.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_while_the_judge_holds_lets_nothing_go() {
    for callback in ["judge_request_headers", "judge_request_body", "judge_request_trailers"] {
        let scene = trapping(Plan::default().edit(stranded_sooner)).await;
        let head = Spelled::get("github.com", JUDGED).method("POST").bearer(&scene.stranger());
        traps_while_held(&scene, callback, head.line("x-attache-trap", callback), false).await;
    }
}

/// A request whose head is held traps in what follows it; so are two strangers, meanwhile.
async fn traps_while_held(scene: &Scene<FakeBroker>, callback: &str, head: Spelled, asks: bool) {
    scene.delivered(0).await;
    let (broker, before) = (&scene.stack.broker, scene.sent());
    let trap = async {
        broker.behave(Endpoint::Grants, Behaviour::Hang);
        let asked = broker.calls(Endpoint::Grants);
        // Over HTTP/2: Envoy drops the trailers of HTTP/1.
        let mut h2 = scene.stack.agent().raw_h2(scene.stack.proxy).await;
        let stream = h2.headers(&head.to_h2(), false).await;
        if asks {
            util::eventually(SOON, || broker.calls(Endpoint::Grants) > asked).await;
        }
        // The trap may have answered already, and closed.
        h2.data(stream, b"x", false).await.ok();
        h2.trailers(stream, &[("x-end", "1")]).await.ok();
        let answer = h2.response(stream, PATIENCE).await.expect("an answer");
        assert_eq!(answer.status, 503, "{callback}: {}", answer.text());
        util::eventually(SOON, || scene.stack.envoy.log().contains("Uncaught RuntimeError")).await;
        assert_eq!(scene.sent(), before, "{callback}: something went upstream");
        broker.behave(Endpoint::Grants, Behaviour::Ok);
        scene.comes_back(callback).await;
        assert_eq!(scene.reloaded().await, 1, "{callback}");
    };
    scene.strands(SOONER, trap).await;
    let forwarded = |path: &str| scene.stack.upstream().requests().iter().filter(|r| r.path_text() == path).count();
    assert_eq!((forwarded("/trap"), forwarded(JUDGED)), (0, 1), "{callback}: only the one that came back");
    scene.adds_up_but_for(&[]).await;
}

/// A request's beginning and its end. What met the trap at its end was let go; its record is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_as_a_request_comes_or_goes_is_over_with_the_next_vm() {
    for callback in ["context_create", "delete"] {
        let scene = trapping(Plan::default().edit(stranded_sooner)).await;
        scene.delivered(0).await;
        let path = format!("/{callback}");
        let arming = Spelled { target: path.clone().into(), ..scene.springing(callback) };
        let trap = async {
            let answer = scene.over_h1(arming).await.expect("an answer");
            assert_eq!(answer.status, 200, "{callback}: {}", answer.text());
            if callback == "context_create" {
                let answer = scene.over_h1(scene.to("/next")).await.expect("an answer");
                assert_eq!(answer.status, 503, "{}", answer.text());
            }
            util::eventually(SOON, || scene.stack.envoy.log().contains("Uncaught RuntimeError")).await;
            scene.comes_back(callback).await;
            assert_eq!(scene.reloaded().await, 1, "{callback}");
        };
        scene.strands(SOONER, trap).await;
        assert!(!scene.stack.upstream().requests().iter().any(|request| request.path_text() == "/next"));
        scene.adds_up_but_for(&[path]).await;
    }
}

/// A plugin that traps as it is configured is no plugin: Envoy does not start.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_the_configuration_serves_nothing() {
    let (sender, written) = mpsc::channel();
    let plan = Plan::default().with_traps().edit(move |bootstrap| sender.send(bootstrap.clone()).expect("a listener"));
    let stack = plan.start_with_fake().await;
    let whole: Value = written.recv().expect("the bootstrap");
    for name in ["attache.judge", "attache.gate"] {
        let mut bootstrap = whole.clone();
        for filter in filters(&mut bootstrap).iter_mut().filter(|filter| filter["name"] == name) {
            let settings = filter.pointer_mut("/typed_config/config/configuration/value").expect("settings");
            *settings = "x-attache-trap: configure".into();
        }
        let log = Envoy::try_start(&bootstrap, Options::default()).await.err().expect("no start");
        assert!(log.contains("Uncaught RuntimeError") && log.contains("exit status: 1"), "{name}: {log}");
    }
    stack.reconcile().await;
}
