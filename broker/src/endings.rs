//! Sessions that are over, or may do less, without an operator's word in this life of the broker:
//! their time has come, or it came while nobody was there to tell. Streams outlive grants, so the
//! workers must hear of it.

use crate::changes::{Feed, Scope};
use crate::clock::{Now, millis};
use crate::config::Caps;
use crate::sessions::{Session, Sessions};
use attache_core::policy::AccessMode;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether a session's time has come.
const TICK: Duration = Duration::from_millis(250);

/// How long a database that takes no end of a session is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// No stream lives longer: the bootstrap says so to Envoy.
pub const LONGEST_STREAM: Duration = Duration::from_secs(3600);

/// Tells of every session that is over, or may only read: what the life before took away last may
/// have reached no worker.
pub fn tell_again(sessions: &Sessions, feed: &Feed, now: Now) {
    let since_ms = now.wall_ms.saturating_sub(millis(LONGEST_STREAM));
    for session in sessions.all() {
        if session.is_live(now) {
            if session.mode(now) == AccessMode::ReadOnly {
                feed.publish_first(Scope::Narrowed(&session.id));
            }
        } else if session.over_ms().is_some_and(|over| over >= since_ms) {
            feed.publish_first(Scope::Ended(&session.id));
        }
    }
}

/// Tells where credentials may only be read with: a config that said otherwise before may have let
/// writes through that are open still. A destination that is gone is gone from the policy, and that is
/// what workers hold their streams against.
pub fn tell_caps(caps: &Caps, feed: &Feed) {
    for (credential, destination) in caps.reading() {
        feed.publish_first(Scope::Capped(credential, destination));
    }
}

/// Tells of sessions whose declaration has changed since the life before: what is open with what they
/// were goes on no longer, nor what a connection alone had named that now names another session, too.
pub fn tell_changed(changed: &[Session], sessions: &[Arc<Session>], feed: &Feed) {
    for session in changed.iter().filter(|session| session.ended_ms.is_none()) {
        feed.publish_first(Scope::Ended(&session.id));
        for rival in session.rivals(sessions, Now::read()) {
            feed.publish_first(Scope::Rivalled(&rival.id));
        }
    }
}

/// Tells of every session whose time comes, and of every elevation's end, from `since` on, over and over.
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
        // At once, whatever log and database are doing: `Operator::revert` waits for them.
        for session in sessions.reverted_between(before, now) {
            feed.publish(Scope::Narrowed(&session.id));
        }
        before = now;
    }
}

/// Stores the end of every session whose time has come, over and over: on another way than [`watch`],
/// for a database that hangs must keep no worker from hearing of it.
pub async fn store(sessions: &Sessions) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = sessions.end_expired(Now::read()).await {
            tracing::warn!(%error, "the end of a session is not stored");
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Poll;
    use attache_core::names::Name;
    use attache_core::wire::Left;

    fn session(id: &str, ended_ms: Option<u64>) -> Session {
        Session {
            id: id.into(),
            name: Name::parse(id).unwrap(),
            credentials: Vec::new(),
            access_mode: AccessMode::ReadWrite,
            elevated_until: None,
            created_ms: 0,
            expires: None,
            ended_ms,
            declaration: None,
            bind: Default::default(),
            scopes: Default::default(),
        }
    }

    #[test]
    fn two_sessions_that_one_connection_names_are_rivals() {
        let bound = |id: &str, bind: &str| {
            let bind = serde_json::from_str(bind).unwrap();
            Arc::new(Session { bind, ..session(id, None) })
        };
        let all = [
            bound("free", "{}"),
            bound("peer", r#"{"peer":"spiffe://a/one"}"#),
            bound("other", r#"{"peer":"spiffe://a/two"}"#),
            bound("inner", r#"{"listener":"inner"}"#),
            bound("both", r#"{"peer":"spiffe://a/one","listener":"outer"}"#),
            bound("token", r#"{"peer":"spiffe://a/one","session_token":"required"}"#),
            bound("source", r#"{"source":"10.0.0.0/8"}"#),
        ];
        let rivals = |of: usize| all[of].rivals(&all, Now::read()).map(|rival| rival.id.as_str()).collect::<Vec<_>>();
        let found: Vec<_> = (0..all.len()).map(rivals).collect();
        let none: Vec<&str> = Vec::new();
        let expected = [
            none.clone(),
            vec!["inner", "both"],
            vec!["inner"],
            vec!["peer", "other"],
            vec!["peer"],
            none.clone(),
            none,
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn what_is_open_with_a_declaration_of_before_is_cut() {
        let feed = Feed::new("v1".into(), Duration::from_secs(10)).unwrap();
        tell_changed(&[session("changed", None), session("ended", Some(1))], &[], &feed);
        let poll = Poll { worker: "0123abcd", epoch: "", after: 0, wait: Duration::ZERO };
        let told = feed.poll(poll).await.unwrap().changes;
        let told: Vec<_> = told.iter().map(|change| (change.session_id.as_deref(), change.left)).collect();
        assert_eq!(told, [(Some("changed"), Some(Left::Nothing))], "what has ended is told of as that");
    }
}
