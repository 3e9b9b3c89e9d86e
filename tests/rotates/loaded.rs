//! Under load, through a real Envoy: an old secret and a new one are both taken for a while, and that is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Reply, Stack, util};

use crate::service::{FIRST, Service, secret};

const HOST: &str = "rot.extra.test";

/// Two workers, and an upstream that takes what the service takes, and says what it was shown.
async fn start(service: &Service, rotation: &str) -> (Stack<Attache>, String) {
    let yaml = format!(
        "{{source: {{file: rot}}, inject: bearer, destinations: [{{host: {HOST}, upstream: DIAL}}], agent_env: {{ROT_KEY: \
         placeholder}}, rotation: {{command: [{}], {rotation}}}}}",
        service.command()
    );
    let plan = Plan::default().workers(2).credential("rot", FIRST, &yaml);
    let stack = plan.session("{name: rotor, credentials: [rot]}").start().await;
    (1..4).for_each(|n| stack.site.secrets.add("rot", secret(n)));
    let valid = service.path("valid");
    stack.upstream().answer_with(move |asked| {
        let shown = asked.fields.text("authorization").unwrap_or_default();
        let valid = std::fs::read_to_string(&valid).unwrap_or_default();
        let taken = valid.lines().any(|valid| shown == format!("Bearer {valid}"));
        Reply::new(if taken { 200 } else { 401 }).body(format!("was shown {shown}"))
    });
    let placeholder = stack.broker.exported("rotor", "ROT_KEY");
    (stack, placeholder)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_through_a_rotation_and_none_carries_the_old_secret_after_its_retirement() {
    let service = Service::new();
    let (stack, placeholder) = start(&service, "overlap: 2s").await;
    let bearer = Arc::new(format!("Bearer {placeholder}"));
    let over = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for client in 0..8 {
        let (mut connection, bearer, over) = (stack.agent().h1(stack.proxy).await, bearer.clone(), over.clone());
        load.spawn(async move {
            let mut failed = Vec::new();
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let headers = [("authorization", bearer.as_str())];
                let answer = connection.request("GET", HOST, &format!("/{client}"), &headers, b"").await;
                match answer {
                    Ok(answer) if answer.status == 200 && !answer.text().contains("rot-secret") => answered += 1,
                    Ok(answer) => failed.push(format!("{}: {}", answer.status, answer.text())),
                    Err(why) => failed.push(why.to_string()),
                }
            }
            (answered, failed)
        });
    }
    util::eventually(SOON, || stack.upstream().requests().len() > 100).await;

    let mut retired = Vec::new();
    for n in 1..3 {
        let done = stack.broker.json(&["credential", "rotate", "rot"]);
        assert_eq!(
            (&done["what"], &done["applied"]["waiting"]),
            (&"rotated".into(), &serde_json::json!([])),
            "{done:#}"
        );
        assert_eq!(done["applied"]["applied"], done["applied"]["total"], "{done:#}");
        assert_eq!(service.valid(), [secret(n - 1), secret(n)], "both are good");
        let in_force = Instant::now();
        util::eventually(SOON, || service.valid() == [secret(n)]).await;
        assert!(in_force.elapsed() > Duration::from_millis(1_500), "too soon: {:?}", in_force.elapsed());
        retired.push((secret(n - 1), in_force));
        util::eventually(SOON, || !stack.dir().join("state/default/secrets/rot.retiring").exists()).await;
    }
    let so_far = stack.upstream().requests().len();
    util::eventually(SOON, || stack.upstream().requests().len() > so_far + 50).await;
    over.store(true, Ordering::Relaxed);
    let (mut answered, mut failed) = (0, Vec::new());
    for (some, wrong) in load.join_all().await {
        answered += some;
        failed.extend(wrong);
    }
    assert!(failed.is_empty(), "of {answered}: {failed:?}");
    // Soon after the command says so: what was on its way then has arrived long before the old one is retired.
    for (old, in_force) in &retired {
        let old = format!("Bearer {old}");
        let late = |hit: &&attache_tests::Recorded| {
            hit.at > *in_force + Duration::from_secs(1) && hit.header("authorization").as_ref() == Some(&old)
        };
        assert_eq!(stack.upstream().requests().iter().filter(late).count(), 0);
    }
    println!("{answered} requests through two rotations");

    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    let decisions: Vec<_> = audit.of_kind("renew").map(|record| record.text("decision")).collect();
    assert_eq!(decisions, ["rotate", "retire", "rotate", "retire"]);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_both_are_good_neither_comes_back_in_an_answer() {
    let service = Service::new();
    let (stack, placeholder) = start(&service, "overlap: 1h").await;
    stack.broker.json(&["credential", "rotate", "rot"]);
    for n in [0, 1] {
        stack.upstream().answer_with(move |_| Reply::new(200).body(format!("here is {}.", secret(n))));
        let answer = stack.get(HOST, "/echo", &placeholder).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("rot-secret"), "{n}: {}", answer.text());
    }
    let done = stack.broker.json(&["credential", "rotate", "rot", "--retire-now"]);
    assert_eq!((&done["what"], service.valid()), (&"retired".into(), vec![secret(1)]));
    stack.reconcile().await;
}
