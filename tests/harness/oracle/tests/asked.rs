//! Each hit is the doing of an agent that showed what belongs to the session on record.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{HOST, SECRET, SOON, Scene, issue, scene, used, with};
use crate::agent::{Outcome, Transcript, head};
use crate::oracle::{Evidence, Violation};
use crate::{Agent, Reply, util};

/// A scene whose one hit an agent asked for, showing this; what the broker wrote is still to come.
async fn asked(shown: &str, at: &[Value]) -> Scene {
    let scene = Scene::set().await;
    let evidence = Evidence::default();
    for (session, variable, text) in [
        ("agent", "GITHUB_TOKEN", "ghp_ATTACHEmine"),
        ("agent", "OTHER_KEY", "ATTACHEother"),
        ("agent", "ATTACHE_SESSION_TOKEN", "ATTACHEtoken"),
        ("stranger", "GITHUB_TOKEN", "ghp_ATTACHEtheirs"),
        ("over", "GITHUB_TOKEN", "ghp_ATTACHEover"),
    ] {
        evidence.add(session, variable, text);
    }
    evidence.ended("over");
    scene.oracle.evidence(&evidence);
    scene.oracle.exports("github", "GITHUB_TOKEN");
    scene.oracle.exports("other", "OTHER_KEY");
    let transcript = scene.oracle.agent().ledger().open("an agent");
    let open = transcript.begin("GET /user");
    open.sent(format!("GET /user HTTP/1.1\r\nAuthorization: Bearer {shown}\r\n\r\n").as_bytes());
    at.iter().for_each(|record| scene.write(record));
    scene.hit("r1").await;
    open.settle(Outcome::Aborted);
    scene
}

#[tokio::test]
async fn a_hit_of_another_session_than_the_agents_is_found() {
    for (shown, expected) in [
        ("ghp_ATTACHEmine", None),
        ("ATTACHEtoken", None),
        ("ghp_ATTACHEtheirs", Some("what the agent showed is another session's")),
        ("ATTACHEother", Some("what the agent showed stands for another credential")),
        ("ghp_ATTACHEmadeup", Some("the agent showed nothing that the test knows")),
    ] {
        let scene = asked(shown, &[issue()]).await;
        scene.write(&used());
        let found = scene.found();
        match (&found[..], expected) {
            ([], None) => {}
            ([Violation::Unasked { why, .. }], Some(expected)) => assert_eq!(*why, expected),
            _ => panic!("{shown}: {found:?}"),
        }
    }
    let nobody = scene(&[issue()], &[used()]).await;
    nobody.oracle.evidence(&Evidence::default());
    assert!(matches!(&nobody.found()[..], [Violation::Unasked { .. }]), "{:?}", nobody.found());
}

#[tokio::test]
async fn a_jwt_and_a_connection_name_the_sessions_that_the_test_says() {
    let request = |extra: &str| format!("GET /user HTTP/1.1\r\n{extra}\r\n\r\n");
    let (own, other) = ("X-Attache-Identity: e30.own.sig", "X-Attache-Identity: e30.other.sig");
    let placeholder = "Authorization: Bearer ghp_ATTACHEtheirs";
    for (label, shown, fits) in [
        ("as agent at inner", "Accept: */*", true),
        ("as stranger at inner", "Accept: */*", false),
        ("nobody", own, true),
        ("nobody", other, false),
        ("nobody", "Accept: */*", false),
        // What a request shows by itself outweighs its connection.
        ("as agent at inner", other, false),
        ("as agent at inner", placeholder, false),
        ("as stranger at inner", own, true),
    ] {
        let scene = Scene::set().await;
        let evidence = Evidence::default();
        evidence.add("stranger", "GITHUB_TOKEN", "ghp_ATTACHEtheirs");
        evidence.jwt("agent", "e30.own.sig");
        evidence.jwt("stranger", "e30.other.sig");
        evidence.connection("agent", "as agent at");
        evidence.connection("stranger", "as stranger at");
        scene.oracle.evidence(&evidence);
        let open = scene.oracle.agent().ledger().open(label).begin("GET /user");
        open.sent(request(shown).as_bytes());
        scene.write(&issue());
        scene.hit("r1").await;
        open.settle(Outcome::Aborted);
        scene.write(&used());
        let found = scene.found();
        assert_eq!(found.is_empty(), fits, "{label}, {shown}: {found:?}");
    }
}

/// Whoever was refused long ago did not ask for what goes out now.
#[tokio::test]
async fn a_hit_after_the_answer_to_the_request_that_could_have_asked_for_it_is_found() {
    let ago = |time: Duration| Instant::now().checked_sub(time).expect("a machine that has run for a while");
    for (ended, fits) in [(None, true), (Some(Duration::ZERO), true), (Some(Duration::from_secs(3)), false)] {
        let scene = Scene::set().await;
        let evidence = Evidence::default();
        evidence.add("agent", "GITHUB_TOKEN", "ghp_ATTACHEmine");
        scene.oracle.evidence(&evidence);
        scene.oracle.exports("github", "GITHUB_TOKEN");
        let open = scene.oracle.agent().ledger().open("an agent").begin("GET /user");
        open.sent(b"GET /user HTTP/1.1\r\nAuthorization: Bearer ghp_ATTACHEmine\r\n\r\n");
        open.settle(Outcome::Answered(403));
        ended.into_iter().for_each(|time| open.ended(ago(time)));
        scene.write(&issue());
        scene.hit("r1").await;
        scene.write(&used());
        let found = scene.found();
        assert_eq!(found.is_empty(), fits, "{ended:?}: {found:?}");
        let unasked = |one: &Violation| matches!(one, Violation::Unasked { why, .. } if why.contains("under way"));
        assert!(found.iter().all(unasked), "{found:?}");
    }
}

/// An end that was seen counts; what is given up, or read no further, may go on.
#[tokio::test]
async fn a_request_ends_with_its_whole_answer_and_not_with_the_agents_patience() {
    let scene = Scene::set().await;
    let (agent, at) = (scene.oracle.agent(), scene.upstream.addr());
    let ended =
        |transcript: &Transcript| transcript.exchanges().iter().map(|one| one.ended.is_some()).collect::<Vec<_>>();
    scene.upstream.answer_with(|asked| match asked.path.as_str() {
        "/hang" => Reply::new(200).after(SOON * 10),
        "/reset" => Reply::reset(),
        _ => Reply::new(200).body("whole").chunked(),
    });
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");

    let mut h1 = agent.h1(at).await;
    h1.request("GET", HOST, "/", &[], b"").await.expect("an answer");
    h1.send(get("/")).await.expect("sent");
    h1.head(SOON).await.expect("a head");
    assert_eq!(ended(h1.transcript()), [true, false]);
    while h1.piece(SOON).await.expect("in time").is_some() {}
    assert_eq!(ended(h1.transcript()), [true, true]);
    let mut hangs = agent.h1(at).await;
    hangs.send(get("/hang")).await.expect("sent");
    hangs.response(Duration::from_millis(50)).await.expect_err("it hangs");
    assert_eq!(ended(hangs.transcript()), [false]);
    let mut reset = agent.h1(at).await;
    reset.request("GET", HOST, "/reset", &[], b"").await.expect_err("closed without a word");
    assert_eq!(ended(reset.transcript()), [true]);
    // Two requests in one go: the answer to the first is not the end of what was sent.
    let mut both = agent.h1(at).await;
    both.send(format!("{}{}", get("/"), get("/"))).await.expect("sent");
    both.response(SOON).await.expect("an answer");
    both.response(SOON).await.expect("another");
    assert_eq!(ended(both.transcript()), [false, true]);

    let mut h2 = agent.h2(at).await;
    h2.request("GET", HOST, "/", &[], b"").await.expect("an answer");
    let mut read = h2.start(head("GET", HOST, "/", &[]), true).await.expect("begun");
    read.head(SOON).await.expect("a head");
    assert_eq!(ended(h2.transcript()), [true, false]);
    while read.piece(SOON).await.expect("in time").is_some() {}
    h2.start(head("GET", HOST, "/hang", &[]), true).await.expect("begun").reset();
    assert_eq!(ended(h2.transcript()), [true, true, false]);

    let port = agent.port(at).await;
    Agent::new().get(port.addr, HOST, "/", &[]).await;
    let relayed = agent.ledger().transcripts().pop().expect("the relay's");
    util::eventually(SOON, || ended(&relayed) == [true]).await;
}

/// Two agents ask at once, and the upstream's answer says whose request was whose.
#[tokio::test]
async fn an_answer_ties_a_hit_to_the_request_of_its_agent() {
    let scene = asked("ghp_ATTACHEmine", &[issue()]).await;
    let bearer = format!("Bearer {SECRET}");
    let headers = [("authorization", bearer.as_str()), ("x-request-id", "r2"), ("x-shown", "ghp_ATTACHEtheirs")];
    scene.oracle.agent().get(scene.upstream.addr(), HOST, "/user", &headers).await;
    scene.write(&used());
    scene.write(&with(used(), "request_id", "r2"));
    let found = scene.found();
    assert!(matches!(&found[..], [Violation::Unasked { hit, .. }] if hit.contains("r2")), "{found:?}");
}

/// A broker that holds no session says for which evidence it granted.
#[tokio::test]
async fn a_grant_for_other_evidence_than_the_agents_is_found() {
    let digest = |text: &str| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (granted, fits) in [("ghp_ATTACHEmine", true), ("ghp_ATTACHEtheirs", false)] {
        let issue = with(issue(), "asked", json!({"placeholder": digest(granted)}));
        let scene = asked("ghp_ATTACHEmine", &[issue]).await;
        scene.write(&used());
        let found = scene.found();
        assert!(if fits { found.is_empty() } else { matches!(&found[..], [Violation::Unasked { .. }]) }, "{found:?}");
    }
}

#[tokio::test]
async fn a_request_begun_after_its_session_or_its_lease_was_over_is_found() {
    let theirs = |record: Value| with(record, "session", "over");
    let acknowledged = asked("ghp_ATTACHEover", &[theirs(issue())]).await;
    acknowledged.write(&theirs(used()));
    assert!(matches!(&acknowledged.found()[..], [Violation::Revoked { .. }]), "{:?}", acknowledged.found());

    let revoke = |ago: u64| json!({"kind": "revoke", "timestamp": util::wall_ms() - ago, "session_id": "s1"});
    for (ago, over) in [(9_000, false), (11_000, true)] {
        let recorded = asked("ghp_ATTACHEmine", &[issue(), revoke(ago)]).await;
        recorded.write(&used());
        let found = recorded.found();
        assert!(if over { matches!(&found[..], [Violation::Revoked { .. }]) } else { found.is_empty() }, "{found:?}");
    }
    // Within what Envoy may take to connect, the moment at which the agent asked decides.
    let old = with(with(issue(), "timestamp", util::wall_ms() - 1_000), "ttl_ms", 500);
    let expired = asked("ghp_ATTACHEmine", &[old]).await;
    expired.write(&used());
    assert!(matches!(&expired.found()[..], [Violation::Expired { .. }]), "{:?}", expired.found());
}
