//! Attaché in containers, as envoy/docker-compose.yaml ships it, on a Docker engine of the tests' own.
//!
//! The engine has a network namespace, mounts and processes of its own, which end with it. Nothing is pulled: images
//! that would be are built from what is on this machine, under the names that the shipped files use, so that these
//! run unchanged. Where no engine can be started, that is said, and the test is skipped.

#[path = "compose/contains.rs"]
mod contains;
#[path = "compose/engine.rs"]
mod engine;
#[path = "compose/files.rs"]
mod files;
#[path = "compose/heals.rs"]
mod heals;
#[path = "compose/images.rs"]
mod images;
#[path = "compose/layout.rs"]
mod layout;
#[path = "compose/scene.rs"]
mod scene;
#[path = "compose/serves.rs"]
mod serves;

use scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_keeps_its_promises_in_containers() {
    in_containers("gateway").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_proxy_keeps_its_promises_in_containers() {
    in_containers("forward-proxy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_images_are_what_others_take_them_for() {
    let Some(engine) = engine::shared().await else { return };
    layout::of_the_filter(&engine).await;
    layout::of_the_broker(&engine).await;
}

/// One deployment for all of it: to bring one up takes longer than to look at it.
async fn in_containers(profile: &'static str) {
    let Some(engine) = engine::shared().await else { return };
    let scene = Scene::up(engine, profile).await;
    serves::reads_and_no_writes(&scene).await;
    serves::on_record(&scene).await;
    contains::what_an_agent_has(&scene).await;
    contains::where_an_agent_gets(&scene).await;
    contains::who_mounts_what(&scene).await;
    heals::after_restarts(&scene).await;
    heals::after_a_kill(&scene).await;
    serves::on_record(&scene).await;
    scene.down().await;
}
