//! A filter that traps, in each of its callbacks. Its VM is gone with all it knew: whoever was held
//! is answered within the bound of an idle stream, nobody is let through undecided, and the next
//! VM is there within seconds.
//!
//! What dies with a VM is the records it had not delivered. The oracle is told of each by its path,
//! and finds no other.

use std::time::{Duration, Instant};

use attache_tests::agent::PATIENCE;
use attache_tests::fake_broker::{Behaviour, Endpoint};
use attache_tests::oracle::Violation;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{FakeBroker, Response, Spelled, Unanswered, util};
use serde_json::Value;

use crate::scene::{RECOVERY, SLACK, Scene};

/// The shipped bound of a stream on which nothing moves.
const STRANDED: Duration = Duration::from_secs(15);
/// The same, where a test need not wait for so long.
pub const SOONER: Duration = Duration::from_secs(2);

/// A path on which the judge stands.
pub const JUDGED: &str = "/o/r/info/lfs/objects/batch";

/// The callbacks in which the test build can be made to trap, and what Envoy calls for each. In all
/// but `configure` it is a request that makes it.
pub const CALLBACKS: [(&str, &str); 14] = [
    ("configure", "proxy_on_configure"),
    ("context_create", "proxy_on_context_create"),
    ("request_headers", "proxy_on_request_headers"),
    ("request_body", "proxy_on_request_body"),
    ("request_trailers", "proxy_on_request_trailers"),
    ("judge_request_headers", "proxy_on_request_headers"),
    ("judge_request_body", "proxy_on_request_body"),
    ("judge_request_trailers", "proxy_on_request_trailers"),
    ("response_headers", "proxy_on_response_headers"),
    ("response_body", "proxy_on_response_body"),
    ("response_trailers", "proxy_on_response_trailers"),
    ("delete", "proxy_on_delete"),
    ("tick", "proxy_on_tick"),
    ("http_call_response", "proxy_on_http_call_response"),
];

pub async fn trapping(plan: Plan) -> Scene<FakeBroker> {
    let scene = Scene::of(plan.with_traps().start_with_fake().await).await;
    scene.serves("the start").await;
    scene
}

pub fn stranded_sooner(bootstrap: &mut Value) {
    let manager = bootstrap.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    manager.expect("the connection manager")["stream_idle_timeout"] = format!("{}s", SOONER.as_secs()).into();
}

impl Scene<FakeBroker> {
    /// A stranger's request to api.github.com that says by its path what it is for.
    pub fn to(&self, path: &str) -> Spelled {
        Spelled::get("api.github.com", path).bearer(&self.stranger())
    }

    /// A request that makes this callback trap.
    pub fn springing(&self, callback: &str) -> Spelled {
        self.to("/trap").line("x-attache-trap", callback)
    }

    pub async fn over_h1(&self, request: Spelled) -> Result<Response, Unanswered> {
        request.over_h1(&self.stack.agent(), self.stack.proxy).await
    }

    async fn over_h2(&self, request: Spelled) -> Result<Response, Unanswered> {
        request.over_h2(&self.stack.agent(), self.stack.proxy).await
    }

    /// Holds two requests, one over each protocol, until `meanwhile` has struck: both are answered
    /// 503 within this bound, and neither goes upstream.
    pub async fn strands(&self, bound: Duration, meanwhile: impl Future<Output = ()>) {
        let broker = &self.stack.broker;
        broker.behave(Endpoint::Grants, Behaviour::Hang);
        let asked = broker.calls(Endpoint::Grants);
        let held = async |request: Result<Response, Unanswered>, begun: Instant| {
            let answer = request.expect("an answer");
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(begun.elapsed() < bound + SLACK, "answered after {:?}", begun.elapsed());
        };
        let begun = Instant::now();
        let struck = async {
            util::eventually(SOON, || broker.calls(Endpoint::Grants) == asked + 2).await;
            broker.behave(Endpoint::Grants, Behaviour::Ok);
            meanwhile.await;
        };
        let (one, two) = (self.to("/held-1").method("POST").body("x"), self.to("/held-2").method("POST").body("x"));
        let (_, _, ()) = tokio::join!(
            async { held(self.over_h1(one).await, begun).await },
            async { held(self.over_h2(two).await, begun).await },
            struck
        );
        let sent = self.stack.upstream().requests();
        assert!(!sent.iter().any(|request| request.path_text().starts_with("/held")), "{sent:#?}");
    }

    /// A new VM takes over, for the gate and for the judge, each of which has to notice.
    pub async fn comes_back(&self, after: &str) {
        let good = self.stranger();
        let judged = Spelled::get("github.com", JUDGED).method("POST").bearer(&good);
        let judged = judged.body(r#"{"operation":"download"}"#);
        let begun = Instant::now();
        for request in [Spelled::get("api.github.com", "/good").bearer(&good), judged] {
            loop {
                let answer = self.over_h1(request.clone()).await.expect("an answer");
                if answer.status == 200 {
                    break;
                }
                assert_eq!(answer.status, 503, "after {after}: {}", answer.text());
                assert!(begun.elapsed() < RECOVERY, "after {after}: not back within {RECOVERY:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits until no record is on its way, `lost` apart.
    pub async fn delivered(&self, lost: usize) {
        let uses = || self.stack.broker.records().iter().filter(|record| record["kind"] == "use").count();
        util::eventually(SOON, || uses() + lost == self.sent()).await;
    }

    /// Everything adds up, but that the uses of these paths are not on record: a VM took their
    /// records with it.
    pub async fn adds_up_but_for(&self, lost: &[String]) {
        let end = Instant::now() + SOON;
        loop {
            let violations = self.stack.site.oracle.violations();
            let about = |violation: &Violation, path: &str| matches!(violation, Violation::Unrecorded { hit } if hit.contains(&format!("github.com{path} ")));
            let excused = |violation: &Violation| lost.iter().any(|path| about(violation, path));
            let each_once = lost.iter().all(|path| violations.iter().filter(|v| about(v, path)).count() == 1);
            let others: Vec<_> = violations.iter().filter(|violation| !excused(violation)).collect();
            if each_once && others.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "beside {lost:?}: {others:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn reloaded(&self) -> u64 {
        self.stack.envoy.stat("wasm.attache.gate.vm_reload_success").await.unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_held_when_a_vm_traps_is_answered_within_the_shipped_bound() {
    let scene = trapping(Plan::default()).await;
    scene.delivered(0).await;
    let trap = async {
        let begun = Instant::now();
        let answer = scene.over_h1(scene.springing("request_headers")).await.expect("an answer");
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(begun.elapsed() < SLACK, "answered after {:?}", begun.elapsed());
        scene.comes_back("a trap").await;
        assert_eq!(scene.reloaded().await, 1);
    };
    scene.strands(STRANDED, trap).await;
    scene.adds_up_but_for(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_that_belongs_to_no_request_strands_nobody_for_long() {
    for callback in ["tick", "http_call_response"] {
        let scene = trapping(Plan::default().edit(stranded_sooner)).await;
        scene.delivered(0).await;
        let trap = async {
            // It is held itself, and traps with the next tick or the next answer.
            let answer = scene.over_h1(scene.springing(callback)).await.expect("an answer");
            assert_eq!(answer.status, 503, "{callback}: {}", answer.text());
            scene.comes_back(callback).await;
        };
        scene.strands(SOONER, trap).await;
        assert!(!scene.stack.upstream().requests().iter().any(|request| request.path_text() == "/trap"), "{callback}");
        scene.adds_up_but_for(&[]).await;
    }
}

/// The request was decided on; its body, its trailers or its record meets the trap. What went
/// upstream was allowed to; what is lost is its record.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_after_the_verdict_loses_one_record() {
    let scene = trapping(Plan::default().edit(stranded_sooner)).await;
    let mut lost = Vec::new();
    for (callback, answered) in [("request_body", 503), ("request_trailers", 503), ("delete", 200)] {
        scene.delivered(lost.len()).await;
        let (before, reloaded) = (scene.sent(), scene.reloaded().await);
        let traps = || scene.stack.envoy.log().matches("Uncaught RuntimeError").count();
        let trapped = traps();
        let path = format!("/after-{callback}");
        let head = Spelled { target: path.clone().into(), ..scene.springing(callback).method("POST") };
        // Over HTTP/2: Envoy drops the trailers of HTTP/1.
        let mut h2 = scene.stack.agent().raw_h2(scene.stack.proxy).await;
        let stream = h2.headers(&head.to_h2(), false).await;
        util::eventually(SOON, || scene.sent() == before + 1).await;
        h2.data(stream, b"x", false).await.expect("sent");
        h2.trailers(stream, &[("x-end", "1")]).await.expect("sent");
        let answer = h2.response(stream, PATIENCE).await.expect("an answer");
        assert_eq!(answer.status, answered, "{callback}: {}", answer.text());
        lost.push(path);
        // The record is written after the answer is out: the next request must not overtake it.
        util::eventually(SOON, || traps() > trapped).await;
        scene.comes_back(callback).await;
        assert_eq!(scene.reloaded().await, reloaded + 1, "{callback}");
    }
    scene.adds_up_but_for(&lost).await;
}

/// A body that the judge is still reading goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_half_read_when_a_vm_traps_goes_nowhere() {
    let scene = trapping(Plan::default().edit(stranded_sooner)).await;
    let half = format!("{JUDGED}?half-read");
    let head = Spelled::get("github.com", &half).method("POST").bearer(&scene.stranger()).line("content-length", "4");
    let (agent, proxy) = (scene.stack.agent(), scene.stack.proxy);
    let (mut silent, mut talking) = (agent.h1(proxy).await, agent.h1(proxy).await);
    for half in [&mut silent, &mut talking] {
        half.send(head.to_h1()).await.expect("sent");
        half.send("ab").await.expect("sent");
    }
    scene.stack.envoy.wait_stat("http.attache.downstream_rq_active", |active| active == 2, SOON).await;
    scene.serves("two halves").await;
    scene.delivered(0).await;
    scene.over_h1(scene.springing("request_headers")).await.expect("an answer");
    talking.send("cd").await.ok();
    for half in [&mut talking, &mut silent] {
        let answer = half.response(SOONER + SLACK).await.expect("an answer");
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    scene.comes_back("half a body").await;
    assert!(!scene.stack.upstream().requests().iter().any(|request| request.path_text() == half));
    scene.adds_up_but_for(&[]).await;
}

/// An answer that is under way when a VM traps comes past nobody: it is cut, or replaced.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_way_is_replaced() {
    let scene = trapping(Plan::default()).await;
    scene.delivered(0).await;
    let before = scene.sent();
    let slow = scene.over_h1(scene.to("/slow?ms=1000"));
    let trap = async {
        util::eventually(SOON, || scene.sent() == before + 1).await;
        scene.over_h1(scene.springing("request_headers")).await.expect("an answer");
        scene.comes_back("a trap").await;
    };
    let (slow, ()) = tokio::join!(slow, trap);
    assert_eq!(slow.expect("an answer").status, 503);
    scene.adds_up_but_for(&["/slow".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_traps_again_and_again_comes_back_each_time() {
    let scene = trapping(Plan::default()).await;
    for round in 1..=5 {
        scene.delivered(0).await;
        let answer = scene.over_h2(scene.springing("request_headers")).await.expect("an answer");
        assert_eq!(answer.status, 503);
        scene.comes_back("a trap").await;
        assert_eq!(scene.reloaded().await, round);
    }
    scene.adds_up_but_for(&[]).await;
}

/// One worker's VM is that worker's alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_one_worker_is_not_felt_by_the_other() {
    let scene = trapping(Plan::default().workers(2)).await;
    // The kernel deals connections out among the workers: among so many, both have some.
    let agent = scene.stack.agent();
    let mut others = Vec::new();
    for _ in 0..24 {
        others.push(agent.h1(scene.stack.proxy).await);
    }
    scene.delivered(0).await;
    scene.over_h1(scene.springing("request_headers")).await.expect("an answer");
    for other in &mut others {
        other.send(scene.to("/other").to_h1()).await.expect("sent");
    }
    let mut statuses = Vec::new();
    for other in &mut others {
        statuses.push(other.response(PATIENCE).await.expect("an answer").status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    scene.comes_back("a trap").await;
    scene.adds_up_but_for(&[]).await;
}

/// The test build traps nowhere by itself, and the shipped one never.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_filter_has_no_traps() {
    let scene = Scene::of(Plan::default().start_with_fake().await).await;
    for (callback, _) in CALLBACKS {
        let answer = scene.over_h1(scene.springing(callback).method("POST").body("x")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{callback}: {}", answer.text());
    }
    scene.ends_well().await;
}
