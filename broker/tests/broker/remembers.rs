//! What the store keeps besides sessions, and what comes of it at the next start.

use crate::world::{WORKER, World, until};
use attache_broker::clock::Now;
use attache_broker::private_file::PrivateDir;
use attache_broker::store::Store;
use attache_core::digest::Digest;
use serde_json::{Value, json};

async fn store(world: &World) -> Store {
    Store::open(&PrivateDir::open(&world.config.state_dir).unwrap().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_placeholder_of_long_ago_is_told_apart_from_one_that_never_was() {
    let mut world = World::new().await;
    let wish = json!({"name": "old", "credentials": ["github"]});
    world.operate("POST", "/v1/sessions", wish).await;
    let placeholder = world.env("old", "GITHUB_TOKEN").await;
    let token = world.env("old", "ATTACHE_SESSION_TOKEN").await;
    world.operate("POST", "/v1/sessions/old/revoke", Value::Null).await;
    world.stop().await;
    let files = store(&world).await;
    files.forget(Now::read().wall_ms + 60_000).await.unwrap();
    files.close().await;
    world.start().await;
    let names = world.operate("GET", "/v1/sessions", Value::Null).await.json();
    assert_eq!(names.as_array().unwrap().len(), 1, "forgotten: {names}");
    let reason = async |placeholder: Option<&str>, token: Option<&str>| {
        world.grant("api.a.test:443", placeholder, token).await["denied"]["reason"].clone()
    };
    assert_eq!(reason(Some(&placeholder), None).await, "session_expired");
    assert_eq!(reason(None, Some(&token)).await, "session_expired");
    assert_eq!(reason(Some("ghp_ATTACHEforged"), None).await, "placeholder_unknown");
}

#[tokio::test]
async fn nothing_is_given_out_before_it_is_written_down() {
    let mut world = World::new().await;
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    let token = world.env("reviewer", "ATTACHE_SESSION_TOKEN").await;
    world.stop().await;
    let files = store(&world).await;
    for text in [&placeholder, &token] {
        assert!(files.was_given(&Digest::of(text.as_bytes())).await.unwrap());
    }
    files.close().await;
    for entry in std::fs::read_dir(&world.config.state_dir).unwrap().flatten() {
        let bytes = if entry.path().is_file() { std::fs::read(entry.path()).unwrap() } else { continue };
        let found = |text: &str| memchr::memmem::find(&bytes, text.as_bytes()).is_some();
        assert!(!found(&placeholder) && !found(&token), "{:?} holds it in clear", entry.path());
    }
}

#[tokio::test]
async fn workers_and_changes_outlive_the_process_and_polls_write_nothing() {
    let mut world = World::new().await;
    let epoch = world.poll("", 0, 0).await["epoch"].as_str().unwrap().to_owned();
    let body = json!({"access_mode": "read-write"});
    let done = world.operate("PUT", "/v1/sessions/reviewer/access-mode", body).await.json();
    let changes = async |world: &World| world.operate("GET", "/v1/changes", Value::Null).await.json();
    assert_eq!(changes(&world).await.as_array().unwrap().len(), 1, "written down before it is answered");
    world.write_secret("other", "another-real-secret");
    until("both changes are told", async || changes(&world).await.as_array().unwrap().len() == 2).await;
    let told = changes(&world).await;
    assert_eq!((&told[1]["kind"], &told[1]["scope"]), (&"session".into(), &done["session"]["id"]));
    assert_eq!((&told[0]["kind"], &told[0]["scope"]), (&"credential".into(), &"other".into()));
    assert_eq!((&told[1]["epoch"], &told[1]["cursor"]), (&epoch.clone().into(), &1.into()));

    let wal = world.config.state_dir.join("attache.db-wal");
    let written = || std::fs::metadata(&wal).unwrap().modified().unwrap();
    let mut quiet = 0;
    // The worker's row is written every two seconds: so many polls as fit in between write nothing.
    for _ in 0..5 {
        let before = written();
        for _ in 0..20 {
            world.poll(&epoch, 2, 0).await;
        }
        quiet += usize::from(before == written());
    }
    assert!(quiet >= 3, "{quiet} of 5 times 20 polls wrote nothing");

    world.restart().await;
    assert_eq!(changes(&world).await, told);
    let workers = world.operate("GET", "/v1/workers", Value::Null).await.json();
    assert_eq!((&workers[0]["id"], &workers[0]["live"]), (&WORKER.into(), &false.into()));
    assert_eq!(world.poll("", 0, 0).await["cursor"], 0);
    let workers = world.operate("GET", "/v1/workers", Value::Null).await.json();
    assert_eq!(
        (&workers[0]["id"], &workers[0]["live"], &workers[0]["behind"]),
        (&WORKER.into(), &true.into(), &0.into())
    );
}

#[tokio::test]
async fn a_log_that_lost_its_end_between_two_starts_is_noticed_and_told() {
    let mut world = World::new().await;
    for _ in 0..3 {
        world.plain_grant().await;
    }
    world.restart().await;
    let gaps =
        |world: &World| world.records().iter().filter(|record| record["kind"] == "gap").cloned().collect::<Vec<_>>();
    assert_eq!(gaps(&world), [] as [Value; 0], "nothing is missing after an orderly restart");
    world.stop().await;

    let log = std::fs::read_to_string(&world.config.audit.path).unwrap();
    let lines: Vec<_> = log.lines().collect();
    // The last checkpoint alone: what is left is a whole log that a killed broker could have left.
    let cut = lines[..lines.len() - 1].join("\n") + "\n";
    std::fs::write(&world.config.audit.path, &cut).unwrap();
    world.start().await;
    let gap = gaps(&world);
    let last = serde_json::from_str::<Value>(lines[lines.len() - 1]).unwrap();
    assert_eq!(last["kind"], "checkpoint");
    let reason = gap[0]["reason"].as_str().unwrap();
    assert_eq!(gap.len(), 1);
    assert!(
        reason.contains("was cut or replaced: record ") && reason.contains(last["hash"].as_str().unwrap()),
        "{reason}"
    );
    assert!(reason.contains(&format!("record {} of it", lines.len())), "{reason}");
    world.restart().await;
    assert_eq!(gaps(&world).len(), 1, "told once");
    world.stop().await;
    // A torn end is told as that, and as nothing else.
    let mut torn = std::fs::OpenOptions::new().append(true).open(&world.config.audit.path).unwrap();
    std::io::Write::write_all(&mut torn, b"{\"torn").unwrap();
    drop(torn);
    world.start().await;
    assert!(gaps(&world).len() == 2 && gaps(&world)[1]["reason"].as_str().unwrap().contains("torn"));
    world.restart().await;
    assert_eq!(gaps(&world).len(), 2, "told once, too");

    world.stop().await;
    std::fs::remove_file(&world.config.audit.path).unwrap();
    world.start().await;
    assert_eq!(gaps(&world).len(), 1, "a log that is gone is told, too");
}

/// A record behind the last one, with the hashes that it needs and nobody's signature.
fn forge(path: &std::path::Path) -> String {
    let log = std::fs::read_to_string(path).unwrap();
    let last = log.lines().last().unwrap();
    let head = serde_json::from_str::<Value>(last).unwrap()["hash"].as_str().unwrap().to_owned();
    let used = log.lines().find(|line| line.contains("\"kind\":\"start\"")).unwrap();
    let body = used.split(",\"prev\"").next().unwrap().to_owned() + "}";
    let (line, _) = attache_core::audit::chain::seal(&body, &head).unwrap();
    std::fs::write(path, log + &line + "\n").unwrap();
    line
}

#[tokio::test]
async fn what_somebody_else_has_added_to_the_log_is_told_before_anything_after_it_is_signed() {
    let mut world = World::new().await;
    world.plain_grant().await;
    world.stop().await;
    let path = world.config.audit.path.clone();
    let honest = world.records().len();
    forge(&path);
    let forged = forge(&path);
    world.start().await;
    let records = world.records();
    assert_eq!(records[honest + 1], serde_json::from_str::<Value>(&forged).unwrap(), "it stays where it is");
    let gap = &records[honest + 2];
    assert_eq!((&gap["kind"], &gap["count"]), (&"gap".into(), &2.into()), "{gap}");
    let reason = gap["reason"].as_str().unwrap();
    let range = format!("records {} to {} of the audit log were not noted before this start", honest + 1, honest + 2);
    assert!(reason.starts_with(&range), "{reason}");
    assert_eq!(records[honest + 3]["kind"], "checkpoint", "signed with the word of it before");

    // A database that knows nothing does not take the log for its own.
    world.stop().await;
    let honest = world.records().len();
    for file in ["attache.db", "attache.db-wal", "attache.db-shm"] {
        let _ = std::fs::remove_file(world.config.state_dir.join(file));
    }
    world.start().await;
    let gap = world.records()[honest].clone();
    assert_eq!((&gap["kind"], &gap["count"]), (&"gap".into(), &honest.into()), "{gap}");
    assert!(gap["reason"].as_str().unwrap().contains("(none was)"), "{gap}");
}

#[tokio::test]
async fn a_head_is_noted_while_the_broker_runs() {
    let world = World::new().await;
    world.plain_grant().await;
    let dir = PrivateDir::open(&world.config.state_dir).unwrap().unwrap();
    until("noted", async || {
        let records = world.records().len() as u64;
        let head = Store::open(&dir).await.unwrap().last_head().await.unwrap();
        head.is_some_and(|head| head.records == records)
    })
    .await;
    let last = world.records().pop().unwrap();
    let head = Store::open(&dir).await.unwrap().last_head().await.unwrap().unwrap();
    assert_eq!((head.hash.as_str(), head.noted_ms > 0), (last["hash"].as_str().unwrap(), true));
}
