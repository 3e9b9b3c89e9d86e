//! Servers that cannot prove who they are get nothing, and the client is told why.

use attache_tests::ca::Leaf;
use attache_tests::fake_broker::Grant;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Ca, Upstream};

use super::{Tunnel, reason, start, token};

const SECRET: &str = "site-token-0123456789-abcdefghij";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_its_name_gets_nothing_and_the_client_is_told() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let mut plan = Plan::default();
    let mut servers = Vec::new();
    for (name, leaf, why) in [
        ("expired", ca.issue_expired(&["expired.extra.test"]), "certificate_has_expired"),
        ("selfsigned", Leaf::self_signed(&["selfsigned.extra.test"]), "self"),
        ("misnamed", ca.issue(&["another.extra.test"]), "SAN"),
        ("unknown", stranger.issue(&["unknown.extra.test"]), "unable_to_get_local_issuer_certificate"),
    ] {
        let server = Upstream::tls(&ca, &["replaced"]).certificate(leaf).start().await;
        let yaml = format!(
            "{{source: {{file: {name}}}, inject: bearer, agent_env: {{KEY_{}: placeholder}}, destinations: \
             [{{host: {name}.extra.test, upstream: {{address: '{}', ca_file: {}}}}}]}}",
            name.to_uppercase(),
            server.addr(),
            ca.pem_path().display()
        );
        plan = plan.credential(name, SECRET, &yaml);
        servers.push((name, server, why));
    }
    let stack = start(plan).await;
    stack.broker.answer_grants(|asked| {
        let name = asked["destination"].as_str().and_then(|id| id.split('.').next()).unwrap_or_default();
        Grant::header(name, "authorization", &format!("Bearer {SECRET}")).answer()
    });
    for (name, server, why) in &servers {
        stack.site.oracle.upstream(name, server, &[]);
        let host = format!("{name}.extra.test");
        let mut inside = Tunnel::open(&stack, &token("mine"), &format!("{host}:443"), &host).await.expect("a tunnel");
        let answer = inside.ask("POST", &host, "/v1", &stack.placeholder()).await.expect("an answer");
        assert_eq!((answer.status, &*reason(&answer)), (502, "upstream_tls"), "{name}: {}", answer.text());
        let said = answer.json();
        assert!(said["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{name}: {said:#}");
        assert_eq!(server.requests().len(), 0, "{name}");
    }
    let refused = || {
        let records = stack.broker.records();
        records.into_iter().filter(|record| record["reason"] == "upstream_tls").collect::<Vec<_>>()
    };
    attache_tests::util::eventually(SOON, || refused().len() == servers.len()).await;
    for record in refused() {
        assert_eq!((&record["decision"], &record["auth_injected"]), (&"refuse".into(), &false.into()), "{record:#}");
    }
    stack.reconcile().await;
}
