//! The filters' door: without the token every question has the same answer.

use std::collections::BTreeSet;

use crate::others::{as_nobody, is_root};
use attache_tests::stack::Plan;
use attache_tests::{Agent, Attache, Stack, util};

fn token(stack: &Stack<Attache>) -> String {
    std::fs::read_to_string(stack.dir().join("state/default/data-plane.token")).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_every_question_has_the_same_answer() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], util::free_port()));
    let stack = Plan::default().data_plane(address).start().await;
    let token = token(&stack);
    let runtime = std::fs::read(stack.dir().join("state/default/runtime.json")).expect("an announcement");
    let runtime: serde_json::Value = serde_json::from_slice(&runtime).expect("JSON");
    let door = runtime["data_plane"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    let good = format!("Bearer {token}");
    assert_eq!(Agent::new().get(door, "broker", "/healthz", &[("authorization", &good)]).await.status, 200);

    let placeholder = format!("Bearer {}", stack.placeholder("writer", "github"));
    let (wrong, longer) = (format!("Bearer {}", "0".repeat(64)), format!("Bearer {token}0"));
    let mut answers = BTreeSet::new();
    for (method, path) in [
        ("GET", "/v1/policy"),
        ("POST", "/v1/grants"),
        ("GET", "/v1/changes?worker=00000000"),
        ("POST", "/v1/audit?worker=00000000"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/v1/sessions"),
        ("GET", "/nothing"),
        ("BREW", "/"),
    ] {
        for authorization in [None, Some(&wrong), Some(&longer), Some(&token), Some(&placeholder)] {
            let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            let answer = Agent::new().request(door, method, "broker", path, &headers, b"{}").await;
            let fields = answer.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"date"));
            let fields: Vec<_> = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            answers.insert((answer.status, fields, answer.text()));
        }
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert!(answers.iter().all(|(status, ..)| *status == 401));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_shows_the_token_to_nobody() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    let token = token(&stack);
    for page in ["/config_dump?include_eds", "/clusters?format=json", "/certs", "/server_info", "/stats", "/listeners"]
    {
        let text = stack.envoy.admin_get(page).await;
        assert!(text.len() > 10 && !text.contains(&token), "{page}");
    }
    let dump = stack.envoy.config_dump().await;
    assert!(dump.contains("attache_data_plane") && dump.contains("[redacted]"), "it is there, and redacted");
    assert!(!stack.envoy.log().contains(&token));
    stack.reconcile().await;
}

/// Envoy sends the token to whatever listens where the broker did. So that place is one which no
/// other user can take while the broker is away.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_brokers_place_while_it_is_away() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    let clusters: serde_json::Value =
        serde_json::from_str(&stack.envoy.admin_get("/clusters?format=json").await).expect("JSON");
    let clusters = clusters["cluster_statuses"].as_array().expect("clusters");
    let broker = clusters.iter().find(|cluster| cluster["name"] == "attache_broker").expect("the broker's");
    let hosts = broker["host_statuses"].as_array().expect("hosts");
    let door = stack.dir().join("state/default/data-plane.sock");
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert_eq!(hosts[0]["address"]["pipe"]["path"].as_str(), door.to_str());

    stack.broker.kill();
    crate::assert_private(door.parent().expect("the instance's directory"));
    if is_root() {
        // Only the instance's own directory may stand in the way.
        std::fs::set_permissions(stack.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        for (program, args) in [("rm", "-f"), ("touch", "--"), ("mkdir", "--"), ("ls", "--")] {
            let taken = as_nobody(program).arg(args).arg(&door).output().expect("it runs");
            assert!(!taken.status.success(), "{program}: {taken:?}");
        }
    }
    stack.broker.restart().await;
    let answer = stack.get("api.github.com", "/user", &placeholder).await;
    assert!([200, 503].contains(&answer.status), "{}", answer.text());
    stack.reconcile().await;
}
