//! The wall clock jumps by an hour, under traffic, for the broker and for Envoy: nothing lives longer
//! for it, and who may go on does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use attache_tests::clock::Clock;
use attache_tests::oracle::{Audit, Record, Violation};
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Stack, util};

use super::{HOST, SLACK, reason};

const HOUR: i64 = 3_600;
/// How often is asked.
const STEP: Duration = Duration::from_millis(50);

fn records(stack: &Stack<Attache>) -> Vec<Record> {
    Audit::read(Some(&stack.dir().join("state/default/audit.jsonl"))).0.records
}

/// How far the newest record of this kind is from the true time, in whole hours.
fn hours_off(stack: &Stack<Attache>, kind: &str) -> i64 {
    let all = records(stack);
    let newest = all.iter().rfind(|record| record.text("kind") == kind).expect("a record");
    let at = humantime::parse_rfc3339(&newest.text("timestamp")).expect("a time");
    let at = at.duration_since(std::time::UNIX_EPOCH).expect("past 1970").as_secs();
    let off = i64::try_from(at).expect("a time") - i64::try_from(util::wall_ms() / 1_000).expect("a time");
    // A record is written a moment after its time.
    (off + HOUR / 2).div_euclid(HOUR)
}

/// Everything adds up, but for the time that stands in the records: the upstream has another. That
/// each issue record came first the upstream knows by the length of the log, and for how long a lease
/// was used the tests themselves look.
async fn adds_up(stack: &Stack<Attache>) {
    let by_time = |found: &Violation| {
        matches!(found, Violation::IssuedLate { how: "by its timestamp", .. } | Violation::Expired { .. })
    };
    let others = || stack.site.oracle.violations().into_iter().filter(|found| !by_time(found)).collect::<Vec<_>>();
    let end = Instant::now() + SOON;
    loop {
        let found = others();
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{found:#?}");
        tokio::time::sleep(STEP).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lease_and_no_session_lives_longer_when_the_clock_jumps() {
    const LEASE: Duration = Duration::from_secs(1);
    const SESSION: Duration = Duration::from_secs(4);
    for hours in [-1, 1] {
        let clock = Clock::right();
        let stack = Plan::default().limit("grant_ttl: 1s").clock(&clock).start().await;
        let writer = stack.placeholder("writer", "github");
        let begun = Instant::now();
        stack.broker.json(&["session", "create", "brief", "--credential", "github", "--ttl", "4s"]);
        let brief = stack.placeholder("brief", "github");
        for placeholder in [&writer, &brief] {
            assert_eq!(stack.get(HOST, "/", placeholder).await.status, 200);
        }

        clock.off_by(hours * HOUR);
        let jumped = Instant::now();
        let mut last = None;
        while begun.elapsed() < SESSION + LEASE + SLACK {
            let asked = Instant::now();
            let answer = stack.get(HOST, "/", &brief).await;
            match answer.status {
                200 => last = Some(asked),
                _ => assert_eq!(reason(&answer), "session_expired", "{hours} h: {}", answer.text()),
            }
            assert_eq!(stack.get(HOST, "/", &writer).await.status, 200, "{hours} h: who may go on does");
            tokio::time::sleep(STEP).await;
        }
        // By the monotonic clock when the wall clock went back; by the wall clock when it is ahead,
        // as soon as the lease that was there is over.
        let (since, most) = if hours < 0 { (begun, SESSION) } else { (jumped, LEASE) };
        let lived = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since));
        assert!(lived < most + SLACK, "{hours} h: the session was used for {lived:?}");

        // Five seconds and more of a lease of one second each.
        let uses = || records(&stack).into_iter().filter(|r| r.text("kind") == "use" && r.text("session") == "writer");
        util::eventually(SOON, || uses().map(|record| record.text("lease_id")).collect::<BTreeSet<_>>().len() >= 5)
            .await;
        // And both processes lived by that clock.
        assert_eq!((hours_off(&stack, "issue"), hours_off(&stack, "use")), (hours, hours));
        adds_up(&stack).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_is_believed_for_longer_when_the_clock_jumps() {
    const STALE: Duration = Duration::from_secs(2);
    for hours in [-1, 1] {
        let clock = Clock::right();
        let plan = Plan::default().limit("stale_after: 2s").limit("callout_timeout: 500ms");
        let stack = plan.clock(&clock).start().await;
        let writer = stack.placeholder("writer", "github");
        assert_eq!(stack.get(HOST, "/", &writer).await.status, 200);
        // The feed is up, too: what is cached is used.
        stack.broker.signal("STOP");
        let stopped = Instant::now();
        clock.off_by(hours * HOUR);
        loop {
            let asked = stopped.elapsed();
            let answer = stack.get(HOST, "/", &writer).await;
            if answer.status != 200 {
                assert_eq!(reason(&answer), "stale", "{hours} h: {}", answer.text());
                break;
            }
            assert!(asked < STALE + SLACK, "{hours} h: believed for {asked:?}");
            tokio::time::sleep(STEP).await;
        }
        stack.broker.signal("CONT");
        let back = Instant::now();
        while stack.get(HOST, "/", &writer).await.status != 200 {
            assert!(back.elapsed() < SOON, "{hours} h: it goes on by itself");
            tokio::time::sleep(STEP).await;
        }
        adds_up(&stack).await;
    }
}
