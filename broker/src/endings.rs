//! Sessions that are over, or may do less, without an operator's word in this life of the broker:
//! their time has come, or it came while nobody was there to tell. Streams outlive grants, so the
//! workers must hear of it.

use crate::changes::{Feed, Scope};
use crate::clock::{Now, millis};
use crate::sessions::Sessions;
use attache_core::policy::AccessMode;
use std::time::Duration;

/// How often it is looked whether a session's time has come.
const TICK: Duration = Duration::from_millis(250);

/// No stream is older than this: the bootstrap's `max_stream_duration`.
const OLDEST_STREAM: Duration = Duration::from_secs(3600);

/// Tells of every session that is over, or may only read: what the life before took away last may
/// have reached no worker.
pub fn tell_again(sessions: &Sessions, feed: &Feed, now: Now) {
    let since_ms = now.wall_ms.saturating_sub(millis(OLDEST_STREAM));
    for session in sessions.all() {
        if session.is_live(now) {
            if session.mode(now) == AccessMode::ReadOnly {
                feed.publish(Scope::Narrowed(&session.id));
            }
        } else if session.over_ms().is_some_and(|over| over >= since_ms) {
            feed.publish(Scope::Ended(&session.id));
        }
    }
}

/// Tells of every session whose time comes, from `since` on, over and over.
pub async fn watch(sessions: &Sessions, feed: &Feed, since: Now) {
    let mut tick = tokio::time::interval(TICK);
    let mut before = since;
    loop {
        tick.tick().await;
        let now = Now::read();
        for session in sessions.expired_between(before, now) {
            tracing::info!(session = %session.name, "the session's time is over");
            feed.publish(Scope::Ended(&session.id));
        }
        before = now;
    }
}
