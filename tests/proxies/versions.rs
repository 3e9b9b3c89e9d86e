//! Other Envoys than the one that everything else is tested on: what is generated for each is loaded by
//! it, and keeps what was promised.

use attache_broker::envoy::{TESTED_VERSION, Version};
use attache_tests::envoy::{released, served};
use attache_tests::stack::Plan;

use super::{HOST, PINNED, Tunnel, basic, connect, identity, start, token};

/// Those that a forward proxy may be, beside the one that everything runs on: the oldest, the oldest with everything.
fn others() -> Vec<String> {
    let mints = |version: &String| version.parse::<Version>().expect("a version") >= Version::MINTS;
    served().into_iter().filter(mints).filter(|version| version != TESTED_VERSION).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_envoys_serve_what_is_generated_for_them() {
    for version in others() {
        let Some(envoy) = released(&version) else { continue };
        let stack = start(Plan::default().on(envoy)).await;
        let mine = token("mine");
        let mut inside = Tunnel::open(&stack, &mine, "api.github.com:443", HOST).await.expect("a tunnel");
        let answer = inside.ask("GET", HOST, "/user", &stack.placeholder()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{version}: {}", answer.text());
        for (name, passes) in [("pinned.extra.test", true), ("other.extra.test", false)] {
            let (client, answer) = connect(&stack, PINNED[0], &[("proxy-authorization", &basic(&mine))]).await;
            assert_eq!(answer.status, 200, "{version}");
            let shaken = client.into_tls(name, stack.site.ca.client(&["http/1.1"])).await;
            assert_eq!(shaken.is_ok(), passes, "{version}: SNI {name}");
        }
        let (_, answer) = connect(&stack, "api.github.com:443", &[]).await;
        assert_eq!(answer.status, 407, "{version}");
        assert_eq!(stack.upstream().hits().len(), 1, "{version}");
        stack.reconcile().await;
    }
}

/// What tells clients apart is not the same before 1.39.
#[tokio::test(flavor = "multi_thread")]
async fn no_envoy_hands_a_connection_to_another_client() {
    for version in others() {
        let Some(envoy) = released(&version) else { continue };
        identity::storm(Plan::default().on(envoy)).await;
    }
}
