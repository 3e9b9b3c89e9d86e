//! What was set must stand there, and alone: where Envoy has made something else of it, nothing goes.

use attache_core::refusal::Reason;
use attache_tests::fake_broker::Grant;
use attache_tests::stack::{GITHUB, Plan};
use attache_tests::{Spelled, refusal};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_not_what_it_was_to_be_goes_nowhere() {
    let scene = Scene::of(Plan::default().with_traps().start_with_fake().await).await;
    scene.stack.broker.answer_grants(|asked| match asked["destination"].as_str() {
        Some("query.custom.test:443") => Grant::query("query", "key", "set-by-us").answer(),
        _ => Grant::header("github", "authorization", &format!("Bearer {GITHUB}")).answer(),
    });
    for host in ["api.github.com", "query.custom.test"] {
        // Known already, so that nothing depends on this being its grant's first use.
        let asker = scene.stranger();
        let ask = || Spelled::get(host, "/user?page=2").bearer(&asker);
        for tampered in [false, true, false, true] {
            let before = scene.sent();
            let request = if tampered { ask().line("x-attache-trap", "tamper") } else { ask() };
            let answer = request.over_h1(&scene.stack.agent(), scene.stack.proxy).await.expect("an answer");
            if tampered {
                let refused = refusal::check(&answer, Reason::Internal);
                assert!(refused.is_ok(), "{host}: {refused:?}");
                assert_eq!(scene.sent(), before, "{host}: it went upstream");
            } else {
                assert_eq!(answer.status, 200, "{host}: {}", answer.text());
                assert_eq!(scene.sent(), before + 1);
            }
        }
    }
    scene.stack.reconcile().await;
}
