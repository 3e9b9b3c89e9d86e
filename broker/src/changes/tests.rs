//! The feed, on a paused clock where time matters.

use super::*;

const STALE: Duration = Duration::from_secs(9);
const LONG: Duration = Duration::from_secs(60);

fn feed() -> Feed {
    Feed::new("p1".into(), STALE).unwrap()
}

async fn poll(feed: &Feed, worker: &str, after: u64, wait: Duration) -> wire::Changes {
    let epoch = feed.epoch.clone();
    feed.poll(Poll { worker, epoch: &epoch, after, wait }).await.unwrap()
}

fn revoke(feed: &Feed) -> u64 {
    feed.publish(Scope::Ended("s-1"))
}

#[tokio::test]
async fn another_epoch_is_answered_at_once_with_the_cursor_and_what_was_taken_away() {
    let feed = feed();
    feed.publish(Scope::Widened("s-2"));
    revoke(&feed);
    feed.publish(Scope::Narrowed("s-3"));
    feed.publish(Scope::Credential(&Name::parse("github").unwrap()));
    for (epoch, after) in [("", 0), ("other", 0), (feed.epoch.clone().as_str(), 7)] {
        let answer = feed.poll(Poll { worker: "w", epoch, after, wait: LONG }).await.unwrap();
        let told = answer.changes.iter().map(|change| (change.session_id.as_deref(), change.left));
        assert_eq!(told.collect::<Vec<_>>(), [(Some("s-1"), Some(Left::Nothing)), (Some("s-3"), Some(Left::Reads))]);
        assert_eq!(answer.cursor, 4);
        assert_eq!((answer.epoch, answer.policy.as_str()), (feed.epoch.clone(), "p1"));
    }
}

#[tokio::test]
async fn another_policy_is_told_like_any_change_and_ends_no_stream() {
    let feed = feed();
    let epoch = feed.epoch.clone();
    let held = feed.poll(Poll { worker: "w", epoch: &epoch, after: 0, wait: LONG });
    let (answer, cursor) = tokio::join!(held, async { feed.publish_policy("p2") });
    let answer = answer.unwrap();
    let all = wire::Change { cursor, ..wire::Change::default() };
    assert_eq!((answer.policy.as_str(), answer.cursor), ("p2", cursor));
    let told: Vec<_> = feed.unwritten(LONG).await.into_iter().map(|told| told.change).collect();
    assert_eq!((answer.changes, told), (vec![all.clone()], vec![all]));
    // Whoever comes later has it from the start, and nothing to cut.
    let first = feed.poll(Poll { worker: "v", epoch: "", after: 0, wait: LONG }).await.unwrap();
    assert_eq!((first.policy.as_str(), first.changes.len()), ("p2", 0));
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_held_at_most_a_third_of_the_staleness_limit() {
    let feed = feed();
    let began = tokio::time::Instant::now();
    let answer = poll(&feed, "w", 0, LONG).await;
    assert_eq!((began.elapsed(), answer.changes.len()), (STALE / 3, 0));
    let began = tokio::time::Instant::now();
    poll(&feed, "w", 0, Duration::from_millis(50)).await;
    assert_eq!(began.elapsed(), Duration::from_millis(50));
}

#[tokio::test]
async fn a_held_poll_hears_of_a_change_and_the_next_acknowledges_it() {
    let feed = feed();
    let (answer, cursor) = tokio::join!(poll(&feed, "w", 0, LONG), async {
        tokio::task::yield_now().await;
        revoke(&feed)
    });
    assert_eq!((answer.cursor, answer.changes[0].session_id.as_deref()), (cursor, Some("s-1")));
    let (applied, _) = tokio::join!(feed.applied(cursor, STALE), async {
        tokio::task::yield_now().await;
        poll(&feed, "w", cursor, Duration::ZERO).await
    });
    assert_eq!((applied.applied, applied.total, applied.waiting.len()), (1, 1, 0));
}

#[tokio::test]
async fn a_worker_far_behind_is_told_to_forget_everything() {
    let feed = feed();
    for _ in 0..KEPT + 1 {
        revoke(&feed);
    }
    assert_eq!(poll(&feed, "w", 1, LONG).await.changes.len(), KEPT);
    let answer = poll(&feed, "w", 0, LONG).await;
    assert_eq!(
        answer.changes,
        [wire::Change { cursor: answer.cursor, left: Some(Left::Nothing), ..wire::Change::default() }]
    );
}

#[tokio::test]
async fn what_is_told_first_is_kept_however_much_it_is() {
    let feed = feed();
    feed.publish(Scope::Credential(&Name::parse("github").unwrap()));
    let many = 3 * KEPT;
    let ids: Vec<_> = (0..many).map(|n| format!("s-{n}")).collect();
    for id in &ids {
        feed.publish_first(Scope::Narrowed(id));
    }
    revoke(&feed);
    let told = feed.poll(Poll { worker: "w", epoch: "other", after: 900, wait: LONG }).await.unwrap();
    let expected = ids.iter().map(|id| (Some(id.as_str()), Some(Left::Reads)));
    let expected: Vec<_> = expected.chain([(Some("s-1"), Some(Left::Nothing))]).collect();
    let found: Vec<_> = told.changes.iter().map(|change| (change.session_id.as_deref(), change.left)).collect();
    assert_eq!(found, expected, "each by its name, in order, and nothing that ends all");
    assert_eq!(poll(&feed, "w", told.cursor - 2, LONG).await.changes.len(), 2);
}

#[tokio::test]
async fn a_silent_worker_is_waited_for_until_it_is_stale_and_named() {
    let stale = Duration::from_millis(80);
    let feed = Feed::new("p1".into(), stale).unwrap();
    poll(&feed, "w1", 0, Duration::ZERO).await;
    poll(&feed, "w2", 0, Duration::ZERO).await;
    let began = Instant::now();
    let cursor = revoke(&feed);
    poll(&feed, "w2", cursor, Duration::ZERO).await;
    let applied = feed.applied(cursor, LONG).await;
    assert_eq!((applied.applied, applied.total, applied.waiting), (1, 2, vec!["w1".to_owned()]));
    assert!(began.elapsed() <= stale * 3, "an absolute bound");
    while feed.workers() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "silent workers are forgotten");
        tokio::task::yield_now().await;
    }
    assert_eq!(feed.applied(cursor, LONG).await.total, 0);
}

#[tokio::test]
async fn an_acknowledgement_of_another_life_counts_for_nothing() {
    let feed = feed();
    let cursor = revoke(&feed);
    feed.poll(Poll { worker: "w", epoch: "before", after: 900, wait: LONG }).await.unwrap();
    let applied = feed.applied(cursor, Duration::ZERO).await;
    assert_eq!(applied.waiting, ["w"]);
}

#[tokio::test]
async fn followers_of_the_life_before_are_waited_for_until_they_come_or_are_stale() {
    let stale = Duration::from_millis(80);
    let feed = Feed::new("p1".into(), stale).unwrap().of_another_life();
    let began = Instant::now();
    let cursor = revoke(&feed);
    let (applied, ()) = tokio::join!(feed.applied(cursor, LONG), async {
        feed.poll(Poll { worker: "w", epoch: "before", after: 900, wait: LONG }).await.unwrap();
        poll(&feed, "w", cursor, Duration::ZERO).await;
    });
    assert_eq!((applied.applied, applied.total, applied.waiting), (1, 1, Vec::new()));
    assert!(
        (stale - Duration::from_millis(1)..stale * 3).contains(&began.elapsed()),
        "another may be about that has not come yet"
    );
    // Only at first.
    poll(&feed, "w", cursor, Duration::ZERO).await;
    let cursor = revoke(&feed);
    poll(&feed, "w", cursor, Duration::ZERO).await;
    let applied = feed.applied(cursor, LONG).await;
    assert!(applied.applied == 1 && applied.took_ms < 80, "{applied:?}");
}

#[tokio::test]
async fn a_closed_feed_holds_nobody() {
    let feed = feed();
    tokio::join!(poll(&feed, "w", 0, LONG), async {
        tokio::task::yield_now().await;
        feed.close();
    });
    poll(&feed, "w", 0, LONG).await;
}

#[tokio::test]
async fn one_worker_too_many_is_turned_away() {
    // The first must still be alive when the last has polled, however slow the machine is.
    let feed = Feed::new("p1".into(), Duration::from_secs(3600)).unwrap();
    for n in 0..MOST_WORKERS {
        poll(&feed, &format!("w{n}"), 0, Duration::ZERO).await;
    }
    let epoch = feed.epoch.clone();
    let more = feed.poll(Poll { worker: "more", epoch: &epoch, after: 0, wait: LONG }).await;
    assert_eq!(more.err(), Some(TooManyWorkers));
    poll(&feed, "w7", 0, Duration::ZERO).await;
}
