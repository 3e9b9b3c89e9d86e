//! Requests that begin again: whatever changes while they are held, and however often, a decision
//! takes no longer, and what was granted under another policy is not used.

use std::time::{Duration, Instant};

use attache_core::refusal::Reason;
use attache_tests::FakeBroker;
use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use serde_json::{Value, json};

use crate::scene::{DECISION, RECOVERY, SLACK, Scene};

/// How often something changes: several times within one decision.
const STEP: Duration = Duration::from_millis(300);

async fn warm() -> Scene<FakeBroker> {
    let scene = Scene::of(Plan::default().start_with_fake().await).await;
    // The worker, and the main thread.
    scene.stack.broker.in_touch(2, SOON).await;
    scene.serves("the start").await;
    scene
}

/// The policy in force, as another version of itself.
fn renamed(scene: &Scene<FakeBroker>, version: &str) -> Value {
    let mut policy = serde_json::to_value(scene.stack.config.policy()).expect("a policy is JSON");
    policy["version"] = json!(version);
    policy
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_change_while_the_broker_hangs_extend_no_decision() {
    let scene = warm().await;
    let broker = &scene.stack.broker;
    broker.behave(Endpoint::Grants, Behaviour::Hang);
    let asked = broker.calls(Endpoint::Grants);
    let changing = async {
        let begun = Instant::now();
        for version in 0.. {
            if begun.elapsed() > DECISION + SLACK {
                return;
            }
            broker.policy(renamed(&scene, &format!("again-{version}")));
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::join!(scene.refuses(Reason::BrokerUnavailable, "policies that change"), changing);
    let again = broker.calls(Endpoint::Grants) - asked;
    assert!(again >= 3, "it was to begin again and again, and asked {again} times");
    broker.behave(Endpoint::Grants, Behaviour::Ok);
    scene.recovers("policies that change").await;
    scene.ends_well().await;
}

/// Each grant comes from before a change that the worker has heard of, and is void as it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn grants_that_are_void_on_arrival_extend_no_decision() {
    let scene = warm().await;
    let broker = &scene.stack.broker;
    let good = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
    let mut old = good.answer();
    old["granted"]["as_of"] = json!(0);
    broker.answer_grants(move |_| old.clone());
    let cursor = broker.change(json!({"session_id": "session-1"}));
    let heard = || broker.workers().values().filter(|heard| **heard >= cursor).count() == 2;
    attache_tests::util::eventually(SOON, heard).await;
    broker.behave(Endpoint::Grants, Behaviour::Delay(STEP));
    let asked = broker.calls(Endpoint::Grants);
    scene.refuses(Reason::BrokerUnavailable, "grants that are void").await;
    let again = broker.calls(Endpoint::Grants) - asked;
    assert!(again >= 3, "it was to begin again and again, and asked {again} times");
    broker.behave(Endpoint::Grants, Behaviour::Ok);
    broker.grant(good);
    scene.recovers("grants that are void").await;
    scene.ends_well().await;
}

/// Who is known under one policy is nobody under the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_another_policy_is_not_used() {
    let scene = warm().await;
    let broker = &scene.stack.broker;
    let known = scene.stranger();
    assert_eq!(scene.ask_as(&known).await.status, 200);
    let asked = broker.calls(Endpoint::Grants);
    assert_eq!(scene.ask_as(&known).await.status, 200);
    assert_eq!(broker.calls(Endpoint::Grants), asked, "it is known");
    // The broker would grant no more; that alone takes nothing back.
    broker.deny("credential_not_granted");
    assert_eq!(scene.ask_as(&known).await.status, 200);
    broker.policy(renamed(&scene, "next"));
    let published = Instant::now();
    loop {
        let answer = scene.ask_as(&known).await;
        if answer.status != 200 {
            attache_tests::refusal::expect(&answer, Reason::CredentialNotGranted);
            break;
        }
        assert!(published.elapsed() < RECOVERY + SLACK, "a grant of the last policy is still used");
    }
    assert!(broker.calls(Endpoint::Grants) > asked, "it was asked for anew");
    scene.ends_well().await;
}
