//! A credential enters the request in flight, once, where its destination wants it, and nowhere else.

use attache_tests::stack::{CUSTOM, GITHUB, Plan, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_goes_upstream_and_the_placeholder_does_not() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    for (host, path) in [("127.0.0.1", "/api.github.com/user?page=2"), ("api.github.com", "/user?page=2")] {
        let answer = stack.get(host, path, &placeholder).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let hits = stack.upstream().wait_for(2, SOON).await;
    for hit in &hits {
        assert_eq!(hit.path_text(), "/user?page=2");
        assert_eq!(&hit.authority[..], b"api.github.com");
        assert_eq!(hit.sni.as_deref(), Some("api.github.com"));
        assert_eq!(hit.header("authorization"), Some(format!("Bearer {GITHUB}")));
    }
    let _ = CUSTOM;
    stack.reconcile().await;
}
