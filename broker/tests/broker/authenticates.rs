//! The filters' door opens to the token alone, and tells nobody else anything.

use crate::world::{World, mode, send};
use attache_broker::config::Endpoint;

const ROUTES: &[(&str, &str)] = &[
    ("GET", "/v1/policy"),
    ("POST", "/v1/grants"),
    ("GET", "/v1/changes?worker=0123abcd"),
    ("POST", "/v1/audit?worker=0123abcd"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/v1/sessions"),
    ("DELETE", "/v1/policy"),
];

#[tokio::test]
async fn every_route_answers_a_missing_and_a_wrong_token_alike() {
    let world = World::new().await;
    let token = world.token();
    let (other, short) = ("0".repeat(64), &token[..63]);
    let wrong: &[&[(&str, &str)]] = &[
        &[],
        &[("authorization", "")],
        &[("authorization", &format!("Bearer {other}"))],
        &[("authorization", &format!("Bearer {short}"))],
        &[("authorization", &format!("Bearer {token}0"))],
        &[("authorization", &token)],
        &[("authorization", &format!("Basic {token}"))],
        &[("authorization", &format!("Bearer {token}")), ("authorization", &format!("Bearer {token}"))],
        &[("proxy-authorization", &format!("Bearer {token}"))],
    ];
    for (method, path) in ROUTES {
        for headers in wrong {
            let mut answer = world.knock(method, path, headers, b"").await;
            answer.headers.remove("date");
            let seen = (answer.status, format!("{:?}", answer.headers), answer.body);
            let expected = r#"{"content-type": "application/json", "cache-control": "no-store", "connection": "close", "content-length": "24"}"#;
            assert_eq!(seen, (401, expected.into(), r#"{"error":"unauthorized"}"#.into()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_token_opens_what_is_there_and_nothing_else() {
    let world = World::new().await;
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/v1/policy", 200), ("/v1/sessions", 404), ("/", 404)]
    {
        assert_eq!(world.ask("GET", path, b"").await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_policy_that_is_known_is_not_sent_again() {
    let world = World::new().await;
    let policy = world.ask("GET", "/v1/policy", b"").await;
    let etag = policy.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(policy.json(), serde_json::to_value(world.config.policy()).unwrap());
    let bearer = format!("Bearer {}", world.token());
    let again = |tag: String| {
        let (world, bearer) = (&world, &bearer);
        async move { world.knock("GET", "/v1/policy", &[("authorization", bearer), ("if-none-match", &tag)], b"").await }
    };
    let known = again(etag).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(again("\"other\"".into()).await.status, 200);
}

#[tokio::test]
async fn a_unix_socket_asks_for_the_token_too() {
    let world = World::with(|config| {
        config.listen.data_plane = Endpoint::Unix(config.state_dir.join("data.sock"));
    })
    .await;
    let path = world.config.state_dir.join("data.sock");
    assert_eq!(mode(&path), 0o600);
    let knock = async |headers: &[(&str, &str)]| {
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        send(stream, "GET", "/healthz", headers, b"").await.status
    };
    assert_eq!(knock(&[]).await, 401);
    assert_eq!(knock(&[("authorization", &format!("Bearer {}", world.token()))]).await, 200);
}
